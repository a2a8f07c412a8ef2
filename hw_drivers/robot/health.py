"""What a robot's servos say of themselves, out of what comes along with their positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hw_drivers.bus.block import BlockReading, Reading
from hw_drivers.robot.config import JointConfig

HEALTH_REGISTERS = {
    "voltage_v": "present_input_voltage",
    "temperature_c": "present_temperature",
    "current_a": "present_current",
}


@dataclass(frozen=True, slots=True)
class Health:
    """What the servos last said of themselves, as of `t_ns`; None for what none of them measures.
    `alarms` has each servo's own words, empty where there is none."""

    t_ns: int
    voltage_v: Reading | None
    temperature_c: Reading | None
    current_a: Reading | None
    alarms: tuple[str, ...]


def newest_health(last: BlockReading, whole: BlockReading, alarms: tuple[str, ...]) -> Health:
    """Each quantity from the `last` reading where that has it, else from the last `whole` one."""
    readings = {
        quantity: (last if name in last.block else whole).reading(name, last.t_ns)
        for quantity, name in HEALTH_REGISTERS.items()
        if name in whole.block
    }
    return Health(
        last.t_ns,
        readings.get("voltage_v"),
        readings.get("temperature_c"),
        readings.get("current_a"),
        alarms,
    )


def alarm_message(joints: Sequence[JointConfig], alarms: Sequence[str]) -> str:
    """One line that names each joint with an alarm, and what to do."""
    named = [
        f"{joint.name} (id {joint.id}): {words}"
        for joint, words in zip(joints, alarms, strict=True)
        if words
    ]
    return f"hardware error: {'; '.join(named)}; remove the cause, then reboot the servo"
