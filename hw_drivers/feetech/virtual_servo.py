"""A Feetech STS or SCS servo in memory: its memory table and how it treats writes."""

from __future__ import annotations

import math

from hw_drivers.bus.registers import Item, Model
from hw_drivers.feetech.models import (
    BAUD_RATES,
    FINE_SPEED_PHASE_BIT,
    MIRROR_PHASE_BITS,
    MULTI_TURN_PHASE_BIT,
    POSITION_MODE,
    SRAM_START,
    TORQUE_CALIBRATE,
)
from hw_drivers.virtual.motion import Limits
from hw_drivers.virtual.servo import VirtualServo
from v2a.errors import BusError

_TABLE_BYTES = 256  # an address is one byte; an unknown register reads 0
_VELOCITY_MODE = 1
_COARSE_SPEED_UNIT = 50
_VOLTAGE_ALARM, _HEAT_ALARM, _OVERLOAD_ALARM = 1 << 0, 1 << 2, 1 << 5


class VirtualFeetech(VirtualServo):
    """One STS or SCS servo.

    It refuses nothing: it ignores a forbidden write, clips a value out of range, and its alarm byte
    only reports. It has no watchdog, so it holds its last goal for ever. Gains and goal_time have
    no effect. In PWM mode and step mode the horn rests.
    """

    def __init__(self, model: Model, servo_id: int, velocity_limit_rad_s: float = math.inf) -> None:
        super().__init__(model, servo_id, velocity_limit_rad_s)
        self._table.extend(bytes(_TABLE_BYTES - len(self._table)))
        self._overloaded = False

    @property
    def baud(self) -> int:
        return BAUD_RATES.get(self._get("baud_rate"), 0)

    def set_baud(self, baud: int) -> None:
        code_of = {known: code for code, known in BAUD_RATES.items()}
        if baud not in code_of:
            raise BusError(f"{self.model.name} knows no {baud} baud; choose from {[*code_of]}")
        self._set("baud_rate", code_of[baud])

    @property
    def alarms(self) -> int:
        """The alarm byte of the servo's answers."""
        return self._get("hardware_error_status")

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes from `address`; fewer at the end of the table."""
        self._refresh()
        return bytes(self._table[address : address + size])

    def write(self, address: int, data: bytes) -> None:
        """Write `data` to the registers that lie wholly in it."""
        at = 0
        while at < len(data):
            name, item = self._item_at.get(address + at, ("", None))
            size = item.size if item else 1
            if item and at + size <= len(data):
                self._write(name, item, item.unpack(data[at : at + size]))
            at += size

    def _write(self, name: str, item: Item, raw: int) -> None:
        locked = item.address < SRAM_START and self._get("lock")
        if item.limits is None or locked:
            return
        if name == "torque_enable":
            self._overloaded = False
            self._watch_health()
            if raw == TORQUE_CALIBRATE:
                self._make_here_the_centre()
                return
        self._set(name, max(item.limits[0], min(item.limits[1], raw)))

    def register_write(self, address: int, data: bytes) -> None:
        """Keep a write for `act`."""
        self._pending = (address, data)
        self._set("registered_instruction", 1)

    def act(self) -> None:
        """Carry out the registered write, if there is one."""
        if self._pending:
            self.write(*self._pending)
        self._pending = None
        self._set("registered_instruction", 0)

    def reboot(self) -> None:
        """Reset the SRAM, as after a loss of power. The goal becomes the present position."""
        for name, item in self.model.items.items():
            if item.address >= SRAM_START and item.limits:
                self._set(name, item.initial)
        self._pending, self._overloaded = None, False
        self._set("goal_position", self["present_position"])
        self._rest()
        self._watch_health()

    def _make_here_the_centre(self) -> None:
        if "homing_offset" in self.model.items:
            turned = round(self._present_rad / self._rad_per_tick)
            half = self._centre_tick
            self._put("homing_offset", (turned + half) % (2 * half) - half)

    # What the world does to the servo

    def overload(self) -> None:
        self._overloaded = True
        self._watch_health()

    def _watch_health(self) -> None:
        low, high = self._get("min_voltage_limit"), self._get("max_voltage_limit")
        alarms = _OVERLOAD_ALARM * self._overloaded
        alarms |= _VOLTAGE_ALARM * (not low <= self._get("present_input_voltage") <= high)
        alarms |= _HEAT_ALARM * (self._get("present_temperature") > self._get("temperature_limit"))
        self._set("hardware_error_status", alarms)
        if alarms & self._get("shutdown"):
            self._set("torque_enable", 0)

    def _drive(self, dt_s: float) -> None:
        limits = Limits(
            self._limit("goal_velocity") * self._speed_unit, self._limit("acceleration")
        )
        mode = self._get("operating_mode", POSITION_MODE)
        if mode == POSITION_MODE:
            self._go(self._goal_rad(), limits, dt_s)
        elif mode == _VELOCITY_MODE:
            self._spin(self._si("goal_velocity") * self._speed_unit, limits, dt_s)

    @property
    def _speed_unit(self) -> int:
        """The unit of goal_velocity, in steps per second."""
        fine = self._get("phase", FINE_SPEED_PHASE_BIT) & FINE_SPEED_PHASE_BIT
        return 1 if fine else _COARSE_SPEED_UNIT

    def _goal_rad(self) -> float:
        """The goal, clipped to the position limits. Two limits of 0 mean no limits."""
        low, high = self._get("min_position_limit"), self._get("max_position_limit")
        goal = self._get("goal_position")
        return self._rad(max(low, min(high, goal)) if (low, high) != (0, 0) else goal)

    # present = actual - offset (hw_drivers/feetech/models.py)

    def _ticks(self, position_rad: float) -> int:
        """An encoder wraps unless it counts turns. A potentiometer has ends."""
        ticks = super()._ticks(self._direction * position_rad) - self._get("homing_offset")
        turn = self.model.turn_ticks
        if "phase" not in self.model.items:
            return max(0, min(turn - 1, ticks))
        return ticks if self._get("phase") & MULTI_TURN_PHASE_BIT else ticks % turn

    def _rad(self, ticks: float) -> float:
        return self._direction * super()._rad(ticks + self._get("homing_offset"))

    @property
    def _direction(self) -> int:
        """-1 if both mirror bits of `phase` are set, so that motor and position run backwards."""
        mirrored = self._get("phase") & MIRROR_PHASE_BITS == MIRROR_PHASE_BITS
        return -1 if mirrored else 1
