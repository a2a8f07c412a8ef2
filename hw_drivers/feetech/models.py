"""Memory tables of the Feetech models: address, range and unit of every register.

Sources: Feetech, "SMS/STS memory table" (FT-SMS-STS-emanual) and the SCS memory table. Where they
leave a sign or an address open, the constants come from both vendor SDKs and from rustypot. A
register with the same meaning as on a Dynamixel has the same name. Registers that v2a neither reads
nor writes are left out.

Initial values that the tables leave open are published values of an STS3215 (12 V, firmware 3.6).
None are known for the SCS0009, so its limits start wide open. Registers below SRAM_START survive
power off, and accept writes only while `lock` is 0. The servos have no bus watchdog: if the host
dies, a servo holds its last goal for ever.
"""

from __future__ import annotations

import math
from dataclasses import replace

from hw_drivers.bus.registers import Item, Model

SRAM_START = 40
STS_TICKS_PER_TURN = 4096
STS_RAD_PER_TICK = 2 * math.pi / STS_TICKS_PER_TURN
SCS_RAD_PER_TICK = math.radians(300) / 1024  # a potentiometer: 1024 steps over 300 degrees
POSITION_MODE = 0
TORQUE_CALIBRATE = 128  # written to torque_enable: makes the present position the centre, 2048
# Bits of `phase` (Feetech, "Magnetic Encoded STS Servo - Memory Table", "Servo Phase").
MULTI_TURN_PHASE_BIT = 0x10  # present_position counts turns instead of wrapping
FINE_SPEED_PHASE_BIT = 0x04  # unit of goal_velocity: 1 step per second; without it, 50
MIRROR_PHASE_BITS = 0x81  # direction of the motor (bit 0) and of the position (bit 7)

# Register 6. The codes 5, 6 and 7 are left out because the sources disagree: 76 800, 57 600 and
# 38 400 baud in the vendor's SDK, 57 600, 38 400 and 19 200 in rustypot and lerobot.
BAUD_RATES = {0: 1_000_000, 1: 500_000, 2: 250_000, 3: 128_000, 4: 115_200}

_BOTH = {
    "firmware_major_version": Item(0, 1, initial=3),
    "firmware_minor_version": Item(1, 1, initial=6),
    "model_number": Item(3, 2),
    "id": Item(5, 1, (0, 253), initial=1),
    "baud_rate": Item(6, 1, (0, 7)),
    "return_delay_time": Item(7, 1, (0, 254), scale=2e-6, unit="s"),
    "status_return_level": Item(8, 1, (0, 1), initial=1),
}
_STS = _BOTH | {
    "min_position_limit": Item(9, 2, (0, 4094), scale=STS_RAD_PER_TICK, unit="rad"),
    "max_position_limit": Item(11, 2, (0, 4095), 4095, scale=STS_RAD_PER_TICK, unit="rad"),
    "temperature_limit": Item(13, 1, (0, 100), initial=70, unit="degC"),
    # 80 on 7.4 V servos
    "max_voltage_limit": Item(14, 1, (0, 254), initial=140, scale=0.1, unit="V"),
    "min_voltage_limit": Item(15, 1, (0, 254), initial=40, scale=0.1, unit="V"),
    "max_torque_limit": Item(16, 2, (0, 1000), initial=1000, scale=0.001),
    "phase": Item(18, 1, (0, 254), initial=12),
    "shutdown": Item(19, 1, (0, 254), initial=44),
    "led_alarm_condition": Item(20, 1, (0, 254), initial=47),
    "position_p_gain": Item(21, 1, (0, 254), initial=32),
    "position_d_gain": Item(22, 1, (0, 254), initial=32),
    "position_i_gain": Item(23, 1, (0, 254)),
    "cw_dead_zone": Item(26, 1, (0, 32), 1, scale=STS_RAD_PER_TICK, unit="rad"),
    "ccw_dead_zone": Item(27, 1, (0, 32), 1, scale=STS_RAD_PER_TICK, unit="rad"),
    "protection_current": Item(28, 2, (0, 2047), initial=500, scale=0.0065, unit="A"),
    # A factor; more than 1 makes a tick larger than a step of the encoder.
    "angular_resolution": Item(30, 1, (1, 100), initial=1),
    # present = actual - offset; on a Dynamixel the sign is the opposite
    "homing_offset": Item(31, 2, (-2047, 2047), sign_bit=11, scale=STS_RAD_PER_TICK, unit="rad"),
    "operating_mode": Item(33, 1, (0, 3), initial=POSITION_MODE),
    "protective_torque": Item(34, 1, (0, 254), initial=20, scale=0.01),
    "protection_time": Item(35, 1, (0, 254), initial=200, scale=0.01, unit="s"),
    "overload_torque": Item(36, 1, (0, 254), initial=80, scale=0.01),
    "overcurrent_time": Item(38, 1, (0, 254), initial=200, scale=0.01, unit="s"),
    "torque_enable": Item(40, 1, (0, 128)),
    "acceleration": Item(41, 1, (0, 254), scale=100 * STS_RAD_PER_TICK, unit="rad/s2"),
    "goal_position": Item(
        42, 2, (-32_767, 32_767), 2048, sign_bit=15, scale=STS_RAD_PER_TICK, unit="rad"
    ),
    "goal_time": Item(44, 2, (0, 1000)),
    # Unit: 1 step per second if bit 2 of `phase` is set, as by default; otherwise 50 steps per
    # second.
    "goal_velocity": Item(
        46, 2, (-32_767, 32_767), sign_bit=15, scale=STS_RAD_PER_TICK, unit="rad/s"
    ),
    "torque_limit": Item(48, 2, (0, 1000), initial=1000, scale=0.001),
    "lock": Item(55, 1, (0, 1), initial=1),
    "present_position": Item(56, 2, sign_bit=15, scale=STS_RAD_PER_TICK, unit="rad"),
    "present_velocity": Item(58, 2, sign_bit=15, scale=STS_RAD_PER_TICK, unit="rad/s"),
    "present_load": Item(60, 2, sign_bit=10, scale=0.001),
    "present_input_voltage": Item(62, 1, initial=120, scale=0.1, unit="V"),
    "present_temperature": Item(63, 1, initial=25, unit="degC"),
    "registered_instruction": Item(64, 1),
    "hardware_error_status": Item(65, 1),
    "moving": Item(66, 1),
    # The vendor's SMS_STS.cpp has a sign here, rustypot has none. Below 213 A they agree.
    "present_current": Item(69, 2, sign_bit=15, scale=0.0065, unit="A"),
}

_SCS = _BOTH | {
    "min_position_limit": Item(9, 2, (0, 1023), scale=SCS_RAD_PER_TICK, unit="rad"),
    "max_position_limit": Item(11, 2, (0, 1023), 1023, scale=SCS_RAD_PER_TICK, unit="rad"),
    "temperature_limit": Item(13, 1, (0, 100), initial=100, unit="degC"),
    "max_voltage_limit": Item(14, 1, (0, 254), initial=254, scale=0.1, unit="V"),
    "min_voltage_limit": Item(15, 1, (0, 254), scale=0.1, unit="V"),
    "max_torque_limit": Item(16, 2, (0, 1000), initial=1000, scale=0.001),
    "shutdown": Item(19, 1, (0, 254)),
    "led_alarm_condition": Item(20, 1, (0, 254)),
    "position_p_gain": Item(21, 1, (0, 254)),
    "position_d_gain": Item(22, 1, (0, 254)),
    "position_i_gain": Item(23, 1, (0, 254)),
    "torque_enable": Item(40, 1, (0, 2)),
    "goal_position": Item(42, 2, (0, 1023), 512, scale=SCS_RAD_PER_TICK, unit="rad"),
    "goal_time": Item(44, 2, (0, 9999), scale=0.001, unit="s"),
    "goal_velocity": Item(
        46, 2, (-32_767, 32_767), sign_bit=15, scale=SCS_RAD_PER_TICK, unit="rad/s"
    ),
    "lock": Item(48, 1, (0, 1), initial=1),
    "present_position": Item(56, 2, initial=512, scale=SCS_RAD_PER_TICK, unit="rad"),
    "present_velocity": Item(58, 2, sign_bit=15, scale=SCS_RAD_PER_TICK, unit="rad/s"),
    "present_load": Item(60, 2, sign_bit=10, scale=0.001),
    "present_input_voltage": Item(62, 1, initial=60, scale=0.1, unit="V"),
    "present_temperature": Item(63, 1, initial=25, unit="degC"),
    "registered_instruction": Item(64, 1),
    "hardware_error_status": Item(65, 1),
    "moving": Item(66, 1),
}


def _big_endian(items: dict[str, Item]) -> dict[str, Item]:
    return {name: replace(item, order="big") for name, item in items.items()}


# No difference between firmware versions is known, so each table holds for all of them.
TABLES = (
    Model("sts3215", 777, _STS | {"model_number": Item(3, 2, initial=777)}),
    Model("sts3250", 2825, _STS | {"model_number": Item(3, 2, initial=2825)}),
    Model("scs0009", 1284, _big_endian(_SCS | {"model_number": Item(3, 2, initial=1284)})),
)
MODELS = {model.name: model for model in TABLES}
NO_SYNC_READ = ("scs0009",)  # they ignore a sync read; read them one by one
