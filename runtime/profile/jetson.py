"""Reads a Jetson's power, clocks, temperatures and throttling from sysfs, without root.

The sources of the numbers:

    hwmon, name `ina3221`          in<n>_label, in<n>_input mV, curr<n>_input mA
                                   (kernel: Documentation/hwmon/ina3221.rst)
    hwmon, name `soctherm_oc`      oc<n>_event_cnt: under voltage (1), over-current, average (2) and
                                   instantaneous (3), since boot; each one slows CPU and GPU
                                   (Jetson Linux Developer Guide, Jetson Orin, Over-Current Events)
    thermal/thermal_zone*          type, temp in 0.001 C; reading fails in a zone that is off
    thermal/cooling_device*        type `cpu-throttle-alert` and the like, cur_state > 0: slowed
                                   (kernel: Documentation/driver-api/thermal/sysfs-api.rst)
    cpu/cpu*/cpufreq               scaling_cur_freq, kHz (kernel: admin-guide/pm/cpufreq.rst)
    devfreq/*gpu*                  cur_freq, Hz (kernel: ABI/testing/sysfs-class-devfreq)

The tests read a folder laid out like this sysfs. This code has never run on a Jetson.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from runtime.engines.plan_cache import POWER_MODE
from runtime.profile.machine import ROOT, text
from runtime.profile_model import Board, MeanMax

_EVENTS: Final = {1: "under voltage", 2: "average over-current", 3: "instantaneous over-current"}

Reading = tuple[str, float]  # name of the sensor, value


def is_jetson(root: Path = ROOT) -> bool:
    """Whether the device tree names an NVIDIA Tegra."""
    return "nvidia,tegra" in (text(root / "proc/device-tree/compatible") or "")


@dataclass(slots=True)
class JetsonSampler:
    """Reads the sensors at each `sample`, and sums up the readings."""

    root: Path = ROOT
    _seen: dict[str, dict[str, list[float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    _throttled: list[str] = field(default_factory=list)
    _events: dict[str, float] = field(default_factory=dict)

    def sample(self, at_s: float) -> None:
        """Read all sensors once, `at_s` seconds into the run."""
        for quantity, read in _QUANTITIES.items():
            for what, value in read(self.root / "sys"):
                self._seen[quantity][what].append(value)
        slowed = [*self._new_events(), *_slowed_by(self.root / "sys")]
        if slowed:
            self._throttled.append(f"{round(at_s, 3):g} s: {', '.join(slowed)}")

    def summary(self) -> Board:
        """Mean and maximum of each sensor, and each moment when the board slowed down."""
        return Board(
            power_w=self._mean_max("power_w"),
            temperature_c=self._mean_max("temperature_c"),
            clock_mhz=self._mean_max("clock_mhz"),
            power_mode=text(self.root / POWER_MODE.relative_to("/")),
            throttled=tuple(self._throttled),
        )

    def _mean_max(self, quantity: str) -> dict[str, MeanMax]:
        return {
            name: MeanMax(mean=round(sum(values) / len(values), 3), max=round(max(values), 3))
            for name, values in self._seen[quantity].items()
        }

    def _new_events(self) -> list[str]:
        """The events whose count has grown since the last reading; none at the first reading."""
        before, self._events = self._events, dict(_event_counts(self.root / "sys"))
        return [what for what, count in self._events.items() if count > before.get(what, count)]


def _power_w(sys: Path) -> Iterator[Reading]:
    for chip in _hwmon(sys, "ina3221"):
        for label in sorted(chip.glob("in*_label")):
            channel = label.name.removeprefix("in").removesuffix("_label")
            volts = _number(chip / f"in{channel}_input", 1e-3)
            amperes = _number(chip / f"curr{channel}_input", 1e-3)
            if (
                volts is not None and amperes is not None
            ):  # the sum of shunt voltages has no current
                yield text(label) or f"rail {channel}", volts * amperes


def _temperature_c(sys: Path) -> Iterator[Reading]:
    for zone in sorted(sys.glob("class/thermal/thermal_zone*")):
        degrees = _number(zone / "temp", 1e-3)
        if degrees is not None:
            yield text(zone / "type") or zone.name, degrees


def _clock_mhz(sys: Path) -> Iterator[Reading]:
    for core in sorted(sys.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")):
        if (mhz := _number(core, 1e-3)) is not None:
            yield core.parents[1].name, mhz
    for gpu in sorted(sys.glob("class/devfreq/*gpu*/cur_freq")):
        if (mhz := _number(gpu, 1e-6)) is not None:
            yield gpu.parent.name, mhz


_QUANTITIES: Final = {
    "power_w": _power_w,
    "temperature_c": _temperature_c,
    "clock_mhz": _clock_mhz,
}


def _event_counts(sys: Path) -> Iterator[Reading]:
    for chip in _hwmon(sys, "soctherm_oc"):
        for path in sorted(chip.glob("oc*_event_cnt")):
            number = int(re.sub(r"\D", "", path.name))
            if (count := _number(path)) is not None:
                yield _EVENTS.get(number, f"over-current {number}"), count


def _slowed_by(sys: Path) -> list[str]:
    """The thermal alerts that slow something down now."""
    return [
        kind
        for device in sorted(sys.glob("class/thermal/cooling_device*"))
        if "throttle" in (kind := text(device / "type") or "")
        and (_number(device / "cur_state") or 0) > 0
    ]


def _hwmon(sys: Path, name: str) -> list[Path]:
    chips = sorted(sys.glob("class/hwmon/hwmon*"))
    return [chip for chip in chips if text(chip / "name") == name]


def _number(path: Path, scale: float = 1.0) -> float | None:
    read = text(path)
    try:
        return None if read is None else float(read) * scale
    except ValueError:  # the file of a sensor that is off is empty
        return None
