"""Torque on without a jump, for one servo or for all of a robot at once."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from hw_drivers.bus.block import BlockReading
from hw_drivers.bus.bus import ServoBus
from hw_drivers.family import Family
from hw_drivers.robot.config import ServoConfig
from v2a.errors import BusError, PortError

# What a servo has confirmed about its torque; unknown is everything else.
TorqueState = Literal["on", "off", "unknown"]

_PATIENCE_S = 0.1  # for a reading while arming: some adapters hold an answer back for 16 ms
_TORQUE_OFF_TRIES = 3  # a byte lost to noise must not leave a joint stiff


@dataclass(frozen=True, slots=True)
class Hold:
    """How to hold one servo.

    `registers` are written before torque comes on: name -> raw value. `low` and `high` are the
    servo's own position limits in ticks. `watchdog` is the value that arms its watchdog, 0 to leave
    it off. A shadow `follows`: it gets its goals through the id of another servo.
    """

    id: int
    registers: Mapping[str, int]
    low: int
    high: int
    watchdog: int = 0
    follows: bool = False

    def goal(self, tick: int) -> int:
        """`tick`, moved to the nearest one that the servo accepts. (0, 0) means no limits."""
        return min(max(tick, self.low), self.high) if self.low < self.high else tick


def read_hold(bus: ServoBus, family: Family, servo: ServoConfig, watchdog: int = 0) -> Hold:
    """Read what `Hold` has to know about the servo. Raises BusError if it does not answer."""
    speed = _speed(bus, family, servo.id, servo.velocity_limit_rad_s)
    registers = {family.speed_register: speed}
    if (current := servo.goal_current) is not None:
        registers["goal_current"] = current
    low, high = position_limits(bus, servo.id)
    return Hold(servo.id, registers, low, high, watchdog, servo.role.shadow_of is not None)


def position_limits(bus: ServoBus, servo_id: int) -> tuple[int, int]:
    """The servo's own lowest and highest position, in ticks."""
    low, high = (bus.read(servo_id, f"{end}_position_limit") for end in ("min", "max"))
    return low, high


def _speed(bus: ServoBus, family: Family, servo_id: int, speed_rad_s: float) -> int:
    """`speed_rad_s` in the servo's unit, rounded up: 0 would mean no limit."""
    items = bus.models[servo_id].items
    speed = math.ceil(speed_rad_s / items[family.speed_register].scale)
    if family.speed_limit_register in items:
        speed = min(speed, bus.read(servo_id, family.speed_limit_register))
    return speed


def hold_still(bus: ServoBus, family: Family, servo_id: int, speed_rad_s: float) -> int:
    """Switch torque on where the servo is, with its watchdog off, and return that tick.

    From then on the servo moves to a goal no faster than `speed_rad_s`, also when it was blocked
    and comes free. Raises BusError if the servo refuses or does not answer.
    """
    registers = {family.speed_register: _speed(bus, family, servo_id, speed_rad_s)}
    hold = Hold(servo_id, registers, *position_limits(bus, servo_id))
    return hold_all(bus, family, [hold])[servo_id]


def hold_all(
    bus: ServoBus, family: Family, holds: Sequence[Hold], poll: Callable[[], None] = lambda: None
) -> dict[int, int]:
    """Switch torque on in all servos where they are. Returns id -> the goal in the servo, in ticks.

    All servos get each value by one request, and one reading confirms it, so that arming takes four
    round trips. `poll` is called between them, and raises to break off. The caller then switches
    torque off. Raises BusError if a servo refuses or does not answer.
    """
    arming = _Arming(bus, family, holds)
    poll()
    # A lost request must not let a servo jump to an old goal. So each servo first confirms a goal
    # where it stands. It gets a newer one together with torque, as it may have moved on.
    arming.prepare(arming.read("present_position"))
    poll()
    arming.torque_on(arming.confirm_prepared())
    poll()
    arming.confirm_torque()
    poll()
    goals = arming.start_watchdogs()
    poll()
    return goals


def torque_off(
    bus: ServoBus, ids: tuple[int, ...], states: dict[int, TorqueState]
) -> dict[int, BusError]:
    """Switch torque off in all servos that can be reached, and read it back.

    Keeps what each servo said in `states`. Returns id -> why that servo did not confirm.
    """
    faults: dict[int, BusError] = {}
    with contextlib.suppress(BusError):  # the writes below report it
        # All at once, before waiting for any answer.
        bus.sync_write("torque_enable", ids, [0] * len(ids))
    for _ in range(_TORQUE_OFF_TRIES):
        faults = {i: fault for i in ids if (fault := _let_go(bus, i, states))}
        ids = tuple(faults)
    return faults


def _let_go(bus: ServoBus, servo_id: int, states: dict[int, TorqueState]) -> BusError | None:
    """Switch torque off and read it back. Return why that failed, None if torque is off.

    What is read decides: some servos are set up to answer no writes.
    """
    unheard: BusError | None = None
    try:
        bus.write(servo_id, "torque_enable", 0)
    except PortError as gone:
        states[servo_id] = "unknown"
        return gone
    except BusError as fault:
        unheard = fault
    try:
        torque = bus.read(servo_id, "torque_enable")
    except BusError as fault:
        states[servo_id] = "unknown"
        return unheard or fault
    states[servo_id] = "on" if torque else "off"
    return (unheard or BusError("the servo keeps torque on")) if torque else None


class _Arming:
    """The steps of `hold_all`."""

    def __init__(self, bus: ServoBus, family: Family, holds: Sequence[Hold]) -> None:
        self._bus = bus
        self._holds = holds
        self._ids = tuple(hold.id for hold in holds)
        self._reader = bus.reader(self._ids)
        self._watchdog = family.watchdog.register if family.watchdog else ""
        self._written: dict[str, dict[int, int]] = {}

    def read(self, *names: str) -> BlockReading:
        there = [n for n in names if any(n in self._bus.models[i].items for i in self._ids)]
        return self._reader.read(
            self._bus.block(there, self._ids), max(_PATIENCE_S, self._bus.timeout_s)
        )

    def prepare(self, found: BlockReading) -> None:
        # A tripped watchdog would refuse the goals.
        self._write(self._watchdog, {hold.id: 0 for hold in self._holds})
        for name in {name: 0 for hold in self._holds for name in hold.registers}:
            values = {h.id: h.registers[name] for h in self._holds if name in h.registers}
            self._write(name, values)
        self._write_goals(found)

    def confirm_prepared(self) -> BlockReading:
        found = self.read(*self._written, "present_position")
        self._confirm(found)
        return found

    def torque_on(self, found: BlockReading) -> None:
        self._written.clear()
        self._write_goals(found)
        self._write("torque_enable", dict.fromkeys(self._ids, 1))

    def confirm_torque(self) -> None:
        found = self.read("torque_enable").raw("torque_enable").tolist()
        for servo_id, torque in zip(self._ids, found, strict=True):
            if torque != 1:
                self._bus.write(servo_id, "torque_enable", 1)  # says why the servo refuses

    def start_watchdogs(self) -> dict[int, int]:
        self._write(self._watchdog, {h.id: h.watchdog for h in self._holds if h.watchdog})
        del self._written["goal_position"], self._written["torque_enable"]
        found = self.read(*self._written, "goal_position")
        self._confirm(found)
        goals = zip(self._holds, found.raw("goal_position").tolist(), found.valid, strict=True)
        return {
            hold.id: goal if valid else self._bus.read(hold.id, "goal_position")
            for hold, goal, valid in goals
        }

    def _write_goals(self, found: BlockReading) -> None:
        ticks = zip(self._holds, found.raw("present_position").tolist(), found.valid, strict=True)
        goals = {
            hold.id: hold.goal(tick if valid else self._bus.read(hold.id, "present_position"))
            for hold, tick, valid in ticks
            if not hold.follows
        }
        self._write("goal_position", goals)

    def _write(self, name: str, values: Mapping[int, int]) -> None:
        """Write to those servos that have the register."""
        known = {i: raw for i, raw in values.items() if name in self._bus.models[i].items}
        if known:
            self._bus.sync_write(name, tuple(known), list(known.values()))
            self._written[name] = known

    def _confirm(self, found: BlockReading) -> None:
        """Write again, one by one, what a servo did not take. Then it says why it refuses."""
        for name, values in self._written.items():
            is_now = dict(zip(self._ids, found.raw(name).tolist(), strict=True))
            for servo_id, raw in values.items():
                if is_now[servo_id] != raw:
                    self._bus.write(servo_id, name, raw)
