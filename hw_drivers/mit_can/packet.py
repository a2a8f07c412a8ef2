"""Frames of CAN motors in MIT mode (Damiao DM series) as pure functions of bytes.

Command, 8 bytes to the motor's CAN id, most significant bit first:

    position 16 bits | velocity 12 | kp 12 | kd 12 | torque 12

    torque_at_motor = kp * (position - is) + kd * (velocity - is) + torque

Feedback, 8 bytes from the motor's master id:

    state 4 bits, id 4 | position 16 | velocity 12 | torque 12 | MOSFET degC 8 | rotor degC 8

Each quantity is an unsigned number that spans a range set in the motor (registers PMAX, VMAX,
TMAX): a wrong range is a wrong torque, so read them from the motor before trusting the table.
A motor answers every frame sent to it, and only then. It has its own watchdog for silence on the
bus: register 9, TIMEOUT, in steps of 50 us.
Source: the packages damiao-motor 1.0.6 and lerobot, which follow Damiao's manual. No Damiao motor
was at hand.
"""

from __future__ import annotations

from dataclasses import dataclass

KP_MAX, KD_MAX = 500.0, 5.0  # Nm/rad and Nms/rad; the lower ends are 0
_SPECIAL = b"\xff" * 7  # followed by what to do
_BROADCAST_ID = 0x7FF

# State nibble of a feedback frame. All but the first two have taken the torque off.
STATES = {
    0x0: "disabled",
    0x1: "enabled",
    0x8: "overvoltage",
    0x9: "undervoltage",
    0xA: "overcurrent",
    0xB: "MOSFETs overheated",
    0xC: "rotor overheated",
    0xD: "lost communication",
    0xE: "overload",
}


@dataclass(frozen=True, slots=True)
class Ranges:
    """What the frames' numbers span: from minus each to plus each."""

    position_rad: float
    velocity_rad_s: float
    torque_nm: float


# As they leave the factory (PMAX, VMAX, TMAX). The sources disagree on others: the DM4340's VMAX
# is 8 in lerobot and 10 in damiao-motor.
MODELS = {
    "dm4310": Ranges(12.5, 30.0, 10.0),
    "dm8009": Ranges(12.5, 45.0, 54.0),
}


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a motor says of itself. `motor_id` is the lower 4 bits of its CAN id; `state` is a key
    of STATES. A position at an end of its range may be any position beyond it."""

    motor_id: int
    state: int
    position_rad: float
    velocity_rad_s: float
    torque_nm: float
    mosfet_degc: int
    rotor_degc: int


def make_command(
    ranges: Ranges,
    position_rad: float,
    velocity_rad_s: float,
    kp: float,
    kd: float,
    torque_nm: float,
) -> bytes:
    """The command frame. Raises ValueError for NaN and outside the ranges: a motor would take what
    was cut to fit for what was meant."""
    fields = (
        ("position_rad", position_rad, -ranges.position_rad, ranges.position_rad, 16),
        ("velocity_rad_s", velocity_rad_s, -ranges.velocity_rad_s, ranges.velocity_rad_s, 12),
        ("kp", kp, 0.0, KP_MAX, 12),
        ("kd", kd, 0.0, KD_MAX, 12),
        ("torque_nm", torque_nm, -ranges.torque_nm, ranges.torque_nm, 12),
    )
    packed = 0
    for name, value, low, high, bits in fields:
        if not low <= value <= high:
            raise ValueError(f"{name} must be from {low} to {high}, got {value}; limit it before")
        packed = packed << bits | int((value - low) * ((1 << bits) - 1) / (high - low))
    return packed.to_bytes(8, "big")


def make_enable() -> bytes:
    """Torque on, in MIT mode."""
    return _SPECIAL + b"\xfc"


def make_disable() -> bytes:
    """Torque off."""
    return _SPECIAL + b"\xfd"


def make_set_zero() -> bytes:
    """Make the present position 0, for good."""
    return _SPECIAL + b"\xfe"


def make_clear_error() -> bytes:
    """Forget a latched error; torque stays off."""
    return _SPECIAL + b"\xfb"


def make_refresh(motor_id: int) -> tuple[int, bytes]:
    """(CAN id, frame) that asks a motor for feedback without commanding it."""
    return _BROADCAST_ID, motor_id.to_bytes(2, "little") + b"\xcc" + bytes(5)


def parse_feedback(ranges: Ranges, data: bytes) -> Feedback | None:
    """The feedback in a frame's data; None where it is not one."""
    if len(data) != 8:
        return None
    position, velocity, torque = (
        int.from_bytes(data[1:3], "big"),
        data[3] << 4 | data[4] >> 4,
        (data[4] & 0xF) << 8 | data[5],
    )
    return Feedback(
        motor_id=data[0] & 0xF,
        state=data[0] >> 4,
        position_rad=_spread(position, 16, ranges.position_rad),
        velocity_rad_s=_spread(velocity, 12, ranges.velocity_rad_s),
        torque_nm=_spread(torque, 12, ranges.torque_nm),
        mosfet_degc=data[6],
        rotor_degc=data[7],
    )


def _spread(raw: int, bits: int, end: float) -> float:
    """The number that `raw` of so many bits stands for, between -end and end."""
    return raw * 2 * end / ((1 << bits) - 1) - end
