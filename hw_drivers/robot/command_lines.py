"""The `v2a motors` lines that messages advise: whole, for this servo, ready to paste."""

from __future__ import annotations

import shlex
from pathlib import Path

from hw_drivers.family import PLAIN, Role
from v2a.own_command import own_command


def setup_line(
    port: str,
    protocol: str,
    baud: int,
    servo_id: int,
    *,
    new_id: int | None = None,
    new_baud: int | None = None,
    role: Role = PLAIN,
) -> str:
    """The command that corrects a servo's settings. It keeps its id and rate, or gives new ones."""
    new_id = servo_id if new_id is None else new_id
    shadow = "" if role.shadow_of is None else f" --shadow-of {role.shadow_of}"
    limited = " --current-limited" if role.current_limited else ""
    return (
        f"{own_command()} motors setup --port {shlex.quote(port)} --protocol {protocol} "
        f"--from-baud {baud} --from-id {servo_id} --baud {new_baud or baud} --id {new_id}"
        f"{shadow}{limited}"
    )


def reboot_line(port: str, protocol: str, baud: int, *ids: int) -> str:
    """The command that restarts servos, which ends a hardware error once its cause is gone."""
    named = " ".join(f"--id {servo_id}" for servo_id in ids)
    return f"{_command('reboot', port, protocol, baud)} {named}".rstrip()


def release_line(port: str, protocol: str, baud: int) -> str:
    """The command that switches torque off in every servo of a bus."""
    return _command("release", port, protocol, baud)


def doctor_line(port: str, protocol: str, baud: int) -> str:
    """The command that examines a bus."""
    return _command("doctor", port, protocol, baud)


def monitor_line(port: str, protocol: str, baud: int) -> str:
    """The command that shows what the servos of a bus measure."""
    return _command("monitor", port, protocol, baud)


def scan_line(port: str) -> str:
    """The command that looks for servos at every rate and in every protocol."""
    return f"{own_command()} motors scan --port {shlex.quote(port)}"


def calibrate_line(calibration: Path) -> str:
    """The command that writes this calibration file. It names robot.yaml if that is beside it.

    `v2a robot new` calls the calibration of `ARM.yaml` `ARM.calibration.yaml`.
    """
    robot_yaml = calibration.with_name(calibration.name.replace(".calibration", ""))
    known = robot_yaml != calibration and robot_yaml.is_file()
    return f"{own_command()} motors calibrate" + (
        f" {shlex.quote(str(robot_yaml))}" if known else ""
    )


def _command(name: str, port: str, protocol: str, baud: int) -> str:
    where = f"--port {shlex.quote(port)} --protocol {protocol} --baud {baud}"
    return f"{own_command()} motors {name} {where}"
