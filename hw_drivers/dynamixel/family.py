"""The record of the Dynamixel X series, which speaks Protocol 2.0."""

from __future__ import annotations

from typing import Final

from hw_drivers.dynamixel import packet
from hw_drivers.dynamixel.bus import DynamixelBus
from hw_drivers.dynamixel.models import (
    BAUD_RATES,
    CURRENT_POSITION_MODE,
    NO_SECONDARY_ID,
    POSITION_MODE,
    REVERSE_BIT,
    TABLES,
    WATCHDOG_TICK_S,
    WATCHDOG_TRIPPED,
    describe_hardware_error,
)
from hw_drivers.dynamixel.virtual_bus import VirtualDynamixelBus
from hw_drivers.dynamixel.virtual_servo import VirtualDynamixel
from hw_drivers.family import Family, Packets, Role, Setting, Watchdog

_CURRENT_LIMITED = CURRENT_POSITION_MODE, "current-based position mode, for `current_limit_a`"


def _shadow(role: Role) -> tuple[int, str] | None:
    return None if role.shadow_of is None else (role.shadow_of, "the id of its joint's servo")


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
        Setting(
            "operating_mode",
            POSITION_MODE,
            "position mode; a joint in mode 5 needs a `current_limit_a`",
            of_role=lambda role: _CURRENT_LIMITED if role.current_limited else None,
        ),
        # e-manual, "Drive Mode(10)": bit 0 reverses the direction. Bit 2 turns profile_velocity
        # into a time, bit 3 lets a goal switch torque on.
        Setting(
            "drive_mode",
            0,
            "speed as a velocity, torque by command",
            ~REVERSE_BIT,
            mirrors=REVERSE_BIT,
        ),
        # e-manual, "Secondary(Shadow) ID(12)": a servo obeys the commands to this id, too, and
        # does not answer them. Values above 252 mean none.
        Setting(
            "secondary_id",
            NO_SECONDARY_ID,
            "obeys no id but its own",
            also=range(packet.MAX_ID + 1, NO_SECONDARY_ID + 1),
            of_role=_shadow,
        ),
        # e-manual, "Velocity Limit(44)" and "PWM Limit(36)": with 0 the servo does not move. A
        # speed of 0 in profile_velocity, which may not exceed the limit, means no limit at all.
        # 128 is the lowest factory limit of any model: 3.1 rad/s.
        Setting("velocity_limit", 128, "not 0: it may move", also=range(1, 1 << 31)),
        Setting("pwm_limit", 885, "not 0: it may push", also=range(1, 886)),
        # e-manual, "Startup Configuration(60)": bit 0 switches torque on at power-up, before any
        # watchdog is armed; bit 1 restores the RAM.
        Setting("startup_configuration", 0, "torque stays off after a restart"),
    ),
    answer_settings=(
        Setting("return_delay_time", 0, "answer at once", required=False),
        Setting("status_return_level", 2, "answer every request"),
    ),
    lock_register=None,  # the EEPROM is open whenever torque is off
    offset_moves_seam=False,  # e-manual, "Homing Offset(20)"
    alarm_bits=packet.ALERT_BIT,
    describe_alarms=describe_hardware_error,
    virtual_servo=VirtualDynamixel,
    virtual_bus=VirtualDynamixelBus,
)
