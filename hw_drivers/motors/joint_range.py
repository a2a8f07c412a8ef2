"""Finds a joint's range from the ticks read while a person moved it: pure functions.

After a full turn an encoder starts again at 0. If that seam lies in a joint's range, the position
jumps by a turn there (huggingface/lerobot#3586, #3587), so the range must not contain the seam.
"""

from __future__ import annotations

from dataclasses import dataclass

from hw_drivers.bus.registers import Model
from hw_drivers.family import Family
from v2a.errors import BusError

LEAST_SPAN_TICKS = 32  # about 3 degrees: with less, nobody moved the joint


@dataclass(slots=True)
class Sweep:
    """Where one joint is and has been, in ticks that go on counting across the seam."""

    turn: int  # ticks
    now: int
    low: int
    high: int

    @classmethod
    def begin(cls, turn: int, raw: int) -> Sweep:
        """Start at the first position read, on an encoder with `turn` ticks a turn."""
        return cls(turn, raw, raw, raw)

    def add(self, raw: int) -> None:
        """Add the next position. Raises BusError if it is too far off to tell the direction."""
        step = (raw - self.now + self.turn // 2) % self.turn - self.turn // 2
        if abs(step) > self.turn // 4:
            raise BusError(
                f"moved {abs(step)} ticks between two readings; move it slower, and check that no "
                "other servo has its id"
            )
        self.now += step
        self.low, self.high = min(self.low, self.now), max(self.high, self.now)

    @property
    def span(self) -> int:
        """Ticks from one end to the other."""
        return self.high - self.low


@dataclass(frozen=True, slots=True)
class Range:
    """The registers to write to the servo, and the ticks by which they shift all positions."""

    homing_offset: int | None
    low: int
    high: int
    shift: int


def place_range(model: Model, family: Family, sweep: Sweep, homing_offset: int) -> Range:
    """Place the range within one turn. `homing_offset` is the servo's value during the sweep.

    Raises BusError if the range is a turn or more, if the joint hardly moved, or if the range
    contains a seam that can't be moved.
    """
    turn, span = sweep.turn, sweep.span
    if span >= turn:
        raise BusError(
            f"its range is {span} ticks, a turn has {turn}: where in it the joint is can't be "
            "known after power on; add a stop, or sweep only what is used"
        )
    if span < LEAST_SPAN_TICKS:
        raise BusError(f"moved by {span} ticks only; move it from one end to the other")
    if "homing_offset" not in model.items:
        return Range(None, sweep.low, sweep.high, 0)
    if family.offset_moves_seam:
        _, largest = model.items["homing_offset"].limits or (0, 0)
        return _before_the_seam(sweep, homing_offset, largest)
    return _between_fixed_seams(sweep, homing_offset)


def _before_the_seam(sweep: Sweep, homing_offset: int, largest: int) -> Range:
    """Put the middle of the range opposite the seam, as far as an offset of +-`largest` can."""
    low = (sweep.turn - 1 - sweep.span) // 2
    wanted = (sweep.low + homing_offset - low + largest) % sweep.turn - largest
    offset = min(wanted, largest)
    low += wanted - offset
    if low + sweep.span >= sweep.turn:
        raise BusError(f"its range of {sweep.span} ticks can't be kept off the seam; narrow it")
    return Range(offset, low, low + sweep.span, low - sweep.low)


def _between_fixed_seams(sweep: Sweep, homing_offset: int) -> Range:
    """Use no offset: it would only move the range out of the position limits' one turn, and
    firmware mishandles it (ROBOTIS-GIT/DynamixelSDK#584)."""
    actual_low, actual_high = sweep.low - homing_offset, sweep.high - homing_offset
    turns = actual_low // sweep.turn
    if actual_high // sweep.turn != turns:
        before = (turns + 1) * sweep.turn - actual_low
        raise BusError(
            f"the encoder's seam lies in its range, {before} ticks from one end, "
            f"{sweep.span - before} from the other; put the joint in the middle of its range, "
            f"unscrew the horn, turn the servo to about tick {sweep.turn // 2} "
            "(v2a motors monitor), screw it on and calibrate again"
        )
    low = actual_low - turns * sweep.turn
    return Range(0, low, low + sweep.span, low - sweep.low)
