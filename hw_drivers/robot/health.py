"""Voltage, temperature, current and alarms of a robot's servos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hw_drivers.bus.block import BlockReading, Reading
from hw_drivers.robot.alarm_advice import advice
from hw_drivers.robot.command_lines import reboot_line
from hw_drivers.robot.config import RobotConfig

HEALTH_REGISTERS = {
    "voltage_v": "present_input_voltage",
    "temperature_c": "present_temperature",
    "current_a": "present_current",
}


@dataclass(frozen=True, slots=True)
class Health:
    """The newest measurements of the servos, as of `t_ns`.

    A quantity that no servo measures is None. `alarms` has one text for each servo, empty without
    an alarm.
    """

    t_ns: int
    voltage_v: Reading | None
    temperature_c: Reading | None
    current_a: Reading | None
    alarms: tuple[str, ...]


def newest_health(last: BlockReading, whole: BlockReading, alarms: tuple[str, ...]) -> Health:
    """Take each quantity from the `last` reading if it is there, else from the `whole` one."""
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


def alarm_message(config: RobotConfig, alarms: Sequence[str]) -> str:
    """One line that names each joint with an alarm, and says what to do about it."""
    bus = config.bus
    named = [
        f"{joint.name} (id {joint.id}): {words}; "
        f"{advice(words, f'run {reboot_line(bus.port, bus.protocol, bus.baud, joint.id)}')}"
        for joint, words in zip(config.joints, alarms, strict=True)
        if words
    ]
    return f"hardware error: {'; '.join(named)}"
