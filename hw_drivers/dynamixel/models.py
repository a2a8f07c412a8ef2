"""Control tables: where each Dynamixel model keeps what, in which range and unit.

Sources: the e-manual's page of each model (https://emanual.robotis.com/docs/en/dxl/x/xl430-w250/,
.../xl330-m288/, .../xm430-w350/). `scale` turns a raw value into the SI `unit`. Registers that
nobody here reads or writes are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

TICKS_PER_TURN = 4096
RAD_PER_TICK = 2 * math.pi / TICKS_PER_TURN
CENTRE_TICK = 2048
EEPROM_END = 64  # registers below it survive power off, and are locked while torque is on
POSITION_MODE = 3
# e-manual, "Drive Mode(10)": bit 0 turns the direction round; bit 2 makes profile_velocity a time,
# bit 3 turns torque on with a goal.
DRIVE_MODES = (0, 1)
WATCHDOG_TICK_S = 0.020  # unit of bus_watchdog
WATCHDOG_TRIPPED = 255  # -1: no instruction came in time, the servo stopped and ignores goals

# e-manual, "Shutdown(63)": bit -> what latched.
HARDWARE_ERRORS = {
    0: "input voltage",
    2: "overheating",
    3: "encoder",
    4: "electrical shock",
    5: "overload",
}


@dataclass(frozen=True, slots=True)
class Item:
    """One register. `limits` are the raw values that may be written; None: read only."""

    address: int
    size: int
    limits: tuple[int, int] | None = None
    initial: int = 0
    signed: bool = False
    scale: float = 1.0
    unit: str = ""

    def pack(self, raw: int) -> bytes:
        """The raw value as the servo stores it. Raises OverflowError where it does not fit."""
        return raw.to_bytes(self.size, "little", signed=self.signed)

    def unpack(self, data: bytes | bytearray) -> int:
        """The raw value of stored bytes."""
        return int.from_bytes(data, "little", signed=self.signed)


@dataclass(frozen=True, slots=True)
class Model:
    """A servo model: the number it answers to a ping, and its control table."""

    name: str
    number: int
    items: dict[str, Item]


_RAD_S = 0.229 * 2 * math.pi / 60  # 0.229 rev/min
_TURNS = (-1_048_575, 1_048_575)  # +-256 turns, the range of a position in any mode

_X_SERIES = {
    "model_number": Item(0, 2),
    "firmware_version": Item(6, 1, initial=46),
    "id": Item(7, 1, (0, 252), initial=1),
    "baud_rate": Item(8, 1, (0, 7), initial=1),
    "return_delay_time": Item(9, 1, (0, 254), initial=250, scale=2e-6, unit="s"),
    "drive_mode": Item(10, 1, (0, 13)),
    "operating_mode": Item(11, 1, (0, 16), initial=POSITION_MODE),
    "max_position_limit": Item(48, 4, (0, 4095), initial=4095, scale=RAD_PER_TICK, unit="rad"),
    "min_position_limit": Item(52, 4, (0, 4095), initial=0, scale=RAD_PER_TICK, unit="rad"),
    "torque_enable": Item(64, 1, (0, 1)),
    "led": Item(65, 1, (0, 1)),
    "status_return_level": Item(68, 1, (0, 2), initial=2),
    "hardware_error_status": Item(70, 1),
    "position_d_gain": Item(80, 2, (0, 16_383)),
    "position_i_gain": Item(82, 2, (0, 16_383)),
    "position_p_gain": Item(84, 2, (0, 16_383)),
    "bus_watchdog": Item(98, 1, (0, 127), scale=WATCHDOG_TICK_S, unit="s"),
    "profile_velocity": Item(112, 4, (0, 32_767), scale=_RAD_S, unit="rad/s"),
    "goal_position": Item(116, 4, _TURNS, 2048, signed=True, scale=RAD_PER_TICK, unit="rad"),
    "moving": Item(122, 1),
    "present_velocity": Item(128, 4, signed=True, scale=_RAD_S, unit="rad/s"),
    "present_position": Item(132, 4, signed=True, scale=RAD_PER_TICK, unit="rad"),
    "present_input_voltage": Item(144, 2, scale=0.1, unit="V"),
    "present_temperature": Item(146, 1, initial=25, unit="degC"),
}

# What differs from model to model. The XL430 has no current sensor: its register 126 is a load
# estimate, where the others report current.
_XL430_W250 = _X_SERIES | {
    "model_number": Item(0, 2, initial=1060),
    "temperature_limit": Item(31, 1, (0, 100), initial=72, unit="degC"),
    "max_voltage_limit": Item(32, 2, (60, 140), initial=140, scale=0.1, unit="V"),
    "min_voltage_limit": Item(34, 2, (60, 140), initial=60, scale=0.1, unit="V"),
    "velocity_limit": Item(44, 4, (0, 1023), initial=265, scale=_RAD_S, unit="rad/s"),
    "shutdown": Item(63, 1, (0, 63), initial=52),
    "position_d_gain": Item(80, 2, (0, 16_383), initial=4000),
    "position_p_gain": Item(84, 2, (0, 16_383), initial=640),
    "present_load": Item(126, 2, signed=True, scale=0.001),
    "present_input_voltage": Item(144, 2, initial=120, scale=0.1, unit="V"),
}
_XL330_M288 = _X_SERIES | {
    "model_number": Item(0, 2, initial=1200),
    "baud_rate": Item(8, 1, (0, 6), initial=1),
    "temperature_limit": Item(31, 1, (0, 100), initial=70, unit="degC"),
    "max_voltage_limit": Item(32, 2, (31, 70), initial=70, scale=0.1, unit="V"),
    "min_voltage_limit": Item(34, 2, (31, 70), initial=35, scale=0.1, unit="V"),
    "current_limit": Item(38, 2, (0, 1750), initial=1750, scale=0.001, unit="A"),
    "velocity_limit": Item(44, 4, (0, 2047), initial=445, scale=_RAD_S, unit="rad/s"),
    "shutdown": Item(63, 1, (0, 63), initial=53),
    "position_p_gain": Item(84, 2, (0, 16_383), initial=400),
    "present_current": Item(126, 2, signed=True, scale=0.001, unit="A"),
    "present_input_voltage": Item(144, 2, initial=50, scale=0.1, unit="V"),
}
_XM430_W350 = _X_SERIES | {
    "model_number": Item(0, 2, initial=1020),
    "temperature_limit": Item(31, 1, (0, 100), initial=80, unit="degC"),
    "max_voltage_limit": Item(32, 2, (95, 160), initial=160, scale=0.1, unit="V"),
    "min_voltage_limit": Item(34, 2, (95, 160), initial=95, scale=0.1, unit="V"),
    "current_limit": Item(38, 2, (0, 1193), initial=1193, scale=0.00269, unit="A"),
    "velocity_limit": Item(44, 4, (0, 1023), initial=200, scale=_RAD_S, unit="rad/s"),
    "shutdown": Item(63, 1, (0, 63), initial=52),
    "position_p_gain": Item(84, 2, (0, 16_383), initial=800),
    "present_current": Item(126, 2, signed=True, scale=0.00269, unit="A"),
    "present_input_voltage": Item(144, 2, initial=120, scale=0.1, unit="V"),
}

MODELS = {
    model.name: model
    for model in (
        Model("xl430-w250", 1060, _XL430_W250),
        Model("xl330-m288", 1200, _XL330_M288),
        Model("xm430-w350", 1020, _XM430_W350),
    )
}
NAME_OF_NUMBER = {model.number: model.name for model in MODELS.values()}


def describe_hardware_error(status: int) -> str:
    """The words for the value of register 70, e.g. 'overheating, overload'; '' for 0."""
    return ", ".join(
        HARDWARE_ERRORS.get(bit, f"unknown bit {bit}") for bit in range(8) if status >> bit & 1
    )
