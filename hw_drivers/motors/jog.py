"""`v2a motors jog`: moves one servo slowly, in small steps by key; torque goes off at the end."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import click

from hw_drivers.bus.bus import ServoBus
from hw_drivers.motors import options
from hw_drivers.motors.find import Servo, open_bus
from hw_drivers.motors.settings import needed_changes
from hw_drivers.motors.where import Where
from hw_drivers.robot.alarm_advice import describe
from hw_drivers.robot.command_lines import reboot_line
from hw_drivers.robot.config import JointConfig
from hw_drivers.robot.torque import TorqueState, hold_all, hold_still, read_hold, torque_off
from v2a.clock import Clock, MonotonicClock
from v2a.errors import BusError
from v2a.option_types import FiniteRange
from v2a.signals import one_signal_ends_it, signals_held

_SPEED_RAD_S: Final = 0.5  # as fast as a hand can be taken away
_LARGEST_STEP_RAD: Final = 0.2
_PERIOD_NS: Final = 20_000_000
_SETTLE_S: Final = 1.0  # for the last bit of the way
_NEAR_TICKS: Final = 8
_KEY_BYTES: Final = 4096  # all that a terminal holds
_KEYS: Final = {"+": 1, "=": 1, "-": -1}  # = is + without shift


@click.command()
@options.where
@click.argument("joint", metavar="[JOINT]", required=False)
@click.option("--id", "servo_id", type=options.SERVO_ID, help="Which servo, without a JOINT.")
@click.option(
    "--step",
    "step_rad",
    type=FiniteRange(0.0, _LARGEST_STEP_RAD, min_open=True),
    default=0.05,
    show_default=True,
    metavar="RAD",
    help=f"How far a key moves it, {_LARGEST_STEP_RAD} at most.",
)
@click.option("--arm", is_flag=True, help="Torque on; without it nothing moves.")
def jog(where: Where, joint: str | None, servo_id: int | None, step_rad: float, arm: bool) -> None:
    """Move the servo of JOINT of ROBOT.YAML, or the servo --id at --port, by the keys + and -;
    q ends it.

    The servo moves at 0.5 rad/s at most, and within its own position limits, which
    `v2a motors calibrate` sets. With ROBOT.YAML it also stays within the joint's limits, and + is
    the joint's own positive direction. The newest key wins: a key that is held down moves the
    servo on, and it stops at most one step after the key is released. However this ends, torque
    goes off: hold what the servo carries.
    """
    clock = MonotonicClock()
    wanted = where.ids([joint] if joint else [], [] if servo_id is None else [servo_id])
    if len(wanted) != 1:
        raise click.UsageError("name one servo: JOINT of a ROBOT.YAML, or --id")
    servos = pick(where, wanted[0], clock)
    servo = servos[0]
    with contextlib.closing(open_bus(servos, clock)) as bus:
        mover = Mover.find(bus, servo, clock, where.joint(servo.id))
        click.echo(f"{servo}; {mover.shown(mover.goal)}, range {mover.low} to {mover.high}")
        if not arm:
            click.echo(f"torque is {mover.torque} and stays so; --arm to move it")
            return
        click.echo(f"+ and - move it by {step_rad} rad, q ends")
        with one_signal_ends_it(), Keys() as keys, torque(mover):
            for way in ways(keys):
                ticks = round(way * mover.direction * step_rad / mover.rad_per_tick)
                wanted_tick, reached = mover.step(ticks, keys.waiting)
                blocked = abs(reached - wanted_tick) > _NEAR_TICKS and not keys.waiting()
                note = f", wanted {wanted_tick}: blocked?" if blocked else ""
                click.echo(f"{mover.shown(reached)}{note}")
    click.echo("torque is off")


def pick(where: Where, servo_id: int, clock: Clock) -> list[Servo]:
    """The servo with this id, and its shadow if robot.yaml names one.

    Raises BusError that lists the servos found, or the faults of those two.
    """
    if where.protocol:
        options.check_id(where.protocol, servo_id)
    if where.role(servo_id).shadow_of is not None:
        raise click.UsageError(f"{where.name(servo_id)} moves with its joint: jog the joint")
    joint = where.joint(servo_id)
    ids = [servo.id for servo in joint.servos] if joint else [servo_id]
    found = where.find(clock)
    if faults := [str(f) for f in found.faults if any(f.concerns(each) for each in ids)]:
        raise BusError("\n".join(faults))
    there = {servo.id: replace(servo, role=where.role(servo.id)) for servo in found.servos}
    if missing := [where.name(each) for each in ids if each not in there]:
        listed = "\n  ".join(map(str, found.servos))
        raise BusError(f"expected {', '.join(missing)}, found:\n  {listed}")
    return [there[each] for each in ids]


def ways(keys: Keys) -> Iterator[int]:
    """Yield 1 or -1 for each key, until q or the end of the input."""
    while (key := keys.next()) not in ("q", ""):
        if key in _KEYS:
            yield _KEYS[key]


class Keys:
    """The keys that a person presses.

    On a terminal, several keys that wait count as one, the newest: a held key fills the input much
    faster than a servo moves, and motion must not go on after it is released. Elsewhere each key
    counts, so that a script can pipe them in.
    """

    def __init__(self, fd: int | None = None) -> None:
        """`fd` is a terminal's; without one, standard input is used."""
        self._fd = fd if fd is not None or not sys.stdin.isatty() else sys.stdin.fileno()
        self._before: list[Any] | None = None

    def __enter__(self) -> Keys:
        if self._fd is not None:
            self._before = termios.tcgetattr(self._fd)
            tty.setcbreak(self._fd)  # each key at once, without echo; Ctrl-C stays a signal
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd is not None and self._before is not None:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    def next(self) -> str:
        """Wait for a key. Returns the newest, q if that is among those that came, '' at the end."""
        if self._fd is None:
            return click.getchar()
        came = os.read(self._fd, _KEY_BYTES).decode(errors="replace")
        return "q" if "q" in came else came[-1:]

    def waiting(self) -> bool:
        """Whether a newer key has been pressed. Never true if each key counts."""
        return self._fd is not None and bool(select.select([self._fd], [], [], 0)[0])


@dataclass(slots=True)
class Mover:
    """Moves one servo step by step. `goal` is in ticks, from `low` to `high`."""

    bus: ServoBus
    servo: Servo
    clock: Clock
    goal: int
    low: int
    high: int
    joint: JointConfig | None = None

    @classmethod
    def find(
        cls, bus: ServoBus, servo: Servo, clock: Clock, joint: JointConfig | None = None
    ) -> Mover:
        """Read where the servo is, and write nothing. The range is that of servo and `joint`.

        Raises BusError if it can't be moved: it has an alarm, a wrong setting, or is out of range.
        """
        model, family = bus.models[servo.id], servo.place.family
        if status := bus.read(servo.id, "hardware_error_status"):
            place = servo.place
            reboot = reboot_line(place.port, place.protocol, place.baud, servo.id)
            raise BusError(f"id {servo.id}: {describe(bus, family, servo.id, status, reboot)}")
        required = {setting.register for setting in family.settings if setting.required}
        for name, now, wanted in needed_changes(bus, family, servo.id, servo.role):
            if name in required:
                raise BusError(
                    f"id {servo.id}: {name} {now}, expected {wanted}; run {servo.setup_line}"
                )
        low, high = (bus.read(servo.id, f"{end}_position_limit") for end in ("min", "max"))
        if (low, high) == (0, 0):  # on a Feetech servo: no limits
            high = model.turn_ticks - 1
        if joint:
            ends = [joint.lower_rad, joint.upper_rad]
            ticks = sorted(
                round(joint.zero_tick + joint.direction * end / joint.rad_per_tick) for end in ends
            )
            low, high = max(low, ticks[0]), min(high, ticks[1])
        present = bus.read(servo.id, "present_position")
        if not low <= present <= high:
            raise BusError(
                f"id {servo.id}: is at tick {present}, its limits are {low} to {high}; move it "
                "inside by hand, or calibrate it"
            )
        return cls(bus, servo, clock, present, low, high, joint)

    @property
    def direction(self) -> int:
        """1 or -1: which way the ticks go when the joint turns in its positive direction."""
        return self.joint.direction if self.joint else 1

    def shown(self, tick: int) -> str:
        """The position `tick` in words, with the joint's angle if there is a joint."""
        if self.joint is None:
            return f"tick {tick}"
        angle_rad = self.direction * (tick - self.joint.zero_tick) * self.rad_per_tick
        return f"tick {tick}, {angle_rad:+.3f} rad"

    @property
    def rad_per_tick(self) -> float:
        """Radians per tick of the servo's position."""
        return self.bus.models[self.servo.id].rad_per_tick

    def hold(self) -> None:
        """Switch torque on where the servo is. Its watchdog stays off: keys may take long."""
        family = self.servo.place.family
        if self.joint is None:
            self.goal = hold_still(self.bus, family, self.servo.id, _SPEED_RAD_S)
            return
        slow = [s._replace(velocity_limit_rad_s=_SPEED_RAD_S) for s in self.joint.servos]
        holds = [read_hold(self.bus, family, servo) for servo in slow]
        self.goal = hold_all(self.bus, family, holds)[self.servo.id]

    def step(self, ticks: int, superseded: Callable[[], bool] = lambda: False) -> tuple[int, int]:
        """Move by `ticks` at the limited speed, within the range, and return (wanted, reached).

        The motion ends early once `superseded()`. A blocked servo stays where it got to. Raises
        BusError on an alarm.
        """
        wanted = max(self.low, min(self.high, self.goal + ticks))
        pace = max(round(_SPEED_RAD_S / self.rad_per_tick * _PERIOD_NS * 1e-9), 1)
        while self.goal != wanted:
            self.goal += max(-pace, min(pace, wanted - self.goal))
            reached = self._follow()
            if superseded():
                return wanted, reached
        end_ns = self.clock.now_ns() + round(_SETTLE_S * 1e9)
        while abs((reached := self._follow()) - wanted) > _NEAR_TICKS:
            if superseded():
                break
            if self.clock.now_ns() > end_ns:
                self.goal = max(self.low, min(self.high, reached))  # don't go on pushing
                self._follow()
                break
        return wanted, reached

    def _follow(self) -> int:
        """Send the goal, wait one period, and read the position."""
        start_ns, servo_id = self.clock.now_ns(), self.servo.id
        self.bus.write(servo_id, "goal_position", self.goal)
        self.clock.sleep_until_ns(start_ns + _PERIOD_NS)
        if status := self.bus.read(servo_id, "hardware_error_status"):
            describe = self.servo.place.family.describe_alarms
            raise BusError(f"id {servo_id}: hardware error: {describe(status)}")
        return self.bus.read(servo_id, "present_position")

    @property
    def torque(self) -> TorqueState:
        """What the servo says about its torque, on or off."""
        return "on" if self.bus.read(self.servo.id, "torque_enable") else "off"

    def let_go(self) -> None:
        """Switch torque off, in the shadow as well. Raises BusError if one does not confirm."""
        if faults := torque_off(self.bus, tuple(self.bus.models), {}):
            why = "; ".join(map(str, faults.values()))
            raise BusError(f"torque may still be on: {why}; cut its power")


@contextlib.contextmanager
def torque(mover: Mover) -> Iterator[None]:
    """Inside this context torque is on. A second Ctrl-C can't keep it from going off."""
    try:
        mover.hold()
        yield
    finally:
        with signals_held():
            mover.let_go()
