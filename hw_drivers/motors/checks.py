"""What `v2a motors doctor` judges: pure functions from what was read to findings."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from hw_drivers.dynamixel.models import WATCHDOG_TRIPPED
from hw_drivers.motors.find import Servo
from hw_drivers.motors.settings import wanted_settings
from hw_drivers.robot.config import PROTOCOLS

Registers = Mapping[str, int]

# The registers that the checks look at; a servo may lack some.
REGISTERS: Final = (
    "return_delay_time",
    "status_return_level",
    "operating_mode",
    "drive_mode",
    "phase",
    "hardware_error_status",
    "bus_watchdog",
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
    """One thing that was looked at. `fix` is the line that mends it, empty where `ok`."""

    check: str
    ok: bool
    found: str
    fix: str = ""


def check_name(path: str, stable: str | None) -> Finding:
    """Whether the port's name stays after a replug. `stable`: its name under /dev/serial/by-id."""
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
    """What the adapter's latency timer says it is, after it was asked to be 1 ms."""
    check = "latency timer"
    if milliseconds is None:
        return Finding(check, True, "the adapter has none")
    if milliseconds <= 1:
        return Finding(check, True, f"{milliseconds} ms")
    return Finding(
        check,
        False,
        f"{milliseconds} ms: each reading may take so long",
        f"echo '{_LATENCY_RULE}' | sudo tee -a {_RULES_FILE}; then replug the adapter",
    )


class _ServoCheck(NamedTuple):
    name: str
    wrong: Callable[[Servo, Registers], str]  # '' where nothing is
    fix: str  # {setup} in it is the command line


def _model(servo: Servo, _: Registers) -> str:
    known = ", ".join(PROTOCOLS[servo.place.protocol].models)
    return "" if servo.model else f"{servo.model_name} is not known; known are {known}"


def _return_delay(servo: Servo, found: Registers) -> str:
    raw = found.get("return_delay_time", 0)
    return f"{raw * 2} us before each answer" if raw else ""


def _settings(servo: Servo, found: Registers) -> str:
    if servo.model is None:
        return ""
    wanted = wanted_settings(servo.place.protocol, servo.model, found)
    del wanted["return_delay_time"]  # a check of its own
    return ", ".join(
        f"{name} {found[name]}, expected {raw}"
        for name, raw in wanted.items()
        if name in found and found[name] != raw
    )


def _hardware_error(servo: Servo, found: Registers) -> str:
    describe = PROTOCOLS[servo.place.protocol].describe_alarms
    return describe(found.get("hardware_error_status", 0))


def _watchdog(servo: Servo, found: Registers) -> str:
    if found.get("bus_watchdog") == WATCHDOG_TRIPPED:
        return "tripped: goals are ignored"
    return ""


def _firmware(servo: Servo, found: Registers) -> str:
    lacks = servo.place.protocol == "dynamixel2" and servo.model and "bus_watchdog" not in found
    return f"{servo.firmware_version} has no bus watchdog" if lacks else ""


def _voltage(_: Servo, found: Registers) -> str:
    raw = found.get("present_input_voltage")
    low, high = found.get("min_voltage_limit", 0), found.get("max_voltage_limit", 0)
    if raw is None or low <= raw <= high:
        return ""
    return f"{raw / 10:.1f} V, allowed are {low / 10:.1f} to {high / 10:.1f}"


def _temperature(_: Servo, found: Registers) -> str:
    raw, limit = found.get("present_temperature"), found.get("temperature_limit", 0)
    hot = raw is not None and raw >= limit - _WARM_BELOW_LIMIT_C
    return f"{raw} C, it stops at {limit} C" if hot else ""


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
    """Each check over all servos: one finding a check where all are well, else one a bad servo."""
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
    if all("bus_watchdog" in had for _, had in found):
        return "every servo has one; it is armed with torque"
    return "these servos have none: v2a's own deadman has to do, keep its process apart"


_WELL: Final[dict[str, Callable[[Sequence[tuple[Servo, Registers]]], str]]] = {
    "model": lambda found: ", ".join(sorted({servo.model_name for servo, _ in found})),
    "firmware": _versions,
    "return delay": lambda found: "none",
    "settings": lambda found: "as v2a needs them",
    "hardware error": lambda found: "none",
    "watchdog": _watchdogs,
    "voltage": lambda found: ", ".join(sorted({_volts(had) for _, had in found})),
    "temperature": lambda found: (
        f"{max(h.get('present_temperature', 0) for _, h in found)} C at most"
    ),
}


def _volts(found: Registers) -> str:
    return f"{found.get('present_input_voltage', 0) / 10:.1f} V"


def check_places(servos: Sequence[Servo]) -> Finding:
    """Whether all servos have one rate and one protocol, and no id twice."""
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
