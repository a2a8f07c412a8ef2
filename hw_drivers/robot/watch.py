"""What each cycle reads besides positions, and what shows that a servo lost its torque.

A servo that restarts comes back without torque, without a watchdog and without a limit to its
speed. It answers as before, so only these registers tell. Another program on the bus may change
them, too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hw_drivers.bus.block import NO_RAW, Block, BlockReading
from hw_drivers.bus.bus import ServoBus
from hw_drivers.family import Family, Watchdog
from hw_drivers.robot.config import ServoConfig
from hw_drivers.robot.health import HEALTH_REGISTERS
from hw_drivers.robot.torque import Hold, TorqueState
from v2a.errors import BusError

CYCLES = 10  # what warms up or runs down takes seconds
_HEALTH_AT, _GUARDS_AT = 0, (3, 5, 7)
# A request of its own costs about as much time as so many bytes more from each servo.
_OWN_REQUEST_BYTES = 24

LOST_TORQUE = "lost its torque: it restarted or was switched off; check its power and cables"
STOPPED_ITSELF = "stopped itself: its watchdog heard no request for too long"
LOST_LIMIT = "lost its limit: {} is {} instead of {}; it restarted, or another program wrote to it"
LOST_WATCHDOG = "lost its watchdog: it restarted; check its power and cables"


class Turn(NamedTuple):
    """What one of `CYCLES` cycles reads: a block with the positions, and another block or None.

    `health` and `guards`: whether the first block has voltages, or registers that must hold.
    """

    block: Block
    extra: Block | None = None
    health: bool = False
    guards: bool = False


def plan_cycles(bus: ServoBus, family: Family, holds: Sequence[Hold]) -> tuple[Turn, ...]:
    """Spread health, torque, the limits of `holds` and watchdog over `CYCLES` cycles.

    Raises BusError if the servos do not share the registers of a block.
    """
    cycle, ids = family.cycle_registers, tuple(hold.id for hold in holds)
    turns = [Turn(_block(bus, cycle, ids))] * CYCLES
    whole = _block(bus, (*cycle, *HEALTH_REGISTERS.values()), ids)
    turns[_HEALTH_AT] = Turn(whole, health=True)
    for at, names in zip(_GUARDS_AT, _guards(family, holds), strict=True):
        if any(name in bus.models[i].items for name in names for i in ids):
            plain, together = turns[at].block, _block(bus, (*cycle, *names), ids)
            apart = together.size - plain.size > _OWN_REQUEST_BYTES
            alone = Turn(plain, _block(bus, names, ids))
            turns[at] = alone if apart else Turn(together, guards=True)
    return tuple(turns)


def _guards(family: Family, holds: Sequence[Hold]) -> tuple[tuple[str, ...], ...]:
    """The registers that must hold while torque is on; those of a group are read together."""
    limits = dict.fromkeys(name for hold in holds for name in hold.registers)
    return ("torque_enable",), tuple(limits), (family.watchdog.register if family.watchdog else "",)


def _block(bus: ServoBus, names: Sequence[str], ids: tuple[int, ...]) -> Block:
    models = [bus.models[servo_id] for servo_id in ids]
    known = [name for name in dict.fromkeys(names) if any(name in m.items for m in models)]
    return bus.block(known, ids)


def torque_states(servos: Sequence[ServoConfig], found: BlockReading) -> dict[int, TorqueState]:
    """Servo id -> what it says about its torque in `found`, which has that register."""
    raws = found.raw("torque_enable").tolist()
    return {servo.id: _state(raw) for servo, raw in zip(servos, raws, strict=True)}


def _state(raw: int) -> TorqueState:
    if raw == NO_RAW:
        return "unknown"
    return "on" if raw else "off"


def losses(
    bus: ServoBus, family: Family, found: BlockReading, holds: Sequence[Hold]
) -> Iterator[tuple[int, str]]:
    """Yield (servo's place, what it lost) for servos that `holds` gave torque.

    Each loss is confirmed by a request to that servo alone: it ends the run, and a late answer to
    another request must not look like one.
    """
    for name in (name for names in _guards(family, holds) for name in names if name in found.block):
        for at, (hold, raw) in enumerate(zip(holds, found.raw(name).tolist(), strict=True)):
            if _loss(family.watchdog, name, raw, hold):
                with contextlib.suppress(BusError):  # a silent servo is a fault of its own
                    if text := _loss(family.watchdog, name, bus.read(hold.id, name), hold):
                        yield at, text


def _loss(watchdog: Watchdog | None, name: str, raw: int, hold: Hold) -> str:
    """What a servo lost whose register `name` reads `raw`; '' if nothing."""
    if raw == NO_RAW:
        return ""
    if name == "torque_enable":
        return "" if raw else LOST_TORQUE
    if name in hold.registers:
        wanted = hold.registers[name]
        return "" if raw == wanted else LOST_LIMIT.format(name, raw, wanted)
    if watchdog is None or name != watchdog.register or raw == hold.watchdog:
        return ""
    return STOPPED_ITSELF if raw == watchdog.tripped else LOST_WATCHDOG
