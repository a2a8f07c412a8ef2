"""Which bus a command works on: the one of a robot.yaml, or one given by its port."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from pydantic import BaseModel

from hw_drivers.family import PLAIN, Role
from hw_drivers.motors.find import Look, Servo, find_first
from hw_drivers.robot.config import JointConfig, RobotConfig, ServoConfig
from v2a.clock import Clock
from v2a.config import load_yaml, suggest
from v2a.errors import BusError, ConfigError


class _File(BaseModel):
    """The part of robot.yaml that names the bus and the joints. The rest is left unchecked."""

    robot: RobotConfig


def load_robot(path: Path) -> RobotConfig:
    """Read the `robot` part of a robot.yaml. Raises ConfigError that lists its faults."""
    return load_yaml(path, _File).robot


@dataclass(frozen=True, slots=True)
class Where:
    """A bus, and the joints on it where a robot.yaml names them."""

    port: str
    protocol: str | None
    baud: int | None
    robot_yaml: Path | None = None
    joints: tuple[JointConfig, ...] = ()

    @property
    def servos(self) -> tuple[ServoConfig, ...]:
        """All servos of the robot.yaml, those of the joints first, then their shadows."""
        by_joint = [joint.servos for joint in self.joints]
        shadows = (servo for servos in by_joint for servo in servos[1:])
        return (*(servos[0] for servos in by_joint), *shadows)

    def joint(self, servo_id: int) -> JointConfig | None:
        """The joint that this servo moves, be it as its shadow; None without a robot.yaml."""
        moved = (j for j in self.joints if servo_id in (servo.id for servo in j.servos))
        return next(moved, None)

    def servo(self, servo_id: int) -> ServoConfig | None:
        """What the robot.yaml says of this servo; None without one."""
        return next((servo for servo in self.servos if servo.id == servo_id), None)

    def role(self, servo_id: int) -> Role:
        """What the robot.yaml asks of this servo beyond a plain joint's."""
        servo = self.servo(servo_id)
        return servo.role if servo else PLAIN

    def name(self, servo_id: int) -> str:
        """The servo as messages call it: `elbow (id 3)`, or `id 3` without a robot.yaml."""
        servo = self.servo(servo_id)
        return f"{servo.name} (id {servo_id})" if servo else f"id {servo_id}"

    def ids(self, names: Iterable[str], ids: Iterable[int] = ()) -> list[int]:
        """The ids of the joints called `names`, and `ids`. Raises ConfigError, UsageError."""
        known = {servo.name: servo.id for servo in self.servos}
        names = [*names]
        if names and self.robot_yaml is None:
            raise click.UsageError(f"without a ROBOT.YAML, name servos by --id; got {names[0]}")
        for name in names:
            if name not in known:
                raise ConfigError(
                    f"{self.robot_yaml}: no joint {name!r}; {suggest(name, [*known])}"
                )
        return list(dict.fromkeys([*(known[name] for name in names), *ids]))

    def find(self, clock: Clock) -> Look:
        """Ask where servos may be, the likeliest place first, until some answer.

        Raises BusError if none answers. With a robot.yaml the result has its joints' servos alone.
        """
        found = find_first(self.port, self.protocol, self.baud, clock)
        if not self.joints:
            return found
        mine = tuple(servo for servo in found.servos if self.servo(servo.id))
        if not mine and not found.faults:
            raise BusError(f"{found.place}: none of the joints of {self.robot_yaml} answers")
        return Look(found.place, mine, found.faults, found.cut_short)

    def missing(self, servos: Sequence[Servo]) -> list[str]:
        """The joints whose servo is not among `servos`."""
        there = {servo.id for servo in servos}
        return [self.name(servo.id) for servo in self.servos if servo.id not in there]


def where_is(
    robot_yaml: Path | None, port: str | None, protocol: str | None, baud: int | None
) -> Where:
    """The bus that the command line names. Raises UsageError if it names none, or two."""
    if robot_yaml is None and port is None:
        raise click.UsageError("name a ROBOT.YAML, or a port by --port")
    if robot_yaml is None or port is not None:
        if robot_yaml is not None:
            raise click.UsageError(f"--port and {robot_yaml} both name a bus; leave one out")
        return Where(str(port), protocol, baud)
    if protocol is not None or baud is not None:
        raise click.UsageError(f"--protocol and --baud stand in {robot_yaml}; leave them out")
    robot = load_robot(robot_yaml)
    bus = robot.bus
    return Where(bus.port, bus.protocol, bus.baud, robot_yaml, robot.joints)
