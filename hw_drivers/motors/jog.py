"""`v2a motors jog`: one servo in small steps, by key, slowly, and torque off at the end."""

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
from hw_drivers.robot.config import PROTOCOLS
from v2a.clock import Clock, MonotonicClock
from v2a.errors import BusError

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
    type=click.FloatRange(0.0, _LARGEST_STEP_RAD, min_open=True),
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

    It moves at 0.5 rad/s at most, and within its own position limits (v2a motors calibrate sets
    them). However this ends, torque goes off: hold what it carries.
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
    """The servo with this id. Raises BusError that lists those there are, and what is wrong."""
    if found.faults:
        raise BusError("\n".join(found.faults))
    for servo in found.servos:
        if servo.id == servo_id:
            return servo
    listed = "\n  ".join(map(str, found.servos))
    raise BusError(f"expected id {servo_id}, found:\n  {listed}")


def _ways() -> Iterator[int]:
    """Up or down at each key, until q or the end of the input."""
    while (key := click.getchar()) not in ("q", ""):
        if key in _KEYS:
            yield _KEYS[key]


@dataclass(slots=True)
class Mover:
    """One servo that goes to its goal step by step; `goal` in ticks within `low` and `high`."""

    bus: ServoBus
    servo: Servo
    clock: Clock
    goal: int
    low: int
    high: int

    @classmethod
    def find(cls, bus: ServoBus, servo: Servo, clock: Clock) -> Mover:
        """Where it is. Raises BusError where it may not be moved: alarm, other mode, out of range.
        Writes nothing."""
        model, protocol = bus.models[servo.id], PROTOCOLS[servo.place.protocol]
        if status := bus.read(servo.id, "hardware_error_status"):
            alarms = protocol.describe_alarms(status)
            raise BusError(f"id {servo.id}: hardware error: {alarms}; cut its power for a moment")
        if "operating_mode" in model.items:
            mode = bus.read(servo.id, "operating_mode")
            if mode != protocol.position_mode:
                raise BusError(
                    f"id {servo.id}: operating mode {mode}, expected {protocol.position_mode}; "
                    f"run {servo.setup_line}"
                )
        low, high = (bus.read(servo.id, f"{end}_position_limit") for end in ("min", "max"))
        if (low, high) == (0, 0):  # Feetech: no limits
            high = (model.items["max_position_limit"].limits or (0, 0))[1]
        present = bus.read(servo.id, "present_position")
        if not low <= present <= high:
            raise BusError(
                f"id {servo.id}: is at tick {present}, its limits are {low} to {high}; move it "
                "inside by hand, or calibrate it"
            )
        return cls(bus, servo, clock, present, low, high)

    @property
    def rad_per_tick(self) -> float:
        return self.bus.models[self.servo.id].items["present_position"].scale

    def hold(self) -> None:
        """Torque on where it is."""
        servo_id, items = self.servo.id, self.bus.models[self.servo.id].items
        if "bus_watchdog" in items:
            self.bus.write(servo_id, "bus_watchdog", 0)  # it waits for keys as long as it takes
        self.bus.write(servo_id, PROTOCOLS[self.servo.place.protocol].speed_register, self._speed())
        self.goal = self.bus.read(servo_id, "present_position")
        self.bus.write(servo_id, "goal_position", self.goal)
        self.bus.write(servo_id, "torque_enable", 1)

    def _speed(self) -> int:
        """The servo's own limit, besides the goal's pace: a servo that comes free won't leap."""
        items = self.bus.models[self.servo.id].items
        item = items[PROTOCOLS[self.servo.place.protocol].speed_register]
        speed = max(round(_SPEED_RAD_S / item.scale), 1)
        if "velocity_limit" in items:
            speed = min(speed, self.bus.read(self.servo.id, "velocity_limit"))
        return speed

    def step(self, ticks: int) -> tuple[int, int]:
        """Go by `ticks` at the limited speed, no further than the range: (wanted, reached). What
        does not get there stays where it is. Raises BusError on an alarm."""
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
        """Send the goal, wait a period, and read where it is."""
        start_ns, servo_id = self.clock.now_ns(), self.servo.id
        self.bus.write(servo_id, "goal_position", self.goal)
        self.clock.sleep_until_ns(start_ns + _PERIOD_NS)
        if status := self.bus.read(servo_id, "hardware_error_status"):
            describe = PROTOCOLS[self.servo.place.protocol].describe_alarms
            raise BusError(f"id {servo_id}: hardware error: {describe(status)}")
        return self.bus.read(servo_id, "present_position")

    def let_go(self) -> None:
        """Torque off. Raises BusError where the servo could not be told."""
        for tries_left in reversed(range(_TORQUE_OFF_TRIES)):
            try:
                self.bus.write(self.servo.id, "torque_enable", 0)
                return
            except BusError as error:
                if not tries_left:
                    raise BusError(f"torque may still be on: {error}; cut its power") from error


@contextlib.contextmanager
def torque(mover: Mover) -> Iterator[None]:
    """Torque on, in here; a further Ctrl-C can't keep it from going off."""
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
    """In here, what would kill the program ends it in order, with the shell's exit code."""
    before = {number: signal.signal(number, _end) for number in _ENDS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
