"""The range in which the value of a configuration key makes sense, and the reason for it.

A field carries its `Bounds` in its annotation: `Annotated[float, within(0.1, 60, "...")]`. The
documentation's table and the report of loose limits are made from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ValidationInfo

RECORDED: Final = {"recorded": True}
"""Validation context for the configuration of a run that is over: no bound can change it."""

Loose = Literal["above", "below"]


@dataclass(frozen=True, slots=True)
class Bounds:
    """The lowest and highest value, and why. `loose`: on which side of its default it is looser."""

    low: float
    high: float
    reason: str
    loose: Loose | None

    def __call__(self, value: float | None, info: ValidationInfo) -> float | None:
        """Return `value`. Raises ValueError if it is out of bounds."""
        if value is None or is_recorded(info):
            return value
        if self.low <= value <= self.high:
            return value or type(value)()  # -0.0 becomes 0.0
        raise ValueError(f"must be {self.low:g} to {self.high:g}: {self.reason}")

    def is_looser(self, value: float, default: float) -> bool:
        """Whether `value` allows more than `default`."""
        return value > default if self.loose == "above" else value < default and bool(self.loose)


class BoundedKey(NamedTuple):
    """A key with bounds, its value in a configuration, and its default; None for no default."""

    key: str
    bounds: Bounds
    value: Any
    default: Any


def within(low: float, high: float, reason: str, loose: Loose | None = "above") -> AfterValidator:
    """Return the annotation of a field whose value must be `low` to `high`."""
    return AfterValidator(Bounds(low, high, reason, loose))


def is_recorded(info: ValidationInfo) -> bool:
    """Whether the configuration comes from a recording."""
    return bool((info.context or {}).get("recorded"))


def bounded_keys(config: BaseModel, path: str = "") -> Iterator[BoundedKey]:
    """Yield every key of `config` that has bounds, in the order of the models."""
    for name, field in type(config).model_fields.items():
        value, key = getattr(config, name), f"{path}{name}"
        for note in field.metadata:
            if isinstance(note, AfterValidator) and isinstance(note.func, Bounds):
                default = None if field.is_required() else field.default
                yield BoundedKey(key, note.func, value, default)
        for place, part in _models(value):
            yield from bounded_keys(part, f"{key}{place}.")


def looser_than_default(config: BaseModel) -> list[str]:
    """Return a sentence for each limit of `config` that allows more than its default."""
    return [
        f"{key} is {value:g}, looser than the default {default:g}"
        for key, bounds, value, default in bounded_keys(config)
        if value is not None and default is not None and bounds.is_looser(value, default)
    ]


def _models(value: Any) -> Iterator[tuple[str, BaseModel]]:
    if isinstance(value, BaseModel):
        yield "", value
    elif isinstance(value, tuple):
        for index, part in enumerate(value):
            if isinstance(part, BaseModel):
                yield f".{index}", part
