"""`v2a robot check`: is this robot.yaml right, and is the robot on its port the one in it?"""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Literal

import click
import numpy as np
from pydantic import Field

from hw_drivers.robot.robot import Health, Robot
from runtime.config.robot_yaml import RunConfig
from runtime.config.safety_yaml import load_workspace
from runtime.fit import check_fit
from runtime.host.realtime import check_core
from runtime.recording.messages import to_json
from runtime.safety.safety import ARM_TOLERANCE_RAD
from v2a.bundle_cli import load_with_bar
from v2a.clock import MonotonicClock
from v2a.config import load_yaml
from v2a.errors import SafetyFault
from v2a.measured import Measured, Number, absent
from v2a.terminal import columns


class CheckedJoint(Measured):
    """One joint of the file. What the servo says is missing if the bus was not checked."""

    name: str = Field(description="name of the joint")
    id: int = Field(description="id of its servo")
    model: str = Field(description="model of its servo")
    lower_rad: float = Field(description="lower end of its range, rad")
    upper_rad: float = Field(description="upper end of its range, rad")
    velocity_limit_rad_s: float = Field(description="largest speed, rad/s")
    position_rad: Number | None = absent("where it stands, rad")
    voltage_v: Number | None = absent("supply voltage at the servo, V")
    temperature_c: Number | None = absent("temperature of the servo, degrees C")
    torque: Literal["on", "off"] | None = absent("whether its torque is on")


class RobotCheck(Measured):
    """The result of `v2a robot check --json`."""

    schema_version: Literal[1] = Field(default=1, description="version of this schema")
    file: str = Field(description="the file that was checked")
    robot: str = Field(description="`robot.name`")
    port: str = Field(description="`robot.bus.port`")
    bus_checked: bool = Field(description="whether the servos were asked")
    joints: tuple[CheckedJoint, ...] = Field(description="the joints, in the file's order")


@click.command()
@click.argument("robot_yaml", metavar="ROBOT.YAML", type=click.Path(path_type=Path))
@click.option("--bundle", type=click.Path(path_type=Path), help="Does this bundle fit the robot?")
@click.option(
    "--bus/--file-only",
    "bus",
    default=None,
    help="Demand the bus, or leave it out.  [default: check it if its port is there]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def check(robot_yaml: Path, bundle: Path | None, bus: bool | None, as_json: bool) -> None:
    """Check ROBOT.YAML, and then the robot, if its serial port is there.

    The file: every key, the files it names, and with --bundle whether the bundle fits. The robot:
    model, id, settings, calibration and limits of each servo, and where it stands. Nothing is
    written to a servo and nothing moves.

    The exit code is 2 if the file is wrong, 3 if the bundle is, 6 if the servos are not as the
    file says, and 7 if a joint stands where it can't be armed.
    """
    config = load_yaml(robot_yaml, RunConfig)
    check_core(config.control.core)
    middle_rad = [(joint.lower_rad + joint.upper_rad) / 2 for joint in config.robot.joints]
    load_workspace(config.safety.workspace, np.array(middle_rad))
    if bundle is not None:
        check_fit(config, load_with_bar(bundle).manifest)
    if not as_json:
        click.echo(f"{robot_yaml}: the file is good")
    port = config.robot.bus.port
    asked = bus if bus is not None else Path(port).exists()
    joints = _ask(config) if asked else _from_file(config)
    result = RobotCheck(
        file=str(robot_yaml), robot=config.robot.name, port=port, bus_checked=asked, joints=joints
    )
    click.echo(to_json(result) if as_json else "\n".join(_table(joints)))
    if not as_json:
        why = "left out" if bus is False else f"{port} is not there"
        found = "the robot is as the file says" if asked else f"not checked: {why}"
        click.echo(f"{port}: {found}")
    if outside := [_outside(joint) for joint in joints if _is_outside(joint)]:
        raise SafetyFault("\n".join(outside))


def _from_file(config: RunConfig) -> tuple[CheckedJoint, ...]:
    return tuple(
        CheckedJoint(
            name=joint.name,
            id=joint.id,
            model=joint.model,
            lower_rad=joint.lower_rad,
            upper_rad=joint.upper_rad,
            velocity_limit_rad_s=joint.velocity_limit_rad_s,
        )
        for joint in config.robot.joints
    )


def _ask(config: RunConfig) -> tuple[CheckedJoint, ...]:
    """The joints with what their servos say. Raises BusError for a servo that is not as it says."""
    robot = Robot(config.robot, MonotonicClock())
    with contextlib.closing(robot):
        robot.connect()
        robot.check_limits()
        state = robot.read_state()
        health = robot.health()
        torque = [robot.bus.read(joint.id, "torque_enable") for joint in config.robot.joints]
    read = zip(_from_file(config), state.position_rad.tolist(), torque, strict=True)
    return tuple(
        joint.model_copy(
            update={
                "position_rad": position_rad,
                "torque": "on" if on else "off",
                **_readings(health, k),
            }
        )
        for k, (joint, position_rad, on) in enumerate(read)
    )


def _readings(health: Health | None, k: int) -> dict[str, float]:
    """Voltage and temperature of joint `k`, as far as its servo measures them."""
    if health is None:
        return {}
    found = {"voltage_v": health.voltage_v, "temperature_c": health.temperature_c}
    return {
        name: float(reading.value[k])
        for name, reading in found.items()
        if reading is not None and np.isfinite(reading.value[k])
    }


def _table(joints: tuple[CheckedJoint, ...]) -> list[str]:
    header = ("joint", "id", "model", "range", "speed", "now", "supply", "torque")
    return columns(
        header,
        [
            (
                joint.name,
                str(joint.id),
                joint.model,
                f"{joint.lower_rad:.2f} to {joint.upper_rad:.2f} rad",
                f"{joint.velocity_limit_rad_s:g} rad/s",
                _shown(joint.position_rad, "rad"),
                _shown(joint.voltage_v, "V"),
                joint.torque or "-",
            )
            for joint in joints
        ],
    )


def _shown(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    return "no answer" if math.isnan(value) else f"{value:.2f} {unit}"


def _is_outside(joint: CheckedJoint) -> bool:
    at = joint.position_rad
    if at is None:
        return False
    low, high = joint.lower_rad - ARM_TOLERANCE_RAD, joint.upper_rad + ARM_TOLERANCE_RAD
    return not low <= at <= high  # NaN compares false, so this form names it


def _outside(joint: CheckedJoint) -> str:
    return (
        f"{joint.name} stands at {_shown(joint.position_rad, 'rad')}, outside "
        f"{joint.lower_rad:.2f}..{joint.upper_rad:.2f} rad; move it by hand before arming"
    )
