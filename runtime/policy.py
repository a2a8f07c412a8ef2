"""The graphs of a bundle as three calls: set the instruction, compute a condition, compute a chunk.

Every tensor is computed once per change of its inputs: what rests on the instruction alone when the
instruction changes, image tokens once a frame, the condition once a run of System 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.engines.base import EngineFactory, Tensors, load, zeros
from runtime.mailbox import FrameMsg, Image, Vector
from v2a.bundle import Bundle, GraphSpec
from v2a.clock import Clock
from v2a.errors import BundleError
from v2a.spans import STAGE_INDEX, SpanRing

# What the runtime can feed to each graph, in the order in which they run. A graph may leave out
# what its policy does not use.
SUPPLIED: dict[str, tuple[str, ...]] = {
    "instruction": ("lang_tokens",),
    "vae_spatial": ("frames",),
    "vae_motion": ("frames",),
    "vdm_spatial": ("latent_spatial", "text_kv"),
    "vdm_motion": ("latent_motion", "text_kv"),
    "condition": ("features_spatial", "features_motion", "stream_gate"),
    "frame_encode": ("image",),
    "observe": ("image_tokens", "position_rad", "command_rad", "condition_age_s", "register_kv"),
    "denoise": ("noise", "lang_kv", "video_kv", "image_kv", "state_tokens", "command_rad"),
}


class PolicyGraphs:
    """The loaded engines of `bundle`; `with` or `close` frees them.

    `engines` makes each of them (default: ONNX Runtime), so a study may plug in its own. Raises
    BundleError when a graph is missing or asks for something that the runtime does not have.

    System 1's calls and System 2's calls may come from two threads. `ring` is the span ring of the
    calling thread.
    """

    def __init__(self, bundle: Bundle, clock: Clock, engines: EngineFactory = load) -> None:
        self.bundle = bundle
        self._clock = clock
        self._specs = {name: _checked(bundle.graph(name)) for name in SUPPLIED}
        self._instruction: tuple[str, Tensors] | None = None
        self._image: tuple[int, Tensors] | None = None  # (seq of the frame, image_tokens)
        with ExitStack() as opened:
            self._engines = {
                name: opened.enter_context(engines(spec, bundle.graph_path(name)))
                for name, spec in self._specs.items()
            }
            self._closing = opened.pop_all()

    def warm(self) -> None:
        """Run every graph once on zeros: the first run allocates and is several times slower."""
        for name, spec in self._specs.items():
            self._engines[name].run(zeros(spec.inputs))

    def set_instruction(self, text: str, ring: SpanRing) -> None:
        """Compute what rests on the instruction alone. The same text again costs nothing."""
        if self._instruction is None or self._instruction[0] != text:
            known = {"lang_tokens": self.bundle.instruction_tokens(text)}
            self._instruction = (text, self._run("instruction", known, ring))

    def condition(self, clip: Image, stream_gate: tuple[float, float], ring: SpanRing) -> Tensors:
        """System 2 on `clip`, uint8 [T, H, W, 3] oldest first: the outputs of graph `condition`.

        `stream_gate` scales the spatial and the motion tokens (study modes; ones is the policy).
        """
        known = dict(self._of_instruction())
        known["stream_gate"] = np.asarray(stream_gate, dtype=np.float32)
        known |= self._run("vae_spatial", {"frames": clip[np.newaxis, -1:]}, ring)
        known |= self._run("vae_motion", {"frames": clip[np.newaxis]}, ring)
        for name in ("vdm_spatial", "vdm_motion", "condition"):
            known |= self._run(name, known, ring)
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
        """System 1: joint targets, float64 [K, J] rad. `noise` is float32 [1, K, J]."""
        known = {**self._of_instruction(), **condition, **self._image_tokens(frame, ring)}
        known["position_rad"] = position_rad[np.newaxis].astype(np.float32)
        known["command_rad"] = command_rad[np.newaxis].astype(np.float32)
        known["condition_age_s"] = np.asarray([condition_age_s], dtype=np.float32)
        known["noise"] = noise
        known |= self._run("observe", known, ring)
        chunk_rad = self._run("denoise", known, ring)["chunk_rad"]
        return np.asarray(chunk_rad[0], dtype=np.float64)

    def close(self) -> None:
        self._closing.close()

    def _of_instruction(self) -> Tensors:
        if self._instruction is None:
            raise BundleError("no instruction is set; name one of the bundle's instructions")
        return self._instruction[1]

    def _image_tokens(self, frame: FrameMsg, ring: SpanRing) -> Tensors:
        if self._image is None or self._image[0] != frame.seq:
            known = {"image": frame.image[np.newaxis]}
            self._image = (frame.seq, self._run("frame_encode", known, ring))
        return self._image[1]

    def _run(self, name: str, known: Mapping[str, npt.NDArray[Any]], ring: SpanRing) -> Tensors:
        feeds = {spec.name: known[spec.name] for spec in self._specs[name].inputs}
        start_ns = self._clock.now_ns()
        outputs = self._engines[name].run(feeds)
        ring.add(STAGE_INDEX[name], start_ns, self._clock.now_ns())
        return outputs


def _checked(spec: GraphSpec) -> GraphSpec:
    unknown = {tensor.name for tensor in spec.inputs} - set(SUPPLIED[spec.name])
    if unknown:
        raise BundleError(
            f"graph {spec.name}: the runtime does not supply {', '.join(sorted(unknown))}, only "
            f"{', '.join(SUPPLIED[spec.name])}; export the bundle with this version of v2a"
        )
    return spec
