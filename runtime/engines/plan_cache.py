"""Caches built plans on disk, under a key of everything that they depend on.

`~/.cache/v2a/plans` (or below `XDG_CACHE_HOME`) holds per plan:
DIGEST.plan     the plan that TensorRT built
DIGEST.json     its key, its SHA-256 and the findings of the check; written last
DIGEST.timing   TensorRT's kernel timings on one machine

TensorRT executes a plan as code, so only its user may access the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from runtime.engines.cuda import Gpu
from v2a.bundle import GraphSpec
from v2a.errors import EngineError

# `nvpmodel` writes "pmode:0002 fmode:fanNull" here on a Jetson. The power mode sets the clocks, and
# TensorRT chooses kernels by their times.
POWER_MODE = Path("/var/lib/nvpmodel/status")


@dataclass(frozen=True, slots=True)
class Machine:
    """The hardware and software that a plan depends on. `sm` and `cuda` are as in `Gpu`."""

    engine: str
    tensorrt: str
    cuda: int
    driver: str
    gpu: str
    sm: int
    power_mode: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """The build settings of a plan. The precision is the graph's: networks are strongly typed."""

    optimization_level: int = 3  # TensorRT's default
    workspace_mib: int = 2048


@dataclass(frozen=True, slots=True)
class PlanKey:
    """Everything that a plan depends on."""

    graph_sha256: str  # of the graph and of the weights beside it
    precision: str
    machine: Machine
    recipe: Recipe = field(default_factory=Recipe)

    def digest(self) -> str:
        return _digest_of(self)


def machine_of(engine: str, tensorrt: str, gpu: Gpu) -> Machine:
    """Describe this machine as plans depend on it."""
    power_mode = POWER_MODE.read_text().strip() if POWER_MODE.is_file() else ""
    return Machine(engine, tensorrt, gpu.cuda, gpu.driver, gpu.name, gpu.sm, power_mode)


def graph_sha256(graph: GraphSpec) -> str:
    """Return the SHA-256 of the graph's file, followed by its weights file's if it has one."""
    return graph.sha256 + (graph.data.sha256 if graph.data else "")


class PlanCache:
    """The plans in `folder`, by default in the user's cache."""

    def __init__(self, folder: Path | None = None) -> None:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        self.folder = folder or Path(home) / "v2a" / "plans"

    def find(self, key: PlanKey) -> dict[str, Any] | None:
        """Return the note of the plan with exactly this key, or None if it must be built."""
        note = self.folder / f"{key.digest()}.json"
        return None if _whole(note) is None else _read_note(note)

    def newest(self, graph: GraphSpec, machine: Machine) -> bytes:
        """Return the newest plan of `graph` for `machine`, built by any recipe.

        Raises EngineError if there is none. If one exists for another machine, the message says
        what differs.
        """
        here = asdict(machine)
        others = []
        for note in sorted(self.folder.glob("*.json"), key=_built_ns, reverse=True):
            key = _read_note(note)["key"]
            if (key["graph_sha256"], key["precision"]) != (graph_sha256(graph), graph.precision):
                continue
            if key["machine"] != here:
                others.append(key["machine"])
            elif (plan := _whole(note)) is not None:
                return plan
        raise EngineError(
            f"graph {graph.name}: no plan for this machine{_differences(others, here)}; "
            f"run: v2a build BUNDLE --engine {machine.engine}"
        )

    def store(
        self, key: PlanKey, plan: Any, check: Callable[[bytes], dict[str, Any]]
    ) -> dict[str, Any]:
        """Write `plan`, a buffer of bytes, and keep it unless `check` raises.

        `check` gets the bytes as read back from disk. Returns the note that is written beside the
        plan: its key, size, SHA-256 and the result of `check`.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self.folder / f"{key.digest()}.plan"
        with _draft(file) as draft:
            _write(draft, plan)
            written = draft.read_bytes()
            found = check(written)
        note = {"key": asdict(key), "bytes": len(written), "sha256": _digest(written), **found}
        write_whole(file.with_suffix(".json"), json.dumps(note, indent=1).encode())
        return note

    def timing_file(self, machine: Machine) -> Path:
        """Return the file of kernel timings, which shorten the next build."""
        return self.folder / f"{_digest_of(machine)}.timing"


def write_whole(file: Path, data: Any) -> None:
    """Write `file` atomically, even if the power fails."""
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
    """Return the plan of a note, or None if either file is missing or the plan is damaged."""
    file = note.with_suffix(".plan")
    if not note.is_file() or not file.is_file():
        return None
    plan = file.read_bytes()
    return plan if _digest(plan) == _read_note(note)["sha256"] else None


def _read_note(file: Path) -> dict[str, Any]:
    try:
        note: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as fault:
        raise EngineError(
            f"{file}: is damaged ({fault}); delete it and run `v2a build` again"
        ) from None
    return note


def _digest(data: Any) -> str:
    return hashlib.sha256(data).hexdigest()


def _digest_of(record: Machine | PlanKey) -> str:
    return _digest(json.dumps(asdict(record), sort_keys=True).encode())[:16]


def _built_ns(file: Path) -> int:
    return file.stat().st_mtime_ns


def _differences(others: list[dict[str, Any]], here: dict[str, Any]) -> str:
    """Describe how another machine's plan differs, as ` (there is one for sm 87, here 89)`."""
    if not others:
        return ""
    parts = [
        f"{name} {old}, here {here[name]}" for name, old in others[0].items() if old != here[name]
    ]
    return f" (there is one for {'; '.join(parts)})"
