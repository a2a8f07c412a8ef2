"""`v2a motors calibrate`: measures each joint's range by hand; writes it to servos and file."""

from __future__ import annotations

import contextlib
import math
import select
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import click

from hw_drivers.bus.bus import ServoBus
from hw_drivers.family import Family
from hw_drivers.motors import options
from hw_drivers.motors.joint_range import Range, Sweep, place_range
from hw_drivers.motors.measured_limits import measured, new_values, put_into, zero_moves
from hw_drivers.motors.settings import changes, read_settings, write_settings
from hw_drivers.motors.where import load_robot
from hw_drivers.robot.config import JointConfig, RobotConfig
from hw_drivers.robot.joint_calibration import (
    REGISTERS,
    Calibration,
    check_ranges,
    read_servos,
    save_calibration,
)
from hw_drivers.robot.robot import Robot
from v2a.clock import Clock, MonotonicClock
from v2a.errors import BusError, ConfigError
from v2a.signals import one_signal_ends_it, signals_held
from v2a.terminal import LiveLines, columns

_PERIOD_NS: Final = 20_000_000
_SHOWN_EVERY: Final = 5  # readings: ten times a second

Settings = Mapping[str, int]


@click.command()
@click.argument("robot_yaml", metavar="ROBOT.YAML", type=click.Path(path_type=Path))
@options.yes
def calibrate(robot_yaml: Path, yes: bool) -> None:
    """Measure the range of each joint of ROBOT.YAML while you move it by hand.

    Torque goes off: hold the arm. Move each joint from one end to the other, then press Enter.
    The range goes into each servo's position limits, with the encoder's seam outside it. It also
    goes into the file that ROBOT.YAML names as `calibration`. Every connect compares the two, which
    tells this arm from another. Ctrl-C leaves file and servos as they were, with torque off.
    """
    config = load_robot(robot_yaml)
    if config.calibration is None:
        line = f"calibration: {robot_yaml.stem}.calibration.yaml"
        raise ConfigError(f"{robot_yaml}: say where its calibration is kept, under robot: {line}")
    clock = MonotonicClock()
    robot = Robot(config.model_copy(update={"calibration": None}), clock)
    with contextlib.closing(robot):
        robot.connect()
        _let_go(robot, yes)
        sweeps = _sweep(config, robot.bus, clock)
        ranges = place_all(config, robot.bus, sweeps)
        wanted = {joint.id: settings_for(ranges[joint.name]) for joint in config.joints}
        if not _agreed(config, robot.bus, wanted, yes):
            click.echo("nothing was written")
            return
        with one_signal_ends_it(), undone_on_failure(robot.bus, config.bus.family, wanted):
            for servo_id, settings in wanted.items():
                write_settings(robot.bus, config.bus.family, servo_id, settings)
            joints = read_servos(robot.bus, config)
            save_calibration(config.calibration, Calibration(robot=config.name, joints=joints))
    click.echo(f"written and read back; kept in {config.calibration}")
    if not _keep_limits(robot_yaml, config, ranges, yes):
        for fault in check_ranges(config.joints, joints):
            click.echo(f"note: {fault}", err=True)


def _let_go(robot: Robot, yes: bool) -> None:
    stiff = [j.name for j in robot.config.joints if robot.bus.read(j.id, "torque_enable")]
    if stiff and not yes:
        click.confirm(f"Torque goes off in {', '.join(stiff)}: hold the arm. Ready?", abort=True)
    robot.disable_torque()


def _sweep(config: RobotConfig, bus: ServoBus, clock: Clock) -> dict[str, Sweep]:
    """Follow the joints until Enter, and show the numbers live on stderr."""
    click.echo(
        "Move each joint from one end of its range to the other; then press Enter.", err=True
    )
    lines = LiveLines(err=True)
    shown: list[str] = []

    def show(sweeps: dict[str, Sweep]) -> None:
        if (new := _sweep_lines(config, sweeps)) != shown:
            lines.show(new)
            shown[:] = new

    return follow(config, bus, clock, show, enter_pressed)


def follow(
    config: RobotConfig,
    bus: ServoBus,
    clock: Clock,
    show: Callable[[dict[str, Sweep]], None],
    done: Callable[[], bool],
) -> dict[str, Sweep]:
    """Read all positions until `done`. Raises BusError if a joint moved too fast to follow."""
    ids = tuple(joint.id for joint in config.joints)
    sweeps: dict[str, Sweep] = {}
    readings = 0
    next_ns = clock.now_ns()
    while not (done() and len(sweeps) == len(ids)):
        found = bus.sync_read("present_position", ids)
        for joint, raw, valid in zip(config.joints, found.raw.tolist(), found.valid, strict=True):
            if valid:
                _take(joint, sweeps, raw)
        if readings % _SHOWN_EVERY == 0 and len(sweeps) == len(ids):
            show(sweeps)
        readings += 1
        next_ns = max(next_ns + _PERIOD_NS, clock.now_ns())
        clock.sleep_until_ns(next_ns)
    show(sweeps)
    return sweeps


def _take(joint: JointConfig, sweeps: dict[str, Sweep], raw: int) -> None:
    if joint.name not in sweeps:
        sweeps[joint.name] = Sweep.begin(joint.servo_model.turn_ticks, raw)
    try:
        sweeps[joint.name].add(raw)
    except BusError as error:
        raise BusError(f"{joint.name} (id {joint.id}): {error}") from error


def enter_pressed() -> bool:
    """Whether a line, or the end of the input, has arrived."""
    if not select.select([sys.stdin], [], [], 0)[0]:
        return False
    sys.stdin.readline()
    return True


def _sweep_lines(config: RobotConfig, sweeps: Mapping[str, Sweep]) -> list[str]:
    rows = []
    for joint in config.joints:
        sweep = sweeps[joint.name]
        ticks = (sweep.now, sweep.low, sweep.high, sweep.span)
        degrees = math.degrees(sweep.span * joint.rad_per_tick)
        rows.append((joint.name, str(joint.id), *map(str, ticks), f"{degrees:.0f}"))
    return columns(("joint", "id", "tick", "lowest", "highest", "span", "degrees"), rows)


def place_all(config: RobotConfig, bus: ServoBus, sweeps: Mapping[str, Sweep]) -> dict[str, Range]:
    """Place each joint's range within a turn. Raises one BusError that lists every failure."""
    ranges, faults = {}, []
    for joint in config.joints:
        model = joint.servo_model
        offset = bus.read(joint.id, "homing_offset") if "homing_offset" in model.items else 0
        try:
            ranges[joint.name] = place_range(model, config.bus.family, sweeps[joint.name], offset)
        except BusError as error:
            faults.append(f"{joint.name} (id {joint.id}): {error}")
    if faults:
        raise BusError("\n  ".join(["nothing was written:", *faults]))
    return ranges


def settings_for(found: Range) -> dict[str, int]:
    """The registers that hold the range, and their values."""
    values = zip(REGISTERS, (found.homing_offset, found.low, found.high), strict=True)
    return {name: raw for name, raw in values if raw is not None}


def _agreed(config: RobotConfig, bus: ServoBus, wanted: Mapping[int, Settings], yes: bool) -> bool:
    rows = [
        (joint.name, str(joint.id), name, str(now), str(raw))
        for joint in config.joints
        for name, now, raw in changes(bus, joint.id, wanted[joint.id])
    ]
    if rows:
        click.echo("\n".join(columns(("joint", "id", "register", "now", "new"), rows)))
    return yes or not rows or click.confirm("Write this?")


@contextlib.contextmanager
def undone_on_failure(
    bus: ServoBus, family: Family, wanted: Mapping[int, Settings]
) -> Iterator[None]:
    """If this context ends by an exception, restore the registers of `wanted`."""
    before = {servo_id: read_settings(bus, servo_id, names) for servo_id, names in wanted.items()}
    try:
        yield
    except BaseException:
        with signals_held():
            for servo_id, settings in before.items():
                try:
                    write_settings(bus, family, servo_id, settings)
                except BusError as error:  # the other servos get theirs back all the same
                    was = ", ".join(f"{name} {raw}" for name, raw in settings.items())
                    click.echo(f"warning: not restored ({was}): {error}", err=True)
        raise


def _keep_limits(
    robot_yaml: Path, config: RobotConfig, ranges: Mapping[str, Range], yes: bool
) -> bool:
    """Print each joint's range, and put it into robot.yaml if asked to. Return whether it did."""
    found = {joint.name: measured(joint, ranges[joint.name]) for joint in config.joints}
    click.echo("the whole range of each joint:")
    for name, limits in found.items():
        click.echo(f"  {name}: {limits}")
    moved = [j.name for j in config.joints if zero_moves(j, ranges[j.name], found[j.name])]
    if moved:
        click.echo(f"0 rad was outside the range, and is now in its middle: {', '.join(moved)}")
    try:
        values = new_values(config, found)
        if not values:
            return True
        question = f"Put this into {robot_yaml}? A limit that is narrower there stays."
        if not (yes or click.confirm(question)):
            return False
        put_into(robot_yaml, values)
    except ConfigError as error:
        click.echo(f"note: {error}; put the values above in by hand", err=True)
        return False
    click.echo(f"{robot_yaml}: has it now")
    return True
