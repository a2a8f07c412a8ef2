"""Checks the servos' own reports: voltage, temperature, current and alarms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hw_drivers.bus.block import Reading
from hw_drivers.robot.robot import Health
from runtime.config.safety_yaml import HealthConfig

Mask = npt.NDArray[np.bool_]

QUANTITIES: Final = ("voltage_v", "temperature_c", "current_a")  # the readings of a `Health`


class Debounce:
    """Finds joints that have been bad for `longest_s` without a break."""

    def __init__(self, joints: int, longest_s: float) -> None:
        self._longest_ns = round(longest_s * 1e9)
        self._since_ns: list[int | None] = [None] * joints

    def bad(self, now_ns: int, bad: Mask) -> list[int]:
        """Return the indices of joints that are bad for too long; `bad` is their state now, [J]."""
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
    """Finds servo faults. Not thread-safe: only the control loop calls it."""

    def __init__(self, names: tuple[str, ...], config: HealthConfig) -> None:
        self._names = names
        current_a = config.current_max_a or np.inf
        # quantity of Health -> unit, lowest and highest good value
        self._ranges = {
            "voltage_v": ("V", config.voltage_min_v or -np.inf, config.voltage_max_v or np.inf),
            "temperature_c": ("C", -np.inf, config.temperature_max_c),
            "current_a": ("A", -current_a, current_a),
        }
        self._over = {name: Debounce(len(names), config.longest_s) for name in self._ranges}

    def faults(self, health: Health) -> list[str]:
        """Return one line per fault.

        An alarm is a fault at once. A value out of range is a fault after `longest_s`. Missing
        readings are ignored. A reading that is marked valid but is NaN is a fault.
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


def health_to(health: Health | None) -> dict[str, Any] | None:
    """Convert to JSON types; `health_from` is the inverse."""
    if health is None:
        return None
    readings = {name: getattr(health, name) for name in QUANTITIES}
    return {"t_ns": health.t_ns, "alarms": health.alarms} | {
        name: None if found is None else [found.value.tolist(), found.age_ns.tolist()]
        for name, found in readings.items()
    }


def health_from(told: dict[str, Any] | None) -> Health | None:
    """Restore the result of `health_to`."""
    if told is None:
        return None
    readings = {name: None if told[name] is None else _reading(*told[name]) for name in QUANTITIES}
    return Health(told["t_ns"], alarms=tuple(told["alarms"]), **readings)


def _reading(value: list[float], age_ns: list[int]) -> Reading:
    known = np.array(value, np.float64)
    return Reading(known, ~np.isnan(known), np.array(age_ns, np.int64))
