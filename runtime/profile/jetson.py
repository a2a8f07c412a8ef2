"""Power, clocks and temperatures of a Jetson, and whether it was slowed down, from sysfs.

No root, no service. Where each number comes from:

    hwmon, name `ina3221`          in<n>_label, in<n>_input mV, curr<n>_input mA
                                   (kernel: Documentation/hwmon/ina3221.rst)
    hwmon, name `soctherm_oc`      oc<n>_event_cnt: under voltage (1), over-current, average (2) and
                                   instantaneous (3), since boot, each of which slows CPU and GPU
                                   (Jetson Linux Developer Guide, Jetson Orin, Over-Current Events)
    thermal/thermal_zone*          type, temp in 0.001 C; a zone that is switched off can't be read
    thermal/cooling_device*        type `cpu-throttle-alert` and the like, cur_state above 0: slowed
                                   (kernel: Documentation/driver-api/thermal/sysfs-api.rst)
    cpu/cpu*/cpufreq               scaling_cur_freq, kHz (kernel: admin-guide/pm/cpufreq.rst)
    devfreq/*gpu*                  cur_freq, Hz (kernel: ABI/testing/sysfs-class-devfreq)

Read in tests from a folder laid out like it. Never run on a Jetson.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from runtime.engines.plan_cache import POWER_MODE
from runtime.profile.machine import ROOT, text

_EVENTS: Final = {1: "under voltage", 2: "average over-current", 3: "instantaneous over-current"}

Reading = tuple[str, float]  # of what, how much


def is_jetson(root: Path = ROOT) -> bool:
    return "nvidia,tegra" in (text(root / "proc/device-tree/compatible") or "")


@dataclass(slots=True)
class Sampler:
    """Reads the board each time it is asked to, and sums up at the end."""

    root: Path = ROOT
    _seen: dict[str, dict[str, list[float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    _throttled: list[dict[str, Any]] = field(default_factory=list)
    _events: dict[str, float] = field(default_factory=dict)

    def sample(self, at_s: float) -> None:
        """One reading of everything, `at_s` into the run."""
        for quantity, read in _QUANTITIES.items():
            for what, value in read(self.root / "sys"):
                self._seen[quantity][what].append(value)
        slowed = [*self._new_events(), *_slowed_by(self.root / "sys")]
        if slowed:
            self._throttled.append({"at_s": round(at_s, 3), "by": slowed})

    def summary(self) -> dict[str, Any]:
        """Mean and largest of each quantity, and each moment at which the board was slowed down."""
        found: dict[str, Any] = {
            quantity: {
                what: {"mean": round(sum(values) / len(values), 3), "max": round(max(values), 3)}
                for what, values in seen.items()
            }
            for quantity, seen in self._seen.items()
        }
        mode = text(self.root / POWER_MODE.relative_to("/"))
        slowed = [f"{moment['at_s']:g} s: {', '.join(moment['by'])}" for moment in self._throttled]
        return {**found, "power_mode": mode, "throttled": slowed}

    def _new_events(self) -> list[str]:
        """Those whose count has grown since the last reading; the first one only takes note."""
        before, self._events = self._events, dict(_event_counts(self.root / "sys"))
        return [what for what, count in self._events.items() if count > before.get(what, count)]


def _power_w(sys: Path) -> Iterator[Reading]:
    for chip in _hwmon(sys, "ina3221"):
        for label in sorted(chip.glob("in*_label")):
            channel = label.name.removeprefix("in").removesuffix("_label")
            volts = _number(chip / f"in{channel}_input", 1e-3)
            amperes = _number(chip / f"curr{channel}_input", 1e-3)
            if volts is not None and amperes is not None:  # the sum of shunt voltages has none
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
    """Thermal alerts that are slowing something down now."""
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
    except ValueError:  # the kernel has nothing to say for what is switched off
        return None
