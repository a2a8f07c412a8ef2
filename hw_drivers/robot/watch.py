"""What each cycle reads besides positions, and what shows that a servo lost its torque.

A servo that restarts comes back without torque, without a watchdog and without a limit to its
speed. It answers as before, so only these registers tell.
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
from hw_drivers.robot.torque import TorqueState
from v2a.errors import BusError

CYCLES = 10  # what warms up or runs down takes seconds
_HEALTH_AT, _GUARDS_AT = 0, (3, 7)
# A request of its own costs about as much time as so many bytes more from each servo.
_OWN_REQUEST_BYTES = 24

LOST_TORQUE = "lost its torque: it restarted or was switched off; check its power and cables"
STOPPED_ITSELF = "stopped itself: its watchdog heard no request for too long"
LOST_WATCHDOG = "lost its watchdog: it restarted; check its power and cables"


class Turn(NamedTuple):
    """What one of `CYCLES` cycles reads: a block with the positions, and another block or None.

    `health` and `guards`: whether the first block has voltages, or torque or watchdogs.
    """

    block: Block
    extra: Block | None = None
    health: bool = False
    guards: bool = False


def plan_cycles(bus: ServoBus, family: Family, ids: tuple[int, ...]) -> tuple[Turn, ...]:
    """Spread health, torque and watchdog over `CYCLES` cycles.

    Raises BusError if the servos do not share the registers of a block.
    """
    cycle = family.cycle_registers
    turns = [Turn(_block(bus, cycle, ids))] * CYCLES
    whole = _block(bus, (*cycle, *HEALTH_REGISTERS.values()), ids)
    turns[_HEALTH_AT] = Turn(whole, health=True)
    guards = ["torque_enable", *([family.watchdog.register] if family.watchdog else [])]
    for at, guard in zip(_GUARDS_AT, guards, strict=False):
        if any(guard in bus.models[i].items for i in ids):
            plain, together = turns[at].block, _block(bus, (*cycle, guard), ids)
            apart = together.size - plain.size > _OWN_REQUEST_BYTES
            alone = Turn(plain, _block(bus, (guard,), ids))
            turns[at] = alone if apart else Turn(together, guards=True)
    return tuple(turns)


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
    bus: ServoBus, family: Family, found: BlockReading, servos: Sequence[ServoConfig], units: int
) -> Iterator[tuple[int, str]]:
    """Yield (servo's place, what it lost) for servos that should have torque.

    `units` is the value of an armed watchdog. Each loss is confirmed by a request to that servo
    alone: it ends the run, and a late answer to another request must not look like one.
    """
    watchdog = family.watchdog
    for name in ("torque_enable", watchdog.register if watchdog else ""):
        if name not in found.block:
            continue
        for at, raw in enumerate(found.raw(name).tolist()):
            if _loss(watchdog, name, raw, units):
                with contextlib.suppress(BusError):  # a silent servo is a fault of its own
                    if text := _loss(watchdog, name, bus.read(servos[at].id, name), units):
                        yield at, text


def _loss(watchdog: Watchdog | None, name: str, raw: int, units: int) -> str:
    """What a servo lost whose register `name` reads `raw`; '' if nothing."""
    if raw == NO_RAW:
        return ""
    if name == "torque_enable":
        return "" if raw else LOST_TORQUE
    if watchdog and raw == watchdog.tripped:
        return STOPPED_ITSELF
    return "" if raw == units else LOST_WATCHDOG
