"""The `v2a motors` lines that messages advise: whole, for this servo, ready to paste."""

from __future__ import annotations

import shlex

from v2a.own_command import own_command


def setup_line(
    port: str,
    protocol: str,
    baud: int,
    servo_id: int,
    *,
    new_id: int | None = None,
    new_baud: int | None = None,
) -> str:
    """The command that corrects a servo's settings. It keeps its id and rate, or gives new ones."""
    new_id = servo_id if new_id is None else new_id
    return (
        f"{own_command()} motors setup --port {shlex.quote(port)} --protocol {protocol} "
        f"--from-baud {baud} --from-id {servo_id} --baud {new_baud or baud} --id {new_id}"
    )


def reboot_line(port: str, protocol: str, baud: int, servo_id: int) -> str:
    """The command that restarts a servo, which ends a hardware error once its cause is gone."""
    return f"{_command('reboot', port, protocol, baud)} --id {servo_id}"


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


def _command(name: str, port: str, protocol: str, baud: int) -> str:
    where = f"--port {shlex.quote(port)} --protocol {protocol} --baud {baud}"
    return f"{own_command()} motors {name} {where}"
