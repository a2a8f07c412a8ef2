"""Control tables of the Dynamixel X models: address, range and unit of every register.

Sources: the e-manual's page of each model (https://emanual.robotis.com/docs/en/dxl/x/xl430-w250/,
.../xl330-m288/ and so on). `scale` converts a raw value to the SI `unit`. If a goal's range depends
on another register, `limits` are the widest range that the other register allows.
"""

from __future__ import annotations

import math
from dataclasses import replace

from hw_drivers.bus.registers import Item, Model

TICKS_PER_TURN = 4096
RAD_PER_TICK = 2 * math.pi / TICKS_PER_TURN
CENTRE_TICK = 2048
EEPROM_END = 64  # below it, registers survive power off and are locked while torque is on
POSITION_MODE, CURRENT_POSITION_MODE = 3, 5
REVERSE_BIT = 1 << 0  # of drive_mode
NO_SECONDARY_ID = 255
WATCHDOG_TICK_S = 0.020  # unit of bus_watchdog
WATCHDOG_TRIPPED = 255  # no instruction came in time: the servo stopped and ignores goals

# e-manual, "Shutdown(63)": bit -> the error that latched.
HARDWARE_ERRORS = {
    0: "input voltage",
    2: "overheating",
    3: "encoder",
    4: "electrical shock",
    5: "overload",
}


_RAD_S = 0.229 * 2 * math.pi / 60  # 0.229 rev/min
_RAD_S2 = 214.577 * 2 * math.pi / 3600  # 214.577 rev/min2
_PWM = 0.00113  # 0.113 %
_TURNS = (-1_048_575, 1_048_575)  # +-256 turns: the widest range of a position in any mode
_OFFSET = (-1_044_479, 1_044_479)  # in position mode only +-1024 take effect
_GAIN = (0, 16_383)

# Register 8. The XL330 and XC330 have no 7.
BAUD_RATES = {
    0: 9_600,
    1: 57_600,
    2: 115_200,
    3: 1_000_000,
    4: 2_000_000,
    5: 3_000_000,
    6: 4_000_000,
    7: 4_500_000,
}

# The registers that all models share, with the most common initial values and limits.
_X_SERIES = {
    "model_number": Item(0, 2),
    "model_information": Item(2, 4),
    "firmware_version": Item(6, 1, initial=46),
    "id": Item(7, 1, (0, 252), initial=1),
    "baud_rate": Item(8, 1, (0, 7), initial=1),
    "return_delay_time": Item(9, 1, (0, 254), initial=250, scale=2e-6, unit="s"),
    "drive_mode": Item(10, 1, (0, 13)),
    "operating_mode": Item(11, 1, (0, 16), initial=POSITION_MODE),
    "secondary_id": Item(12, 1, (0, 255), initial=255),  # above 252: none
    "protocol_type": Item(13, 1, (1, 2), initial=2),
    "homing_offset": Item(20, 4, _OFFSET, signed=True, scale=RAD_PER_TICK, unit="rad"),
    "moving_threshold": Item(24, 4, (0, 1023), initial=10, scale=_RAD_S, unit="rad/s"),
    "temperature_limit": Item(31, 1, (0, 100), initial=80, unit="degC"),
    "pwm_limit": Item(36, 2, (0, 885), initial=885, scale=_PWM),
    "velocity_limit": Item(44, 4, (0, 1023), initial=200, scale=_RAD_S, unit="rad/s"),
    "max_position_limit": Item(48, 4, (0, 4095), initial=4095, scale=RAD_PER_TICK, unit="rad"),
    "min_position_limit": Item(52, 4, (0, 4095), initial=0, scale=RAD_PER_TICK, unit="rad"),
    "startup_configuration": Item(60, 1, (0, 3)),
    "shutdown": Item(63, 1, (0, 63), initial=52),
    "torque_enable": Item(64, 1, (0, 1)),
    "led": Item(65, 1, (0, 1)),
    "status_return_level": Item(68, 1, (0, 2), initial=2),
    "registered_instruction": Item(69, 1),
    "hardware_error_status": Item(70, 1),
    "velocity_i_gain": Item(76, 2, _GAIN, initial=1920),
    "velocity_p_gain": Item(78, 2, _GAIN, initial=100),
    "position_d_gain": Item(80, 2, _GAIN),
    "position_i_gain": Item(82, 2, _GAIN),
    "position_p_gain": Item(84, 2, _GAIN, initial=800),
    "feedforward_2nd_gain": Item(88, 2, _GAIN),
    "feedforward_1st_gain": Item(90, 2, _GAIN),
    "bus_watchdog": Item(98, 1, (0, 127), scale=WATCHDOG_TICK_S, unit="s"),
    "goal_pwm": Item(100, 2, (-885, 885), signed=True, scale=_PWM),
    "goal_velocity": Item(104, 4, (-1023, 1023), signed=True, scale=_RAD_S, unit="rad/s"),
    "profile_acceleration": Item(108, 4, (0, 32_767), scale=_RAD_S2, unit="rad/s2"),
    "profile_velocity": Item(112, 4, (0, 32_767), scale=_RAD_S, unit="rad/s"),
    "goal_position": Item(116, 4, _TURNS, 2048, signed=True, scale=RAD_PER_TICK, unit="rad"),
    "realtime_tick": Item(120, 2, scale=0.001, unit="s"),
    "moving": Item(122, 1),
    "moving_status": Item(123, 1),
    "present_pwm": Item(124, 2, signed=True, scale=_PWM),
    "present_velocity": Item(128, 4, signed=True, scale=_RAD_S, unit="rad/s"),
    "present_position": Item(132, 4, signed=True, scale=RAD_PER_TICK, unit="rad"),
    "velocity_trajectory": Item(136, 4, signed=True, scale=_RAD_S, unit="rad/s"),
    "position_trajectory": Item(140, 4, signed=True, scale=RAD_PER_TICK, unit="rad"),
    "present_input_voltage": Item(144, 2, initial=120, scale=0.1, unit="V"),
    "present_temperature": Item(146, 1, initial=25, unit="degC"),
}


def _volts(lowest: int, low: int, high: int) -> dict[str, Item]:
    """The voltage limits, with the factory values `low` and `high`, in tenths of a volt."""
    return {
        "max_voltage_limit": Item(32, 2, (lowest, high), initial=high, scale=0.1, unit="V"),
        "min_voltage_limit": Item(34, 2, (lowest, high), initial=low, scale=0.1, unit="V"),
    }


def _current(limit: int, ampere: float) -> dict[str, Item]:
    """The registers of a servo that measures its current in units of `ampere`."""
    return {
        "current_limit": Item(38, 2, (0, limit), initial=limit, scale=ampere, unit="A"),
        "goal_current": Item(102, 2, (-limit, limit), signed=True, scale=ampere, unit="A"),
        "present_current": Item(126, 2, signed=True, scale=ampere, unit="A"),
    }


def _table(*parts: dict[str, Item], **initial: int) -> dict[str, Item]:
    """Merge `parts`, later ones over earlier ones, and set other initial values."""
    items = {name: item for part in parts for name, item in part.items()}
    return items | {name: replace(items[name], initial=raw) for name, raw in initial.items()}


_X330 = _X_SERIES | {
    "baud_rate": Item(8, 1, (0, 6), initial=1),
    "protocol_type": Item(13, 1, (2, 22), initial=2),
    "velocity_limit": Item(44, 4, (0, 2047), scale=_RAD_S, unit="rad/s"),
    "pwm_slope": Item(62, 1, (1, 255), initial=255),
    "goal_velocity": Item(104, 4, (-2047, 2047), signed=True, scale=_RAD_S, unit="rad/s"),
}
_XL330 = _table(
    _X330,
    _volts(31, 35, 70),
    _current(1750, 0.001),
    temperature_limit=70,
    shutdown=53,
    pwm_slope=140,
    position_p_gain=400,
    present_input_voltage=50,
)
_XL330_M077 = _table(
    _XL330, velocity_limit=1620, velocity_i_gain=400, velocity_p_gain=40, position_i_gain=400
)
_XL330_M288 = _table(_XL330, velocity_limit=445, velocity_i_gain=1600, velocity_p_gain=180)
_XC330_T288 = _table(
    _X330,
    _volts(55, 55, 140),
    _current(910, 0.001),
    temperature_limit=70,
    velocity_limit=320,
    velocity_i_gain=1200,
    velocity_p_gain=40,
    position_p_gain=900,
)
_XC330_T181 = _table(_XC330_T288, velocity_limit=510)

# The XL430 and XC430 have no current sensor: register 126 is a load estimate there.
_LOAD = {"present_load": Item(126, 2, signed=True, scale=0.001)}
_XL430_W250 = _table(
    _X_SERIES,
    _LOAD,
    _volts(60, 60, 140),
    temperature_limit=72,
    velocity_limit=265,
    velocity_i_gain=1000,
    position_d_gain=4000,
    position_p_gain=640,
)
_XC430_W150 = _table(
    _X_SERIES,
    _LOAD,
    _volts(60, 60, 160),
    moving_threshold=20,
    velocity_limit=460,
    position_p_gain=460,
)
_XM430_W350 = _table(_X_SERIES, _volts(95, 95, 160), _current(1193, 0.00269))
_XM540_W270 = _table(
    _X_SERIES,
    _volts(95, 95, 160),
    _current(2047, 0.00269),
    {f"external_port_mode_{n}": Item(55 + n, 1, (0, 3), initial=3) for n in (1, 2, 3)},
    {f"external_port_data_{n}": Item(150 + 2 * n, 2, (0, 4095)) for n in (1, 2, 3)},
    velocity_limit=128,
)


def _indirect(data: int, last: int) -> dict[str, Item]:
    """The first indirect registers, which gather scattered registers into one block."""
    return {
        "indirect_address_1": Item(168, 2, (64, last), initial=data),
        "indirect_data_1": Item(data, 1, (0, 255)),
    }


def _x330(name: str, number: int, items: dict[str, Item]) -> tuple[Model, ...]:
    """An X330 model before and since firmware 52, which moved the indirect data.

    Sources: `*_fw52.model` in the vendor's SDK; fast reads came with firmware 46 (e-manual, "Fast
    Sync Read").
    """
    v1 = _table(items, _indirect(224, 251), model_number=number, firmware_version=51)
    v52 = _table(items, _indirect(208, 227), model_number=number, firmware_version=52)
    return Model(name, number, v1, (0, 51), 46), Model(name, number, v52, (52, 255), 46)


def _x430(name: str, number: int, items: dict[str, Item]) -> tuple[Model, ...]:
    """An X430 or X540 model before and since firmware 38, which added drive mode and bus watchdog.

    Sources: e-manual, "Available from Firmware v38"; fast reads came with firmware 45 (e-manual,
    "Fast Sync Read").
    """
    v38 = _table(items, _indirect(224, 661), model_number=number)
    v1 = _table(v38, firmware_version=37)
    del v1["drive_mode"], v1["bus_watchdog"]
    return Model(name, number, v1, (0, 37), 45), Model(name, number, v38, (38, 255), 45)


TABLES = (
    *_x430("xl430-w250", 1060, _XL430_W250),
    *_x430("xc430-w150", 1070, _XC430_W150),
    *_x430("xm430-w350", 1020, _XM430_W350),
    *_x430("xm540-w270", 1120, _XM540_W270),
    *_x330("xl330-m077", 1190, _XL330_M077),
    *_x330("xl330-m288", 1200, _XL330_M288),
    *_x330("xc330-t181", 1210, _XC330_T181),
    *_x330("xc330-t288", 1220, _XC330_T288),
)
MODELS = {
    model.name: model for model in TABLES
}  # of several tables with one name, the newest firmware


def describe_hardware_error(status: int) -> str:
    """Describe the value of register 70, e.g. 'overheating, overload'; '' for 0."""
    return ", ".join(
        HARDWARE_ERRORS.get(bit, f"unknown bit {bit}") for bit in range(8) if status >> bit & 1
    )
