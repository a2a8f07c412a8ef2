"""Checks what the servos report about themselves: voltage, temperature, current and alarms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import Field

from hw_drivers.bus.block import Reading
from hw_drivers.robot.robot import Health
from runtime.config.safety_yaml import HealthConfig
from v2a.measured import Measured, Number

Mask = npt.NDArray[np.bool_]

QUANTITIES: Final = ("voltage_v", "temperature_c", "current_a")  # the readings of a `Health`


_ALARM_MAX: Final = 60  # characters of an alarm that are sent


class Debounce:
    """Finds the joints that have been bad for `longest_s` without a break."""

    def __init__(self, joints: int, longest_s: float) -> None:
        self._longest_ns = round(longest_s * 1e9)
        self._since_ns: list[int | None] = [None] * joints

    def bad(self, now_ns: int, bad: Mask) -> list[int]:
        """Indices of the joints whose time is over. `bad` is bool [J]: which are bad now."""
        for joint, is_bad in enumerate(bad.tolist()):
            if not is_bad:
                self._since_ns[joint] = None
            elif self._since_ns[joint] is None:
                self._since_ns[joint] = now_ns
        return [
            joint
            for joint, since_ns in enumerate(self._since_ns)
            if since_ns is not None and now_ns - since_ns >= self._longest_ns
        ]


class HealthMonitor:
    """Says what is wrong with the servos. Not thread-safe; the control loop owns it."""

    def __init__(self, names: tuple[str, ...], config: HealthConfig) -> None:
        self._names = names
        current_a = _or(config.current_max_a, np.inf)
        # quantity of Health -> its unit and the bounds of its good range
        self._ranges = {
            "voltage_v": (
                "V",
                _or(config.voltage_min_v, -np.inf),
                _or(config.voltage_max_v, np.inf),
            ),
            "temperature_c": ("C", -np.inf, config.temperature_max_c),
            "current_a": ("A", -current_a, current_a),
        }
        self._over = {name: Debounce(len(names), config.longest_s) for name in self._ranges}

    def faults(self, health: Health) -> list[str]:
        """One line per fault.

        An alarm is a fault at once, a reading out of range when it lasts. Missing readings are
        ignored. A reading that is marked valid but is NaN is a fault.
        """
        alarms = zip(self._names, health.alarms, strict=False)
        return [f"{name}: {alarm}" for name, alarm in alarms if alarm] + [*self._out(health)]

    def _out(self, health: Health) -> Iterator[str]:
        for quantity, (unit, low, high) in self._ranges.items():
            reading: Reading | None = getattr(health, quantity)
            if reading is None:
                continue
            good = (reading.value >= low) & (reading.value <= high)
            for joint in self._over[quantity].bad(health.t_ns, reading.valid & ~good):
                yield (
                    f"{self._names[joint]}: {reading.value[joint]:.1f} {unit}, "
                    f"allowed {low:g}..{high:g}"
                )


def _or(bound: float | None, without: float) -> float:
    return without if bound is None else bound


Column = tuple[tuple[Number, ...], tuple[int, ...]]
"""A reading by joint: the values, then the age of each in ns. NaN marks a missing value."""


class HealthRow(Measured):
    """A `Health` as JSON. A quantity that the servos do not report is null."""

    t_ns: int = Field(description="time of the health check on the monotonic clock, ns")
    alarms: tuple[str, ...] = Field(description="joint by joint, what its servo reports; '' if ok")
    voltage_v: Column | None = Field(description="supply voltage at the servo, V")
    temperature_c: Column | None = Field(description="temperature of the servo, degrees C")
    current_a: Column | None = Field(description="current through the servo, A")

    @classmethod
    def of(cls, health: Health) -> HealthRow:
        """`health` as a row."""
        readings = {name: _column(getattr(health, name)) for name in QUANTITIES}
        alarms = tuple(alarm[:_ALARM_MAX] for alarm in health.alarms)
        return cls(t_ns=health.t_ns, alarms=alarms, **readings)

    def health(self) -> Health:
        """The `Health` again."""
        readings = {name: _reading(getattr(self, name)) for name in QUANTITIES}
        return Health(self.t_ns, alarms=self.alarms, **readings)


def _column(reading: Reading | None) -> Column | None:
    if reading is None:
        return None
    return tuple(reading.value.tolist()), tuple(reading.age_ns.tolist())


def _reading(column: Column | None) -> Reading | None:
    if column is None:
        return None
    known = np.array(column[0], np.float64)
    return Reading(known, ~np.isnan(known), np.array(column[1], np.int64))
