"""The graphs of a bundle as three calls: set the instruction, compute a condition, compute a chunk.

Each tensor is computed once per change of its inputs: instruction tensors when the instruction
changes, image tokens once per frame, the condition once per run of System 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.engines.base import (
    EngineFactory,
    Tensors,
    TimesGpu,
    check_tensor,
    load,
    zeros,
)
from runtime.mailbox import FrameMsg, Image, Vector
from runtime.policy.nvtx import ranged
from v2a.bundle import Bundle, GraphSpec, Manifest, TensorSpec
from v2a.clock import Clock
from v2a.errors import BundleError
from v2a.spans import SpanRing

# The inputs that the runtime supplies to each graph, in the order of running. A graph may leave out
# inputs that its policy does not use.
SUPPLIED: dict[str, tuple[str, ...]] = {
    "instruction": ("lang_tokens",),
    "vae_spatial": ("frames",),
    "vae_motion": ("frames",),
    "vdm_spatial": ("latent_spatial", "text_kv"),
    "vdm_motion": ("latent_motion", "text_kv"),
    "condition": ("features_spatial", "features_motion"),
    "frame_encode": ("image",),
    "observe": ("image_tokens", "position_rad", "command_rad", "condition_age_s", "register_kv"),
    "denoise": ("noise", "lang_kv", "video_kv", "image_kv", "state_tokens", "command_rad"),
}


class PolicyGraphs:
    """Loads the engines of `bundle` and runs its graphs. `close` frees the engines.

    `engines` makes the engine of each graph, by default with ONNX Runtime. Raises BundleError if a
    graph is missing, has an input that the runtime does not supply, or does not fit the graph
    before it, the camera or the action space.

    Two threads may call at once, one for System 1 and one for System 2. `ring` is the span ring of
    the calling thread.
    """

    def __init__(self, bundle: Bundle, clock: Clock, engines: EngineFactory = load) -> None:
        self.bundle = bundle
        self._clock = clock
        self._stage_index = {s: index for index, s in enumerate(bundle.manifest.stages)}
        refuse_released(bundle)
        self._specs = {name: bundle.graph(name) for name in SUPPLIED}
        _check_tensors(self._specs, bundle.manifest)
        self._instruction: tuple[str, Tensors] | None = None
        self._image: tuple[int, Tensors] | None = None  # (seq of the frame, image_tokens)
        with ExitStack() as opened:
            loaded = {
                name: opened.enter_context(engines(spec, bundle.graph_path(name)))
                for name, spec in self._specs.items()
            }
            self._runs = {name: ranged(name, engine.run) for name, engine in loaded.items()}
            self._closing = opened.pop_all()
        self._gpu_ms: dict[str, Callable[[], float]] = {
            name: engine.gpu_ms for name, engine in loaded.items() if isinstance(engine, TimesGpu)
        }

    def warm(self) -> None:
        """Run every graph once on zeros, because the first run is several times slower."""
        for name, spec in self._specs.items():
            self._runs[name](zeros(spec.inputs))

    def set_instruction(self, text: str, ring: SpanRing) -> None:
        """Compute the tensors of an instruction. The same text again costs nothing.

        Raises BundleError for an instruction that the bundle lacks.
        """
        if self._instruction is None or self._instruction[0] != text:
            known = {"lang_tokens": self.bundle.instruction_tokens(text)}
            self._instruction = (text, self._run("instruction", known, ring))

    def condition(self, clip: Image, ring: SpanRing, seq: int = 0) -> Tensors:
        """Run System 2 on `clip`, uint8 [T, H, W, 3] RGB, oldest picture first.

        Returns the condition: the outputs of graph `condition` by name, with shape and dtype as in
        its spec. `seq` is the number of the newest frame, for the spans. Raises BundleError before
        the first `set_instruction`.
        """
        known = dict(self._of_instruction())
        known |= self._run("vae_spatial", {"frames": clip[np.newaxis, -1:]}, ring, seq)
        known |= self._run("vae_motion", {"frames": clip[np.newaxis]}, ring, seq)
        for name in ("vdm_spatial", "vdm_motion", "condition"):
            known |= self._run(name, known, ring, seq)
        return {spec.name: known[spec.name] for spec in self._specs["condition"].outputs}

    def chunk(
        self,
        frame: FrameMsg,
        position_rad: Vector,
        command_rad: Vector,
        condition: Mapping[str, npt.NDArray[Any]],
        condition_age_s: float,
        noise: npt.NDArray[np.float32],
        ring: SpanRing,
    ) -> Vector:
        """Run System 1 and return a chunk: joint targets, float64 [K, J] rad.

        `position_rad` is the measured position and `command_rad` the last command, both float64
        [J] rad. `condition` is a result of `condition`. `noise` is float32 [1, K, J], without unit.
        Raises BundleError before the first `set_instruction`.
        """
        known = {**self._of_instruction(), **condition, **self._image_tokens(frame, ring)}
        known["position_rad"] = position_rad[np.newaxis].astype(np.float32)
        known["command_rad"] = command_rad[np.newaxis].astype(np.float32)
        known["condition_age_s"] = np.asarray([condition_age_s], dtype=np.float32)
        known["noise"] = noise
        known |= self._run("observe", known, ring, frame.seq)
        chunk_rad = self._run("denoise", known, ring, frame.seq)["chunk_rad"]
        return np.asarray(chunk_rad[0], dtype=np.float64)

    def close(self) -> None:
        """Free the engines."""
        self._closing.close()

    def _of_instruction(self) -> Tensors:
        if self._instruction is None:
            raise BundleError("no instruction is set; set one of the bundle's instructions first")
        return self._instruction[1]

    def _image_tokens(self, frame: FrameMsg, ring: SpanRing) -> Tensors:
        if self._image is None or self._image[0] != frame.seq:
            known = {"image": frame.image[np.newaxis]}
            self._image = (frame.seq, self._run("frame_encode", known, ring, frame.seq))
        return self._image[1]

    def _run(
        self, name: str, known: Mapping[str, npt.NDArray[Any]], ring: SpanRing, seq: int = 0
    ) -> Tensors:
        feeds = {spec.name: known[spec.name] for spec in self._specs[name].inputs}
        start_ns = self._clock.now_ns()
        outputs = self._runs[name](feeds)
        for spec in self._specs[name].outputs:
            # An ONNX file may declare a shape and return another one.
            check_tensor(name, spec, outputs.get(spec.name))
        end_ns = self._clock.now_ns()
        ring.add(self._stage_index[name], start_ns, end_ns, seq)
        if name in self._gpu_ms:
            # GPU events give the duration, not the time: the span ends where the host's span ends.
            gpu_ns = round(self._gpu_ms[name]() * 1e6)
            ring.gpu.add(self._stage_index[name], end_ns - gpu_ns, end_ns, seq)
        return outputs


def refuse_released(bundle: Bundle) -> None:
    """Raise BundleError for the bundle of a released policy, which has other graphs."""
    if any(graph.name == "instruction_video" for graph in bundle.manifest.graphs):
        raise BundleError(
            f"{bundle.path}: a released policy's bundle; this v2a exports, checks and builds it, "
            "but cannot run or profile it yet"
        )


def _check_tensors(specs: Mapping[str, GraphSpec], manifest: Manifest) -> None:
    """Check that the runtime or an earlier graph makes each input, and that a chunk has all joints.

    A chunk with a single column would silently move every joint.
    """
    space, camera = manifest.action_space, manifest.cameras[0]
    picture = [camera.height, camera.width, 3]
    joints = [1, len(space.joints)]
    chunk = ("float32", [1, space.chunk_length, len(space.joints)])
    clip_lengths = {"vae_spatial": 1, "vae_motion": camera.history}
    made: dict[str, tuple[str, list[int]]] = {
        **_tensors(specs["instruction"].inputs),  # checked against the embeddings when it runs
        "image": ("uint8", [1, *picture]),
        "position_rad": ("float32", joints),
        "command_rad": ("float32", joints),
        "condition_age_s": ("float32", [1]),
        "noise": chunk,
    }
    for name, graph in specs.items():
        made["frames"] = ("uint8", [1, clip_lengths.get(name, 0), *picture])
        for tensor, found in _tensors(graph.inputs).items():
            if tensor not in SUPPLIED[name] or tensor not in made:
                raise BundleError(
                    f"graph {name}: the runtime does not supply {tensor}; export the bundle with "
                    "this version of v2a"
                )
            _check_equal(f"graph {name}: input {tensor}", found, made[tensor])
        made |= _tensors(graph.outputs)
    _check_equal("graph denoise: output chunk_rad", made.get("chunk_rad", ("missing", [])), chunk)


def _tensors(specs: Sequence[TensorSpec]) -> dict[str, tuple[str, list[int]]]:
    return {spec.name: (spec.dtype, spec.shape) for spec in specs}


def _check_equal(who: str, found: tuple[str, list[int]], made: tuple[str, list[int]]) -> None:
    if found != made:
        raise BundleError(
            f"{who} is {found[0]}{found[1]}, but the rest of the bundle uses "
            f"{made[0]}{made[1]}; export the bundle again"
        )
