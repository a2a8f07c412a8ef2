"""The record of the Feetech STS, SMS and SCS servos."""

from __future__ import annotations

from typing import Final

from hw_drivers.bus.wire import Parser
from hw_drivers.family import Family, Packets, Setting
from hw_drivers.feetech import packet
from hw_drivers.feetech.bus import FeetechBus
from hw_drivers.feetech.models import (
    BAUD_RATES,
    FINE_SPEED_PHASE_BIT,
    MIRROR_PHASE_BITS,
    MULTI_TURN_PHASE_BIT,
    POSITION_MODE,
    TABLES,
)
from hw_drivers.feetech.virtual_bus import VirtualFeetechBus
from hw_drivers.feetech.virtual_servo import VirtualFeetech


def _parser(request: bytes) -> Parser:
    """Only a read's answer carries data: as many bytes as the request's second parameter says."""
    return packet.StatusParser(request[6] if request[4] == packet.READ else 0)


FAMILY: Final = Family(
    tables=TABLES,
    bus=FeetechBus,
    packets=Packets(
        max_id=packet.MAX_ID,
        make_ping=packet.make_ping,
        make_sync_write=packet.make_sync_write,
        make_status=packet.make_status,
        parser=_parser,
    ),
    baud_codes=BAUD_RATES,
    cycle_registers=("present_position",),
    speed_register="goal_velocity",
    speed_limit_register=None,
    watchdog=None,  # a servo whose host died holds its last goal
    position_settings=(
        Setting("operating_mode", POSITION_MODE, "position mode"),
        # Bit 4 makes present_position count turns instead of wrapping. Without bit 2, the unit of
        # goal_velocity is 50 times larger.
        Setting(
            "phase",
            FINE_SPEED_PHASE_BIT,
            "position within one turn, speed in steps per second",
            MULTI_TURN_PHASE_BIT | FINE_SPEED_PHASE_BIT,
            mirrors=MIRROR_PHASE_BITS,
        ),
        Setting("angular_resolution", 1, "one tick for each step of the encoder"),
        Setting("max_torque_limit", 1000, "not 0: it may push", also=range(1, 1001)),
    ),
    answer_settings=(
        Setting("return_delay_time", 0, "answer at once", required=False),
        Setting("status_return_level", 1, "answer every request"),
    ),
    lock_register="lock",
    offset_moves_seam=True,
    alarm_bits=0xFF,
    describe_alarms=packet.describe_alarms,
    virtual_servo=VirtualFeetech,
    virtual_bus=VirtualFeetechBus,
)
