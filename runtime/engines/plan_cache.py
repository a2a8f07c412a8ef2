"""Keeps built plans on the robot's disk and finds them by everything that they depend on.

`~/.cache/v2a/plans` (or below `XDG_CACHE_HOME`), per plan:
DIGEST.plan     what TensorRT built
DIGEST.json     a `PlanNote` as JSON; written last
DIGEST.timing   TensorRT's kernel timings on one machine

TensorRT executes a plan as code, so only its user may enter the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from runtime.engines.cuda import Gpu
from v2a.bundle import GraphSpec
from v2a.config import describe_fault
from v2a.errors import EngineError
from v2a.measured import Measured

# `nvpmodel` writes this file on a Jetson: "pmode:0002 fmode:fanNull". A power mode sets the clocks,
# and TensorRT picks its kernels by their time.
POWER_MODE = Path("/var/lib/nvpmodel/status")


@dataclass(frozen=True, slots=True)
class Machine:
    """What a plan depends on besides its graph. `sm` and `cuda` are as in `Gpu`."""

    engine: str
    tensorrt: str
    cuda: int
    driver: str
    gpu: str
    sm: int
    power_mode: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a plan is built. The graph sets the precision, as its network is strongly typed."""

    optimization_level: int = 3  # TensorRT's default
    workspace_mib: int = 2048


@dataclass(frozen=True, slots=True)
class PlanKey:
    """Everything that a plan depends on."""

    graph_sha256: str  # of the graph's file and of its weights' file
    precision: str
    machine: Machine
    recipe: Recipe = field(default_factory=Recipe)

    def digest(self) -> str:
        """The name of the plan's files: 16 hex digits."""
        return _digest_of(self)


class PlanCheck(Measured):
    """What the run of a new plan on this GPU showed."""

    cuda_graph: bool = Field(description="whether the run was captured as a CUDA graph")
    gpu_ms: float = Field(description="time of one run on the GPU, ms")
    error: float | None = Field(
        description="largest error against ONNX Runtime, relative to the output's largest "
        "magnitude; null if not compared"
    )
    kept: dict[str, int] = Field(description="precision -> heavy layers that have it as asked")
    changed: tuple[str, ...] = Field(description="heavy layers that have another precision")
    unseen: int = Field(description="heavy layers that TensorRT's inspector does not show")


class PlanNote(Measured):
    """The JSON beside a plan."""

    key: PlanKey = Field(description="what the plan depends on")
    bytes: int = Field(description="size of the plan")
    sha256: str = Field(description="SHA-256 of the plan, hex")
    asked: dict[str, int] = Field(description="precision -> heavy layers that asked for it")
    check: PlanCheck = Field(description="what the check after the build found")


def machine_of(engine: str, tensorrt: str, gpu: Gpu) -> Machine:
    """The part of this machine that a plan depends on."""
    power_mode = POWER_MODE.read_text().strip() if POWER_MODE.is_file() else ""
    return Machine(engine, tensorrt, gpu.cuda, gpu.driver, gpu.name, gpu.sm, power_mode)


def graph_sha256(graph: GraphSpec) -> str:
    """SHA-256 of the graph's file, followed by that of its weights' file if it has one."""
    return graph.sha256 + (graph.data.sha256 if graph.data else "")


class PlanCache:
    """The plans in `folder`, by default in the user's cache."""

    def __init__(self, folder: Path | None = None) -> None:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        self.folder = folder or Path(home) / "v2a" / "plans"

    def find(self, key: PlanKey) -> PlanNote | None:
        """The note of the plan with exactly this key; None if it has to be built."""
        note = self.folder / f"{key.digest()}.json"
        return None if _whole(note) is None else _read_note(note)

    def newest(self, graph: GraphSpec, machine: Machine) -> bytes:
        """The newest plan of `graph` for `machine`, by any recipe.

        Raises EngineError if there is none; it says how a plan for another machine differs.
        """
        others = []
        self._refuse_writable()
        for note in sorted(self.folder.glob("*.json"), key=_built_ns, reverse=True):
            key = _read_note(note).key
            if (key.graph_sha256, key.precision) != (graph_sha256(graph), graph.precision):
                continue
            if key.machine != machine:
                others.append(key.machine)
            elif (plan := _whole(note)) is not None:
                return plan
        raise EngineError(
            f"graph {graph.name}: no plan for this machine{_differences(others, machine)}; "
            f"run: v2a build BUNDLE --engine {machine.engine}"
        )

    def _refuse_writable(self) -> None:
        """Raise EngineError if another user can put a plan and its note into the folder."""
        if not self.folder.exists():
            return
        found = self.folder.stat()
        if found.st_uid not in (os.geteuid(), 0) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise EngineError(
                f"{self.folder}: other users can write there, but TensorRT executes a plan as "
                "code; delete the folder and run `v2a build` again"
            )

    def store(
        self,
        key: PlanKey,
        plan: Any,
        asked: dict[str, int],
        check: Callable[[bytes], PlanCheck],
    ) -> PlanNote:
        """Keep `plan` (any buffer of bytes), and return its note.

        `check` gets the plan as read back from the disk. If it raises, nothing is kept.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self.folder / f"{key.digest()}.plan"
        with _draft(file) as draft:
            _write(draft, plan)
            written = draft.read_bytes()
            found = check(written)
        note = PlanNote(
            key=key, bytes=len(written), sha256=_digest(written), asked=asked, check=found
        )
        write_whole(file.with_suffix(".json"), note.model_dump_json(indent=1).encode())
        return note

    def timing_file(self, machine: Machine) -> Path:
        """The file of kernel timings; they make a second build faster."""
        return self.folder / f"{_digest_of(machine)}.timing"


def write_whole(file: Path, data: Any) -> None:
    """Write `file` completely or not at all, even if the power fails."""
    with _draft(file) as draft:
        _write(draft, data)


@contextmanager
def _draft(file: Path) -> Iterator[Path]:
    """Yield a temporary name beside `file`. It becomes `file` unless the block raises."""
    draft = file.with_suffix(f"{file.suffix}.part{os.getpid()}")
    try:
        yield draft
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def _write(file: Path, data: Any) -> None:
    with file.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _whole(note: Path) -> bytes | None:
    """The plan of a note, if both files are there and the plan is unchanged."""
    file = note.with_suffix(".plan")
    if not note.is_file() or not file.is_file():
        return None
    plan = file.read_bytes()
    return plan if _digest(plan) == _read_note(note).sha256 else None


def _read_note(file: Path) -> PlanNote:
    try:
        return PlanNote.model_validate_json(file.read_bytes())
    except ValidationError as error:
        fault = describe_fault(error.errors(include_url=False)[0], PlanNote)
        raise EngineError(
            f"{file}: is damaged ({fault}); delete it and run `v2a build` again"
        ) from None


def _digest(data: Any) -> str:
    return hashlib.sha256(data).hexdigest()


def _digest_of(record: Machine | PlanKey) -> str:
    return _digest(json.dumps(asdict(record), sort_keys=True).encode())[:16]


def _built_ns(file: Path) -> int:
    return file.stat().st_mtime_ns


def _differences(others: list[Machine], here: Machine) -> str:
    """How the newest plan for another machine differs, as ` (there is one for sm 87, here 89)`."""
    if not others:
        return ""
    parts = [
        f"{name} {old}, here {getattr(here, name)}"
        for name, old in asdict(others[0]).items()
        if old != getattr(here, name)
    ]
    return f" (there is one for {'; '.join(parts)})"
