"""What to do about a servo's alarms, in words that name the command."""

from __future__ import annotations

from typing import Final, NamedTuple

from hw_drivers.bus.bus import ServoBus
from hw_drivers.family import Family
from v2a.errors import BusError, PortError

_VOLTAGE: Final = "input voltage"
# An alarm as a family's `describe_alarms` calls it -> how to remove its cause.
CAUSES: Final = {
    _VOLTAGE: "measure the supply at the servo's plug",
    "overheating": "let it cool, with less load or more air",
    "overload": "free the joint, or lighten its load",
    "overcurrent": "free the joint, or lighten its load",
    "electrical shock": "check its wires for a short, and the supply for enough current",
    "encoder": "replace the servo if a restart does not help",
    "position sensor": "replace the servo if a restart does not help",
}
_VOLTAGE_REGISTERS: Final = ("present_input_voltage", "min_voltage_limit", "max_voltage_limit")


class Volts(NamedTuple):
    """A servo's measured voltage, and the limits that it has set for itself, in V."""

    now_v: float
    low_v: float
    high_v: float

    @property
    def fault(self) -> str:
        """What is wrong with the voltage; '' if it is within the limits."""
        if self.low_v <= self.now_v <= self.high_v:
            return ""
        return f"{self.now_v:.1f} V, allowed are {self.low_v:.1f} to {self.high_v:.1f}"

    @property
    def advice(self) -> str:
        """How to bring the voltage within the limits; '' if it is within them."""
        allowed = f"{self.low_v:.1f} to {self.high_v:.1f} V"
        if self.now_v > self.high_v:
            return (
                f"{self.now_v:.1f} V is above the servo's limit: unplug the motors' supply, and "
                f"use one of {allowed}; if the servo's label allows more, raise its "
                "max_voltage_limit with the vendor's tool"
            )
        if self.now_v < self.low_v:
            return (
                f"{self.now_v:.1f} V is below the servo's limit: use a supply of {allowed} that "
                "gives enough current, charge the battery, or use shorter and thicker power wires"
            )
        return ""


def advice(alarms: str, then: str, volts: Volts | None = None) -> str:
    """What removes the alarms that the text `alarms` names, and what to do then."""
    measured = {_VOLTAGE: volts.advice} if volts and volts.advice else {}
    known = CAUSES | measured
    found = [cause for alarm, cause in known.items() if alarm in alarms] or ["remove its cause"]
    return f"{'; '.join(dict.fromkeys(found))}; then {then}"


def read_volts(bus: ServoBus, servo_id: int) -> Volts | None:
    """Read the servo's voltage and its limits. None if it has no such register, or stays silent.

    Raises PortError when the port is gone.
    """
    items = bus.models[servo_id].items
    if any(name not in items for name in _VOLTAGE_REGISTERS):
        return None
    try:
        return Volts(*(bus.read(servo_id, n) * items[n].scale for n in _VOLTAGE_REGISTERS))
    except PortError:
        raise
    except BusError:
        return None


def describe(bus: ServoBus, family: Family, servo_id: int, status: int, reboot: str) -> str:
    """The servo's alarms `status` in words, with what to do about them. `reboot` is a command."""
    alarms = family.describe_alarms(status)
    return f"hardware error: {alarms}; {advice(alarms, f'run {reboot}', read_volts(bus, servo_id))}"
