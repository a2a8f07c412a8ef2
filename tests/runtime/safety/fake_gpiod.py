"""A stand-in for the package gpiod 2 with one chip in memory. No test machine has GPIO lines.

It has the part of the interface that `runtime.safety.estop` uses. `test_estop.py` compares its
signatures with those of the real package.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from enum import Enum
from types import ModuleType

CHIP = "/dev/gpiochip7"
LINES = 4


class Value(Enum):
    """The two states of a line. Any other object stands for neither."""

    INACTIVE = 0
    ACTIVE = 1


class Direction(Enum):
    AS_IS = 1
    INPUT = 2
    OUTPUT = 3


class Bias(Enum):
    AS_IS = 1
    UNKNOWN = 2
    DISABLED = 3
    PULL_UP = 4
    PULL_DOWN = 5


@dataclass(repr=False)
class LineSettings:
    direction: Direction = Direction.AS_IS
    bias: Bias = Bias.AS_IS


class LineRequest:
    """The lines that one program holds."""

    def __init__(self, chip: Chip, offset: int) -> None:
        self._chip = chip
        self._offset = offset

    def get_value(self, line: int | str) -> Value:
        if self._chip.unplugged:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        assert line == self._offset
        pulled_up = self._chip.settings[self._offset].bias is Bias.PULL_UP
        if self._offset in self._chip.grounded:
            return Value.INACTIVE
        return Value.ACTIVE if pulled_up else Value.INACTIVE  # a floating line may read anything

    def release(self) -> None:
        del self._chip.settings[self._offset]


@dataclass
class Chip:
    """What is wired to the lines, and who holds them."""

    grounded: set[int] = field(default_factory=set)
    settings: dict[int, LineSettings] = field(default_factory=dict)
    unplugged: bool = False
    consumer: str | None = None

    def request_lines(
        self,
        path: str,
        config: dict[int, LineSettings],
        consumer: str | None = None,
        event_buffer_size: int | None = None,
        output_values: dict[int | str, Value] | None = None,
    ) -> LineRequest:
        if path != CHIP:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        ((offset, settings),) = config.items()
        if offset >= LINES:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if offset in self.settings:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        self.settings[offset], self.consumer = settings, consumer
        return LineRequest(self, offset)


def modules(chip: Chip) -> dict[str, ModuleType]:
    """The modules of the fake package, by the names to import them by."""
    package, line = ModuleType("gpiod"), ModuleType("gpiod.line")
    for item in (Value, Direction, Bias):
        setattr(line, item.__name__, item)
    for name, found in (
        ("line", line),
        ("LineSettings", LineSettings),
        ("LineRequest", LineRequest),
        ("request_lines", chip.request_lines),
    ):
        setattr(package, name, found)
    return {"gpiod": package, "gpiod.line": line}
