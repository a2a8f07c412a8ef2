"""The record of the Feetech STS, SMS and SCS servos."""

from __future__ import annotations

from typing import Final

from hw_drivers.bus.wire import Parser
from hw_drivers.family import Family, Packets, Setting
from hw_drivers.feetech import packet
from hw_drivers.feetech.bus import FeetechBus
from hw_drivers.feetech.models import BAUD_RATES, MULTI_TURN_PHASE_BIT, POSITION_MODE, TABLES
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
        # With this bit, present_position counts turns instead of wrapping.
        Setting("phase", 0, "position within one turn", MULTI_TURN_PHASE_BIT),
    ),
    answer_settings=(
        Setting("return_delay_time", 0, "answer at once"),
        Setting("status_return_level", 1, "answer every request"),
    ),
    lock_register="lock",
    offset_moves_seam=True,
    alarm_bits=0xFF,
    describe_alarms=packet.describe_alarms,
    virtual_servo=VirtualFeetech,
    virtual_bus=VirtualFeetechBus,
)
