"""A joint's range, from the ticks that were read while a person moved it: pure functions.

An encoder starts again at 0 after a turn. Where that seam falls into a joint's range, its position
jumps by a turn (huggingface/lerobot#3586, #3587); so it has to lie outside.
"""

from __future__ import annotations

from dataclasses import dataclass

from hw_drivers.bus.registers import Model
from hw_drivers.feetech.models import STS_TICKS_PER_TURN
from v2a.errors import BusError

LEAST_SPAN_TICKS = 32  # about 3 degrees: less than that is a joint that nobody moved


@dataclass(slots=True)
class Sweep:
    """Where one joint is and has been, in ticks counted on over the seam."""

    turn: int  # ticks
    now: int
    low: int
    high: int

    @classmethod
    def begin(cls, turn: int, raw: int) -> Sweep:
        """At the first position that was read."""
        return cls(turn, raw, raw, raw)

    def add(self, raw: int) -> None:
        """The next position. Raises BusError where it is too far to know which way it went."""
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
    """What to write to the servo, and by how many ticks it moves all positions."""

    homing_offset: int | None
    low: int
    high: int
    shift: int


def place_range(model: Model, sweep: Sweep, homing_offset: int) -> Range:
    """The range within one turn. `homing_offset` is what the servo had during the sweep.

    Raises BusError where the range is a turn or more, nothing at all, or holds a seam that can't be
    moved.
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
    place = _before_the_seam if _wraps_after_offset(model) else _between_fixed_seams
    return place(sweep, homing_offset)


def _wraps_after_offset(model: Model) -> bool:
    """Feetech: present = (actual - offset) in one turn, so the offset moves the seam. Dynamixel:
    present = actual + offset, with the seam where the encoder has it."""
    return model.items["homing_offset"].sign_bit is not None


def _before_the_seam(sweep: Sweep, homing_offset: int) -> Range:
    """The middle of the range opposite the seam, as far as the offset's 11 bits allow."""
    largest = STS_TICKS_PER_TURN // 2 - 1
    low = (sweep.turn - 1 - sweep.span) // 2
    wanted = (sweep.low + homing_offset - low + largest) % sweep.turn - largest
    offset = min(wanted, largest)
    low += wanted - offset
    if low + sweep.span >= sweep.turn:
        raise BusError(f"its range of {sweep.span} ticks can't be kept off the seam; narrow it")
    return Range(offset, low, low + sweep.span, low - sweep.low)


def _between_fixed_seams(sweep: Sweep, homing_offset: int) -> Range:
    """Without any offset: it would only move the range out of the position limits' 0..4095, and
    firmware has trouble with it (ROBOTIS-GIT/DynamixelSDK#584)."""
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
