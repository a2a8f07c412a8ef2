"""The record of the Dynamixel X series, which speaks Protocol 2.0."""

from __future__ import annotations

from typing import Final

from hw_drivers.dynamixel import packet
from hw_drivers.dynamixel.bus import DynamixelBus
from hw_drivers.dynamixel.models import (
    BAUD_RATES,
    POSITION_MODE,
    TABLES,
    WATCHDOG_TICK_S,
    WATCHDOG_TRIPPED,
    describe_hardware_error,
)
from hw_drivers.dynamixel.virtual_bus import VirtualDynamixelBus
from hw_drivers.dynamixel.virtual_servo import VirtualDynamixel
from hw_drivers.family import Family, Packets, Setting, Watchdog

_DIRECTION_BIT = 1 << 0  # of drive_mode

FAMILY: Final = Family(
    tables=TABLES,
    bus=DynamixelBus,
    packets=Packets(
        max_id=packet.MAX_ID,
        make_ping=packet.make_ping,
        make_sync_write=packet.make_sync_write,
        make_status=packet.make_status,
        parser=lambda _: packet.StatusParser(),
    ),
    baud_codes=BAUD_RATES,
    cycle_registers=("present_position", "present_current"),
    speed_register="profile_velocity",
    speed_limit_register="velocity_limit",
    # e-manual, "Bus Watchdog(98)".
    watchdog=Watchdog("bus_watchdog", WATCHDOG_TICK_S, longest=127, tripped=WATCHDOG_TRIPPED),
    position_settings=(
        Setting("operating_mode", POSITION_MODE, "position mode"),
        # e-manual, "Drive Mode(10)": bit 0 reverses the direction and may stay. Bit 2 turns
        # profile_velocity into a time, bit 3 lets a goal switch torque on.
        Setting("drive_mode", 0, "speed as a velocity, torque by command", ~_DIRECTION_BIT),
    ),
    answer_settings=(
        Setting("return_delay_time", 0, "answer at once"),
        Setting("status_return_level", 2, "answer every request"),
    ),
    lock_register=None,  # the EEPROM is open whenever torque is off
    offset_moves_seam=False,  # e-manual, "Homing Offset(20)"
    alarm_bits=packet.ALERT_BIT,
    describe_alarms=describe_hardware_error,
    virtual_servo=VirtualDynamixel,
    virtual_bus=VirtualDynamixelBus,
)
