"""The checks of `v2a motors doctor`: pure functions from what was read to findings.

A value that was not read is never shown, and never taken for a good one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from hw_drivers.family import Family
from hw_drivers.motors.find import Look, Servo
from hw_drivers.motors.settings import wanted_settings
from hw_drivers.robot.alarm_advice import Volts, advice
from hw_drivers.robot.command_lines import reboot_line, setup_line

Registers = Mapping[str, int]  # register -> raw value

_STATE_REGISTERS: Final = (
    "hardware_error_status",
    "present_input_voltage",
    "min_voltage_limit",
    "max_voltage_limit",
    "present_temperature",
    "temperature_limit",
)

_LATENCY_RULE: Final = (
    'ACTION=="add", SUBSYSTEM=="usb-serial", DRIVER=="ftdi_sio", ATTR{latency_timer}="1"'
)
_NAME_RULE: Final = 'SUBSYSTEM=="tty", {adapter}, SYMLINK+="arm"'
_PSEUDO_TERMINALS: Final = "/dev/pts/"  # where the port of `v2a motors simulate` leads
_RULES_FILE: Final = "/etc/udev/rules.d/99-v2a.rules"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `ok` is None if something was not read, and nothing was found wrong.

    `fix` says what to do, and is empty unless `ok` is False.
    """

    check: str
    ok: bool | None
    found: str
    fix: str = ""


class Adapter(NamedTuple):
    """What a USB adapter says about itself. `serial` is empty if it has no serial number."""

    vendor: str  # four hex digits, as udev writes them
    product: str
    serial: str
    plug: str  # the USB socket, such as 1-2.3

    @property
    def rule(self) -> str:
        """The part of a udev rule that finds it: by its socket if it has no serial number."""
        ids = f'ATTRS{{idVendor}}=="{self.vendor}", ATTRS{{idProduct}}=="{self.product}"'
        if self.serial:
            return f'{ids}, ATTRS{{serial}}=="{self.serial}"'
        return f'{ids}, KERNELS=="{self.plug}"'


def registers_to_read(family: Family) -> list[str]:
    """The registers that the checks use. A model may lack some."""
    watchdog = [family.watchdog.register] if family.watchdog else []
    settings = (setting.register for setting in family.settings)
    return [*dict.fromkeys((*settings, *watchdog, *_STATE_REGISTERS))]


def check_name(path: str, stable: str | None, adapter: Adapter | None = None) -> Finding:
    """Check that the port keeps its name after a replug. `stable`: its /dev/serial/by-id name."""
    check = "port name"
    if stable == path:
        return Finding(check, True, "stays the same after a replug")
    if stable is not None:
        return Finding(check, False, "may change at the next replug", f"use port: {stable}")
    if adapter is None and os.path.realpath(path).startswith(_PSEUDO_TERMINALS):
        return Finding(check, True, "a virtual port: its name lasts as long as its program")
    if adapter is None:
        return Finding(check, True, "no USB adapter: its name does not change")
    rule = _NAME_RULE.format(adapter=adapter.rule)
    return Finding(
        check,
        False,
        "may change at the next replug, and the adapter has no name in /dev/serial/by-id",
        f"echo '{rule}' | sudo tee -a {_RULES_FILE} && sudo udevadm control --reload; then replug "
        "it and use port: /dev/arm",
    )


def check_latency_timer(milliseconds: int | None) -> Finding:
    """Check the latency timer that the adapter reports, after it was set to 1 ms."""
    check = "latency timer"
    if milliseconds is None:
        return Finding(check, True, "the system shows none; the timing below tells if there is one")
    if milliseconds <= 1:
        return Finding(check, True, f"{milliseconds} ms")
    return Finding(
        check,
        False,
        f"{milliseconds} ms: each reading may take that long",
        f"echo '{_LATENCY_RULE}' | sudo tee -a {_RULES_FILE} && sudo udevadm control --reload; "
        "then replug the adapter",
    )


class _ServoCheck(NamedTuple):
    """One check of every servo. `needs` are the registers that it looks at, of those that the
    servo's model has. `well` describes servos that pass."""

    name: str
    needs: Callable[[Family], Sequence[str]]
    wrong: Callable[[Servo, Registers], str]  # says what is wrong; '' if nothing is
    well: Callable[[Sequence[tuple[Servo, Registers]]], str]
    fix: Callable[[Servo, Registers], str]


def _model(servo: Servo, _: Registers) -> str:
    known = ", ".join(servo.place.family.models)
    return "" if servo.model else f"{servo.model_name} is not known; known are {known}"


def _return_delay(servo: Servo, found: Registers) -> str:
    delay_us = _si(servo, found, "return_delay_time") * 1e6
    return f"{delay_us:.0f} us before each answer" if delay_us > 0 else ""


def _settings(servo: Servo, found: Registers) -> str:
    if servo.model is None:
        return ""
    wanted = wanted_settings(servo.place.family, servo.model, found, servo.role)
    return ", ".join(
        f"{name} {found[name]}, expected {raw}"
        for name, raw in wanted.items()
        if found[name] != raw and name != "return_delay_time"  # which has a check of its own
    )


def _hardware_error(servo: Servo, found: Registers) -> str:
    return servo.place.family.describe_alarms(found.get("hardware_error_status", 0))


def _watchdog(servo: Servo, found: Registers) -> str:
    watchdog = servo.place.family.watchdog
    tripped = watchdog is not None and found.get(watchdog.register) == watchdog.tripped
    return "tripped: goals are ignored" if tripped else ""


def _firmware(servo: Servo, _: Registers) -> str:
    watchdog = servo.place.family.watchdog
    lacks = watchdog and servo.model and watchdog.register not in servo.model.items
    return f"{servo.pong.firmware} has no bus watchdog" if lacks else ""


def _voltage(servo: Servo, found: Registers) -> str:
    volts = _volts(servo, found)
    return volts.fault if volts else ""


def _temperature(_: Servo, found: Registers) -> str:
    raw, limit = found.get("present_temperature"), found.get("temperature_limit")
    hot = raw is not None and limit is not None and raw >= limit - _WARM_BELOW_LIMIT_C
    return f"{raw} C, it stops at {limit} C" if hot else ""


def _si(servo: Servo, found: Registers, name: str) -> float:
    """The register's value in SI units; NaN if it was not read."""
    if servo.model is None or name not in found:
        return math.nan
    return found[name] * servo.model.items[name].scale


def _volts(servo: Servo, found: Registers) -> Volts | None:
    """The voltage and its limits; None if one of them was not read."""
    volts = Volts(*(_si(servo, found, name) for name in _VOLTAGE_REGISTERS))
    return None if any(map(math.isnan, volts)) else volts


def _restart(servo: Servo, found: Registers) -> str:
    place = servo.place
    reboot = reboot_line(place.port, place.protocol, place.baud, servo.id)
    return advice(_hardware_error(servo, found), f"run {reboot}", _volts(servo, found))


def _versions(found: Sequence[tuple[Servo, Registers]]) -> str:
    by_model: dict[str, set[tuple[int, int]]] = {}
    firmware = {}
    for servo, _ in found:
        number = servo.pong.firmware_version, servo.pong.firmware_minor or 0
        by_model.setdefault(servo.model_name, set()).add(number)
        firmware[number] = servo.pong.firmware
    return "; ".join(
        f"{name}: {', '.join(firmware[number] for number in sorted(numbers))}"
        for name, numbers in sorted(by_model.items())
    )


def _watchdogs(found: Sequence[tuple[Servo, Registers]]) -> str:
    have: list[int] = []
    lack: list[int] = []
    for servo, had in found:
        watchdog = servo.place.family.watchdog
        (have if watchdog and watchdog.register in had else lack).append(servo.id)
    parts = []
    if have:
        parts.append(f"id {_listed(have)}: have one; it is armed with torque")
    if lack:
        parts.append(
            f"id {_listed(lack)}: have none: v2a's own deadman has to do, keep its process apart"
        )
    return "; ".join(parts)


def _voltages(found: Sequence[tuple[Servo, Registers]]) -> str:
    measured = [_si(servo, had, "present_input_voltage") for servo, had in found]
    shown = sorted({f"{value:.1f} V" for value in measured if not math.isnan(value)})
    return ", ".join(shown) or "these servos do not measure it"


def _temperatures(found: Sequence[tuple[Servo, Registers]]) -> str:
    measured = [had["present_temperature"] for _, had in found if "present_temperature" in had]
    return f"{max(measured)} C at most" if measured else "these servos do not measure it"


def _listed(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids))


_WARM_BELOW_LIMIT_C: Final = 10
_VOLTAGE_REGISTERS: Final = ("present_input_voltage", "min_voltage_limit", "max_voltage_limit")

_SERVO_CHECKS: Final = (
    _ServoCheck(
        "model",
        lambda family: (),
        _model,
        lambda found: ", ".join(sorted({servo.model_name for servo, _ in found})),
        lambda servo, had: "use a servo of a known model",
    ),
    _ServoCheck(
        "firmware",
        lambda family: (),
        _firmware,
        _versions,
        lambda servo, had: "update it with the vendor's tool: without, a dead host stops nothing",
    ),
    _ServoCheck(
        "return delay",
        lambda family: ("return_delay_time",),
        _return_delay,
        lambda found: "none",
        lambda servo, had: servo.setup_line,
    ),
    _ServoCheck(
        "settings",
        lambda family: [setting.register for setting in family.settings],
        _settings,
        lambda found: "as v2a needs them",
        lambda servo, had: servo.setup_line,
    ),
    _ServoCheck(
        "hardware error",
        lambda family: ("hardware_error_status",),
        _hardware_error,
        lambda found: "none",
        _restart,
    ),
    _ServoCheck(
        "watchdog",
        lambda family: (family.watchdog.register,) if family.watchdog else (),
        _watchdog,
        _watchdogs,
        lambda servo, had: "v2a run --arm clears it, as does cutting the power",
    ),
    _ServoCheck(
        "voltage",
        lambda family: _VOLTAGE_REGISTERS,
        _voltage,
        _voltages,
        lambda servo, had: volts.advice if (volts := _volts(servo, had)) else "",
    ),
    _ServoCheck(
        "temperature",
        lambda family: ("present_temperature", "temperature_limit"),
        _temperature,
        _temperatures,
        lambda servo, had: "let it cool; less load, or more air",
    ),
)
_OF_THE_PING: Final = ("model", "firmware")  # checks for which a ping is enough


def judge_servos(found: Sequence[tuple[Servo, Registers]]) -> list[Finding]:
    """Run each check on all servos: one finding for each bad servo, or one if none is bad.

    A servo whose registers were not read is named as such, and does not count as good.
    """
    findings = []
    for check in _SERVO_CHECKS:
        bad = [(servo, had) for servo, had in found if check.wrong(servo, had)]
        findings += [
            Finding(
                check.name,
                False,
                f"id {servo.id}: {check.wrong(servo, had)}",
                check.fix(servo, had),
            )
            for servo, had in bad
        ]
        unread = [servo.id for servo, had in found if _unread(check, servo, had)]
        read = [(servo, had) for servo, had in found if servo.id not in unread]
        well = [check.well(read)] if read and not bad else []
        left = [f"id {_listed(unread)}: not read"] if unread else []
        if well or left:
            findings.append(
                Finding(check.name, None if unread else True, "; ".join([*well, *left]))
            )
    return findings


def _unread(check: _ServoCheck, servo: Servo, had: Registers) -> bool:
    """Whether the check needs something that its model has, or may have, and that was not read."""
    if check.name in _OF_THE_PING:
        return False
    if servo.model is None:
        return True
    needs = check.needs(servo.place.family)
    return any(name in servo.model.items and name not in had for name in needs)


def check_places(servos: Sequence[Servo]) -> list[Finding]:
    """Check that all servos have one rate and one protocol: those of most of them."""
    kinds: dict[tuple[str, int], list[Servo]] = {}
    for servo in servos:
        kinds.setdefault((servo.place.protocol, servo.place.baud), []).append(servo)
    named = "; ".join(
        f"{protocol} at {baud} baud: id {_listed([s.id for s in there])}"
        for (protocol, baud), there in kinds.items()
    )
    if len(kinds) == 1:
        return [Finding("rate", True, named)]
    protocol, baud = max(kinds, key=lambda kind: (len(kinds[kind]), kind[1]))
    taken = {servo.id for servo in kinds[protocol, baud]}
    findings = []
    for servo in servos:
        if (servo.place.protocol, servo.place.baud) == (protocol, baud):
            continue
        fix = "put it on a bus of its own: one robot speaks one protocol"
        if servo.place.protocol == protocol:
            highest = servo.place.family.packets.max_id
            free = [i for i in (servo.id, *range(1, highest + 1)) if i not in taken]
            taken.add(free[0])
            fix = setup_line(
                servo.place.port, protocol, servo.place.baud, servo.id,
                new_id=free[0], new_baud=baud,
            )  # fmt: skip
        where = f"{servo.place.protocol} at {servo.place.baud} baud"
        found = f"id {servo.id}: {where}, most are at {protocol} at {baud} baud"
        findings.append(Finding("rate", False, found, fix))
    return findings


def check_faults(looks: Sequence[Look]) -> list[Finding]:
    """What is wrong with the answers, and which rates could not be asked."""
    findings = [
        Finding("ids", False, fault.found, fault.fix) for look in looks for fault in look.faults
    ]
    for look in looks:
        findings += [
            Finding("ids", False, f"{servo}: answers pings, and no reads", servo.setup_line)
            for servo in look.servos
            if servo.mute
        ]
        if look.cut_short:
            found, _, fix = look.cut_short.rpartition("; ")
            lost = not look.rate_refused
            findings.append(
                Finding("not asked", False if lost else None, found, fix if lost else "")
            )
    return findings
