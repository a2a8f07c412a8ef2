"""Writes the tables of docs/reference/ from the models of the JSON that the commands write:

    python -m tools.reference

The text above the marker line of a page is written by hand. A test checks that the rest matches the
models.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, get_args

from runtime.profile.compare import ProfileComparison
from runtime.profile.paired import EngineComparison
from runtime.profile.sweep import Sweep
from runtime.profile_model import Profile
from runtime.recording.header import Header
from runtime.recording.info import RecordingInfo
from runtime.replay.result import ReplayResult
from runtime.robot_file.check import RobotCheck
from runtime.summary_model import RunSummary
from runtime.web.live_status import LiveStatus
from tools.servo_tables import servo_tables
from v2a.measured import Measured

Model = type[Measured]

FOLDER: Final = Path(__file__).parents[1] / "docs" / "reference"
PAGES: Final[dict[str, tuple[Model, ...]]] = {
    "profile.md": (Profile, ProfileComparison, EngineComparison, Sweep, ReplayResult),
    "summary.md": (RunSummary, LiveStatus, Header, RecordingInfo, RobotCheck),
}
SERVOS: Final = FOLDER / "servos.md"
SERVOS_MARKER: Final = (
    "<!-- From here on made by `python -m tools.reference`: change the register tables. -->\n"
)
MARKER: Final = "<!-- From here on made by `python -m tools.reference`: change the models. -->\n"
UNITS: Final = {  # end of a key -> unit
    **{"ms": "ms", "s": "s", "seconds": "s", "ns": "ns", "rad": "rad"},
    **{"mib": "MiB", "gib": "GiB", "w": "W", "c": "°C", "mhz": "MHz", "hz": "Hz"},
}


def main() -> None:
    """Rewrite the tables of every page."""
    for name, models in PAGES.items():
        path = FOLDER / name
        by_hand, _, _ = path.read_text(encoding="utf-8").partition(MARKER)
        path.write_text(by_hand + MARKER + tables(models), encoding="utf-8")
    by_hand, _, _ = SERVOS.read_text(encoding="utf-8").partition(SERVOS_MARKER)
    SERVOS.write_text(by_hand + SERVOS_MARKER + servo_tables(), encoding="utf-8")


def tables(models: tuple[Model, ...]) -> str:
    """Write a section for each model, and one for each model that it holds, without repetition."""
    done: set[Model] = set()
    sections = []
    for root in models:
        for model in models_of(root):
            if model not in done:
                done.add(model)
                sections.append(_section(model, "##" if model in models else "###"))
    return "".join(sections)


def models_of(model: Model) -> Iterator[Model]:
    """Yield the model, its base, and the models of its fields, in the order of the fields."""
    yield model
    if (base := _base(model)) is not None:
        yield from models_of(base)
    for field in model.model_fields.values():
        for part in _models_in(field.annotation):
            yield from models_of(part)


def _base(model: Model) -> Model | None:
    """The base class, if it has keys of its own."""
    base = model.__base__
    has_keys = base is not None and issubclass(base, Measured) and base.model_fields
    return base if has_keys else None


def _models_in(annotation: Any) -> Iterator[Model]:
    if isinstance(annotation, type) and issubclass(annotation, Measured):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def _section(model: Model, level: str) -> str:
    base = _base(model)
    inherited = base.model_fields if base else {}
    rows = "".join(
        _row(key, field.description or "", list(_models_in(field.annotation)))
        for key, field in model.model_fields.items()
        if key not in inherited
    )
    above = f" It has all keys of {_link(base)}, and these:" if base else ""
    text = " ".join((inspect.getdoc(model) or "").split())
    head = "| key | meaning | unit |\n|---|---|---|\n"
    return f"\n{level} {model.__name__}\n\n{text}{above}\n\n{head}{rows}"


def _row(key: str, meaning: str, parts: list[Model]) -> str:
    text, _, last = meaning.rpartition(", ")
    unit = UNITS.get(key.rpartition("_")[2], "")
    if last in UNITS.values():
        meaning, unit = text, last
    links = ", ".join(map(_link, parts))
    shown = f"{meaning} ({links})" if links else meaning
    return f"| `{key}` | {shown} | {unit} |\n".replace("|  |", "| |")


def _link(model: Model) -> str:
    return f"[{model.__name__}](#{model.__name__.lower()})"


if __name__ == "__main__":
    main()
