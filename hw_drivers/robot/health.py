"""Voltage, temperature, current and alarms of a robot's servos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def newest_health(
    last: BlockReading,
    whole: BlockReading,
    alarms: tuple[str, ...],
    joint_of_shadow: Sequence[int] = (),
) -> Health:
    """Take each quantity from the `last` reading if it is there, else from the `whole` one.

    Where a joint has a shadow, whichever servo of the two is worse speaks for the joint.
    `joint_of_shadow` are the joints of the last rows.
    """
    readings = {
        quantity: with_shadows(
            (last if name in last.block else whole).reading(name, last.t_ns),
            joint_of_shadow,
            _WORSE[quantity],
        )
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


# quantity -> whether a shadow's value is worse than that of its joint's servo
_WORSE: dict[str, Callable[[float, float], bool]] = {
    "voltage_v": lambda shadow, main: shadow < main,
    "temperature_c": lambda shadow, main: shadow > main,
    "current_a": lambda shadow, main: abs(shadow) > abs(main),
}


def with_shadows(
    found: Reading, joint_of_shadow: Sequence[int], worse: Callable[[float, float], bool]
) -> Reading:
    """Fold the rows of the shadows, which come last, into those of their joints."""
    joints = len(found.value) - len(joint_of_shadow)
    if not joint_of_shadow:
        return found
    value, valid, age_ns = found.value.copy(), found.valid.copy(), found.age_ns.copy()
    for shadow, joint in enumerate(joint_of_shadow, start=joints):
        if valid[shadow] and not (valid[joint] and not worse(value[shadow], value[joint])):
            value[joint], valid[joint] = value[shadow], True
            age_ns[joint] = age_ns[shadow]
    return Reading(value[:joints], valid[:joints], age_ns[:joints])


def alarm_message(config: RobotConfig, alarms: Sequence[str], ids: Sequence[int]) -> str:
    """One line that names each joint with an alarm, and says what to do about it.

    `alarms` are the texts of the joints, empty without an alarm, and `ids` the servos with one.
    """
    bus = config.bus
    named = []
    for joint, words in zip(config.joints, alarms, strict=True):
        if words:
            mine = [servo.id for servo in joint.servos if servo.id in ids]
            reboot = reboot_line(bus.port, bus.protocol, bus.baud, *mine)
            named.append(f"{joint.name} (id {joint.id}): {words}; {advice(words, f'run {reboot}')}")
    return f"hardware error: {'; '.join(named)}"
