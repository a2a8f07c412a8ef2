"""`v2a motors jog`: moves one servo slowly, in small steps by key; torque goes off at the end."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Final, NoReturn

import click

from hw_drivers.bus.bus import ServoBus
from hw_drivers.motors import options
from hw_drivers.motors.find import Look, Servo, find_first, open_bus
from hw_drivers.motors.settings import needed_changes
from hw_drivers.robot.torque import hold_still
from v2a.clock import Clock, MonotonicClock
from v2a.errors import BusError
from v2a.option_types import FiniteRange

_SPEED_RAD_S: Final = 0.5  # as fast as a hand can be taken away
_LARGEST_STEP_RAD: Final = 0.2
_PERIOD_NS: Final = 20_000_000
_SETTLE_S: Final = 1.0  # for the last bit of the way
_NEAR_TICKS: Final = 8
_TORQUE_OFF_TRIES: Final = 3
_KEYS: Final = {"+": 1, "=": 1, "-": -1}  # = is + without shift
_ENDS: Final = (signal.SIGTERM, signal.SIGHUP)


@click.command()
@options.port
@click.option("--id", "servo_id", type=click.IntRange(0, 253), required=True, help="Which servo.")
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
@options.protocol
@options.baud
def jog(
    port: str, servo_id: int, step_rad: float, arm: bool, protocol: str | None, baud: int | None
) -> None:
    """Move one servo by the keys + and -; q ends it.

    The servo moves at 0.5 rad/s at most, and within its own position limits, which
    `v2a motors calibrate` sets. However this ends, torque goes off: hold what the servo carries.
    """
    clock = MonotonicClock()
    servo = pick(find_first(port, protocol, baud, clock), servo_id)
    with contextlib.closing(open_bus([servo], clock)) as bus:
        mover = Mover.find(bus, servo, clock)
        click.echo(f"{servo}; at tick {mover.goal}, range {mover.low} to {mover.high}")
        if not arm:
            click.echo("torque stays off; --arm to move it")
            return
        click.echo(f"+ and - move it by {step_rad} rad, q ends")
        with _signals_end_it(), torque(mover):
            for way in _ways():
                wanted, reached = mover.step(round(way * step_rad / mover.rad_per_tick))
                note = (
                    "" if abs(reached - wanted) <= _NEAR_TICKS else f", wanted {wanted}: blocked?"
                )
                click.echo(f"tick {reached}{note}")
    click.echo("torque is off")


def pick(found: Look, servo_id: int) -> Servo:
    """The servo with this id. Raises BusError that lists the servos found, or their faults."""
    if found.faults:
        raise BusError("\n".join(found.faults))
    for servo in found.servos:
        if servo.id == servo_id:
            return servo
    listed = "\n  ".join(map(str, found.servos))
    raise BusError(f"expected id {servo_id}, found:\n  {listed}")


def _ways() -> Iterator[int]:
    """Yield 1 or -1 for each key, until q or the end of the input."""
    while (key := click.getchar()) not in ("q", ""):
        if key in _KEYS:
            yield _KEYS[key]


@dataclass(slots=True)
class Mover:
    """Moves one servo step by step. `goal` is in ticks, from `low` to `high`."""

    bus: ServoBus
    servo: Servo
    clock: Clock
    goal: int
    low: int
    high: int

    @classmethod
    def find(cls, bus: ServoBus, servo: Servo, clock: Clock) -> Mover:
        """Read where the servo is, and write nothing.

        Raises BusError if it can't be moved: it has an alarm, a wrong setting, or is out of range.
        """
        model, family = bus.models[servo.id], servo.place.family
        if status := bus.read(servo.id, "hardware_error_status"):
            alarms = family.describe_alarms(status)
            raise BusError(f"id {servo.id}: hardware error: {alarms}; cut its power for a moment")
        positions = {setting.register for setting in family.position_settings}
        for name, now, wanted in needed_changes(bus, family, servo.id):
            if name in positions:
                raise BusError(
                    f"id {servo.id}: {name} {now}, expected {wanted}; run {servo.setup_line}"
                )
        low, high = (bus.read(servo.id, f"{end}_position_limit") for end in ("min", "max"))
        if (low, high) == (0, 0):  # on a Feetech servo: no limits
            high = model.turn_ticks - 1
        present = bus.read(servo.id, "present_position")
        if not low <= present <= high:
            raise BusError(
                f"id {servo.id}: is at tick {present}, its limits are {low} to {high}; move it "
                "inside by hand, or calibrate it"
            )
        return cls(bus, servo, clock, present, low, high)

    @property
    def rad_per_tick(self) -> float:
        """Radians per tick of the servo's position."""
        return self.bus.models[self.servo.id].rad_per_tick

    def hold(self) -> None:
        """Switch torque on where the servo is. Its watchdog stays off: keys may take long."""
        self.goal = hold_still(self.bus, self.servo.place.family, self.servo.id, _SPEED_RAD_S)

    def step(self, ticks: int) -> tuple[int, int]:
        """Move by `ticks` at the limited speed, within the range, and return (wanted, reached).

        A blocked servo stays where it got to. Raises BusError on an alarm.
        """
        wanted = max(self.low, min(self.high, self.goal + ticks))
        pace = max(round(_SPEED_RAD_S / self.rad_per_tick * _PERIOD_NS * 1e-9), 1)
        while self.goal != wanted:
            self.goal += max(-pace, min(pace, wanted - self.goal))
            self._follow()
        end_ns = self.clock.now_ns() + round(_SETTLE_S * 1e9)
        while abs((reached := self._follow()) - wanted) > _NEAR_TICKS:
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

    def let_go(self) -> None:
        """Switch torque off. Raises BusError if the servo does not confirm."""
        for tries_left in reversed(range(_TORQUE_OFF_TRIES)):
            try:
                self.bus.write(self.servo.id, "torque_enable", 0)
                return
            except BusError as error:
                if not tries_left:
                    raise BusError(f"torque may still be on: {error}; cut its power") from error


@contextlib.contextmanager
def torque(mover: Mover) -> Iterator[None]:
    """Inside this context torque is on. A second Ctrl-C can't keep it from going off."""
    try:
        mover.hold()
        yield
    finally:
        held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *_ENDS})
        try:
            mover.let_go()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)


@contextlib.contextmanager
def _signals_end_it() -> Iterator[None]:
    """Inside this context a deadly signal ends the program in order, with the shell's exit code."""
    before = {number: signal.signal(number, _end) for number in _ENDS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
