"""The checks of `v2a motors doctor`: pure functions from what was read to findings."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from hw_drivers.family import Family
from hw_drivers.motors.find import Servo
from hw_drivers.motors.settings import wanted_settings

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
_NAME_RULE: Final = (
    'SUBSYSTEM=="tty", ATTRS{idVendor}=="VENDOR", ATTRS{serial}=="SERIAL", SYMLINK+="arm"'
)
_RULES_FILE: Final = "/etc/udev/rules.d/99-v2a.rules"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `fix` says what to do, and is empty if `ok`."""

    check: str
    ok: bool
    found: str
    fix: str = ""


def registers_to_read(family: Family) -> list[str]:
    """The registers that the checks use. A model may lack some."""
    watchdog = [family.watchdog.register] if family.watchdog else []
    return [*(setting.register for setting in family.settings), *watchdog, *_STATE_REGISTERS]


def check_name(path: str, stable: str | None) -> Finding:
    """Check that the port keeps its name after a replug. `stable`: its /dev/serial/by-id name."""
    check = "port name"
    if stable == path:
        return Finding(check, True, "stays the same after a replug")
    if stable is not None:
        return Finding(check, False, "may change at the next replug", f"use port: {stable}")
    if "USB" in os.path.basename(path) or "ACM" in os.path.basename(path):
        return Finding(
            check,
            False,
            "may change at the next replug, and the adapter has no name in /dev/serial/by-id",
            f"echo '{_NAME_RULE}' | sudo tee -a {_RULES_FILE}, with its numbers from "
            f"udevadm info -a {path}; then replug it and use port: /dev/arm",
        )
    return Finding(check, True, "no USB adapter: its name does not change")


def check_latency_timer(milliseconds: int | None) -> Finding:
    """Check the latency timer that the adapter reports, after it was set to 1 ms."""
    check = "latency timer"
    if milliseconds is None:
        return Finding(check, True, "the adapter has none")
    if milliseconds <= 1:
        return Finding(check, True, f"{milliseconds} ms")
    return Finding(
        check,
        False,
        f"{milliseconds} ms: each reading may take that long",
        f"echo '{_LATENCY_RULE}' | sudo tee -a {_RULES_FILE}; then replug the adapter",
    )


class _ServoCheck(NamedTuple):
    name: str
    wrong: Callable[[Servo, Registers], str]  # says what is wrong; '' if nothing is
    fix: str  # {setup} stands for the servo's `v2a motors setup` line


def _model(servo: Servo, _: Registers) -> str:
    known = ", ".join(servo.place.family.models)
    return "" if servo.model else f"{servo.model_name} is not known; known are {known}"


def _return_delay(servo: Servo, found: Registers) -> str:
    delay_us = _si(servo, found, "return_delay_time") * 1e6
    return f"{delay_us:.0f} us before each answer" if delay_us > 0 else ""


def _settings(servo: Servo, found: Registers) -> str:
    if servo.model is None:
        return ""
    wanted = wanted_settings(servo.place.family, servo.model, found)
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


def _firmware(servo: Servo, found: Registers) -> str:
    watchdog = servo.place.family.watchdog
    lacks = watchdog and servo.model and watchdog.register not in found
    return f"{servo.firmware_version} has no bus watchdog" if lacks else ""


def _voltage(servo: Servo, found: Registers) -> str:
    names = ("present_input_voltage", "min_voltage_limit", "max_voltage_limit")
    now, low, high = (_si(servo, found, name) for name in names)
    if not (now < low or now > high):  # nor if a register is missing, and so NaN
        return ""
    return f"{now:.1f} V, allowed are {low:.1f} to {high:.1f}"


def _temperature(_: Servo, found: Registers) -> str:
    raw, limit = found.get("present_temperature"), found.get("temperature_limit")
    hot = raw is not None and limit is not None and raw >= limit - _WARM_BELOW_LIMIT_C
    return f"{raw} C, it stops at {limit} C" if hot else ""


def _si(servo: Servo, found: Registers, name: str) -> float:
    """The register's value in SI units; NaN if it was not read."""
    if servo.model is None or name not in found:
        return math.nan
    return found[name] * servo.model.items[name].scale


_WARM_BELOW_LIMIT_C: Final = 10

_SERVO_CHECKS: Final = (
    _ServoCheck("model", _model, "use a servo of a known model"),
    _ServoCheck(
        "firmware",
        _firmware,
        "update it with the vendor's tool: without, a dead host stops nothing",
    ),
    _ServoCheck("return delay", _return_delay, "{setup}"),
    _ServoCheck("settings", _settings, "{setup}"),
    _ServoCheck(
        "hardware error", _hardware_error, "remove its cause, then cut the power for a moment"
    ),
    _ServoCheck("watchdog", _watchdog, "v2a run --arm clears it, as does cutting the power"),
    _ServoCheck("voltage", _voltage, "check the supply and its wires"),
    _ServoCheck("temperature", _temperature, "let it cool; less load, or more air"),
)


def judge_servos(found: Sequence[tuple[Servo, Registers]]) -> list[Finding]:
    """Run each check on all servos: one finding for each bad servo, or one if all are well."""
    findings = []
    for check in _SERVO_CHECKS:
        bad = [(servo, what) for servo, had in found if (what := check.wrong(servo, had))]
        findings += [
            Finding(
                check.name,
                False,
                f"id {servo.id}: {what}",
                check.fix.format(setup=servo.setup_line),
            )
            for servo, what in bad
        ]
        if not bad:
            findings.append(Finding(check.name, True, _WELL[check.name](found)))
    return findings


def _versions(found: Sequence[tuple[Servo, Registers]]) -> str:
    return ", ".join(sorted({f"{s.model_name}: {s.firmware_version}" for s, _ in found}))


def _watchdogs(found: Sequence[tuple[Servo, Registers]]) -> str:
    if all((dog := servo.place.family.watchdog) and dog.register in had for servo, had in found):
        return "every servo has one; it is armed with torque"
    return "these servos have none: v2a's own deadman has to do, keep its process apart"


_WELL: Final[dict[str, Callable[[Sequence[tuple[Servo, Registers]]], str]]] = {
    "model": lambda found: ", ".join(sorted({servo.model_name for servo, _ in found})),
    "firmware": _versions,
    "return delay": lambda found: "none",
    "settings": lambda found: "as v2a needs them",
    "hardware error": lambda found: "none",
    "watchdog": _watchdogs,
    "voltage": lambda found: ", ".join(sorted({_volts(*servo) for servo in found})),
    "temperature": lambda found: (
        f"{max(h.get('present_temperature', 0) for _, h in found)} C at most"
    ),
}


def _volts(servo: Servo, found: Registers) -> str:
    voltage_v = _si(servo, found, "present_input_voltage")
    return "not measured" if math.isnan(voltage_v) else f"{voltage_v:.1f} V"


def check_places(servos: Sequence[Servo]) -> Finding:
    """Check that all servos have one rate and one protocol."""
    kinds: dict[str, list[int]] = {}
    for servo in servos:
        where = f"{servo.place.protocol} at {servo.place.baud} baud"
        kinds.setdefault(where, []).append(servo.id)
    found = "; ".join(f"{where}: id {', '.join(map(str, ids))}" for where, ids in kinds.items())
    if len(kinds) == 1:
        return Finding("rate", True, found)
    return Finding(
        "rate",
        False,
        f"not all the same: {found}",
        "v2a motors setup --port PORT --from-id ID --from-baud NOW --id ID --baud ALL",
    )
