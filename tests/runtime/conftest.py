"""A tiny policy without a model, a two-joint robot in memory, and both ways to run them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

from hw_drivers.dynamixel.models import MODELS
from hw_drivers.dynamixel.virtual_bus import VirtualDynamixelBus
from hw_drivers.dynamixel.virtual_servo import VirtualDynamixel
from hw_drivers.robot.robot import Robot
from hw_drivers.virtual.loopback import LoopbackPort
from runtime.config.robot_yaml import RunConfig
from runtime.engines.base import EngineFactory
from runtime.engines.fake import FakeEngine, Function
from runtime.lockstep import CallbackCamera, Delay, Lockstep
from runtime.workers import Workers, build_workers
from v2a.bundle import Bundle, GraphSpec, Manifest, load_bundle, seal
from v2a.clock import FakeClock
from v2a.spans import Tracer

if TYPE_CHECKING:
    from tests.runtime.control.outside import Simulator

J, K, T, SIZE = 2, 16, 3, 8
STEP_S = 0.05
TASK = "push the cube"

# graph: (rate, inputs, outputs); a tensor is (name, dtype, shape). One number stands for a cache.
F32, U8 = "float32", "uint8"
TENSORS: dict[str, tuple[str, list[int]]] = {
    "lang_tokens": (F32, [1, 2, 3]),
    "lang_kv": (F32, [1]),
    "text_kv": (F32, [1]),
    "image": (U8, [1, SIZE, SIZE, 3]),
    "image_tokens": (F32, [1, 1, 1]),
    "latent_spatial": (F32, [1]),
    "latent_motion": (F32, [1]),
    "features_spatial": (F32, [1]),
    "features_motion": (F32, [1]),
    "video_kv": (F32, [1]),
    "register_kv": (F32, [1]),
    "position_rad": (F32, [1, J]),
    "command_rad": (F32, [1, J]),
    "condition_age_s": (F32, [1]),
    "image_kv": (F32, [1]),
    "state_tokens": (F32, [1, 1, 1]),
    "noise": (F32, [1, K, J]),
    "chunk_rad": (F32, [1, K, J]),
}
GRAPHS: dict[str, tuple[str, list[str], list[str]]] = {
    "instruction": ("instruction", ["lang_tokens"], ["lang_kv", "text_kv"]),
    "frame_encode": ("frame", ["image"], ["image_tokens"]),
    "vae_spatial": ("system2", ["frames"], ["latent_spatial"]),
    "vae_motion": ("system2", ["frames"], ["latent_motion"]),
    "vdm_spatial": ("system2", ["latent_spatial", "text_kv"], ["features_spatial"]),
    "vdm_motion": ("system2", ["latent_motion", "text_kv"], ["features_motion"]),
    "condition": (
        "system2",
        ["features_spatial", "features_motion"],
        ["video_kv", "register_kv"],
    ),
    "observe": (
        "observe",
        ["image_tokens", "position_rad", "command_rad", "condition_age_s", "register_kv"],
        ["image_kv", "state_tokens"],
    ),
    "denoise": (
        "denoise",
        ["noise", "lang_kv", "video_kv", "image_kv", "state_tokens", "command_rad"],
        ["chunk_rad"],
    ),
}


def tensor(graph: str, name: str) -> dict[str, Any]:
    if name == "frames":
        dtype, shape = U8, [1, 1 if graph == "vae_spatial" else T, SIZE, SIZE, 3]
    else:
        dtype, shape = TENSORS[name]
    return {"name": name, "dtype": dtype, "shape": shape, "meaning": "test"}


def manifest(joints: tuple[str, ...] = ("base", "tip")) -> Manifest:
    return Manifest.model_validate(
        {
            "policy": "tiny",
            "description": "for tests",
            "graphs": [
                {
                    "name": name,
                    "rate": rate,
                    "file": f"graphs/{name}.onnx",
                    "inputs": [tensor(name, i) for i in inputs],
                    "outputs": [tensor(name, o) for o in outputs],
                }
                for name, (rate, inputs, outputs) in GRAPHS.items()
            ],
            "action_space": {
                "joints": [
                    {"name": name, "lower": -1.0, "upper": 1.0, "velocity_limit": 2.0}
                    for name in joints
                ],
                "chunk_length": K,
                "step_s": STEP_S,
            },
            "cameras": [
                {"name": "front", "width": SIZE, "height": SIZE, "history": T, "interval_s": 0.05}
            ],
            "instructions": {TASK: {"file": "embeddings/task.npy"}},
            "condition_age_max_s": 1.5,
            "provenance": {},
        }
    )


STAGES = manifest().stages
INDEX = {stage: index for index, stage in enumerate(STAGES)}


def write_tiny_bundle(path: Path, write_graph: Callable[[GraphSpec, Path], object]) -> Path:
    """A sealed bundle whose graph files `write_graph` makes."""
    (path / "graphs").mkdir(parents=True)
    (path / "embeddings").mkdir()
    np.save(path / "embeddings" / "task.npy", np.zeros((1, 2, 3), np.float32))
    contents = manifest()
    for graph in contents.graphs:
        write_graph(graph, path / graph.file)
    seal(path, contents)
    return path


def rising(feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """A `denoise` that has every joint rise at 0.4 rad/s from the last command."""
    rise = np.arange(K, dtype=np.float32)[None, :, None] * np.float32(0.4 * STEP_S)
    return {"chunk_rad": feeds["command_rad"][:, None, :] + rise}


def fakes(**functions: Function) -> EngineFactory:
    """Fake engines: `functions` by graph name, `denoise` rises unless it is given."""
    chosen: dict[str, Function] = {"denoise": rising, **functions}
    return lambda graph, path: FakeEngine(graph, path, function=chosen.get(graph.name))


def run_config(**parts: Any) -> RunConfig:
    joint = {"model": "xl430-w250", "lower_rad": -1.0, "upper_rad": 1.0}
    joints = [
        {**joint, "name": name, "id": i, "velocity_limit_rad_s": 1.0}
        for i, name in enumerate(("base", "tip"), start=1)
    ]
    bus = {"protocol": "dynamixel2", "port": "/dev/null", "baud": 1_000_000}
    whole = {
        "robot": {"name": "two", "bus": bus, "joints": joints},
        "camera": {"source": "file:none", "fps": 20.0},
        "instruction": TASK,
        **parts,
    }
    return RunConfig.model_validate(whole)


def make_chain() -> VirtualDynamixelBus:
    return VirtualDynamixelBus([VirtualDynamixel(MODELS["xl430-w250"], i) for i in (1, 2)])


def torques(chain: VirtualDynamixelBus) -> list[bool]:
    return [servo.torque_on for servo in chain.servos.values()]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return load_bundle(
        write_tiny_bundle(tmp_path / "bundle", lambda graph, path: path.write_bytes(b"fake"))
    )


class World:
    """The two-joint robot in lockstep: its chain is the plant, its camera sees black."""

    def __init__(
        self,
        bundle: Bundle,
        config: RunConfig | None = None,
        delays: Mapping[str, Delay] | None = None,
        engines: EngineFactory | None = None,
        record_dir: Path | None = None,
        seed: int = 0,
    ) -> None:
        self.clock = FakeClock()
        self.chain = make_chain()
        self.config = config or run_config()
        self.tracer = Tracer()
        self._at_ns = 0
        image = np.zeros((SIZE, SIZE, 3), np.uint8)
        self.workers: Workers = build_workers(
            bundle,
            Robot(self.config.robot, self.clock, LoopbackPort(self.chain)),
            CallbackCamera(lambda: image, self.clock),
            self.config,
            self.clock,
            self.tracer,
            engines=engines or fakes(),
            seed=seed,
        )
        self.lockstep = Lockstep(
            self.workers, self.clock, self._plant, delays, seed=seed, record_dir=record_dir
        )

    def _plant(self, now_ns: int) -> None:
        self.chain.step((now_ns - self._at_ns) / 1e9)
        self._at_ns = now_ns

    @property
    def setpoints_rad(self) -> list[float]:
        return [servo.setpoint_rad for servo in self.chain.servos.values()]


def after_ms(ms: float) -> Delay:
    return lambda rng: round(ms * 1e6)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with `robot.yaml` and `bundle/` in it."""
    from tests.runtime.control.outside import ROBOT_YAML
    from tests.runtime.onnx_files import write_zeros  # here: needs onnx

    write_tiny_bundle(tmp_path / "bundle", write_zeros)
    (tmp_path / "robot.yaml").write_text(ROBOT_YAML)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def simulator(folder: Path) -> Iterator[Simulator]:
    """Pictures for `robot.yaml`."""
    from tests.runtime.control.outside import Simulator  # here: it imports this file

    simulator = Simulator(folder / "camera.sock")
    yield simulator
    simulator.close()


@pytest.fixture
def filmed(folder: Path, simulator: Simulator) -> Path:
    """`folder`, with pictures coming in."""
    return folder
