"""A Dynamixel X servo in memory: its control table and how it treats writes."""

from __future__ import annotations

import math

from hw_drivers.bus.registers import Item, Model
from hw_drivers.dynamixel.models import (
    BAUD_RATES,
    CURRENT_POSITION_MODE,
    EEPROM_END,
    POSITION_MODE,
    REVERSE_BIT,
    WATCHDOG_TICK_S,
    WATCHDOG_TRIPPED,
)
from hw_drivers.dynamixel.packet import ALERT_BIT
from hw_drivers.virtual.motion import Limits, timed
from hw_drivers.virtual.servo import VirtualServo
from v2a.errors import BusError

RESULT_FAIL, RANGE_ERROR, LENGTH_ERROR, LIMIT_ERROR, ACCESS_ERROR = 1, 4, 5, 6, 7

# e-manual, "Operating Mode(11)". Current mode (0) and PWM mode (16) would need a motor model. In
# these modes the horn rests.
_VELOCITY_MODE = 1
_GOAL_POSITION_MODES = (POSITION_MODE, 4, CURRENT_POSITION_MODE)
# e-manual, "Drive Mode(10)".
_TIME_BASED_PROFILE, _TORQUE_ON_BY_GOAL = 1 << 2, 1 << 3
_TORQUE_ON_AT_STARTUP = 1 << 0  # e-manual, "Startup Configuration(60)"

# Goal -> the register that bounds it in every mode. While the bus watchdog is tripped, the servo
# refuses all of these goals.
_LIMIT_OF_GOAL = {
    "goal_pwm": "pwm_limit",
    "goal_current": "current_limit",
    "goal_velocity": "velocity_limit",
    "goal_position": "",  # bounded in position mode only
}
# Read only, but not measured. A reboot clears them.
_STATES = ("registered_instruction", "hardware_error_status")
_VOLTAGE_ERROR, _OVERHEATING, _OVERLOAD = 1 << 0, 1 << 2, 1 << 5


class VirtualDynamixel(VirtualServo):
    """One Dynamixel X servo.

    With torque on, its set-point moves to the goal within the profile registers, within the
    register velocity_limit, and within `velocity_limit_rad_s`, the limit of the mechanics. Gains,
    LED and indirect addresses have no effect. In current-based position mode the horn rests while
    goal_current is 0.
    """

    def __init__(self, model: Model, servo_id: int, velocity_limit_rad_s: float = math.inf) -> None:
        super().__init__(model, servo_id, velocity_limit_rad_s)
        self._age_s = self._silence_s = 0.0
        self._start_rad = 0.0  # where the set-point was when the goal came
        self._set_goals_to_limits()

    @property
    def baud(self) -> int:
        return BAUD_RATES[self._get("baud_rate")]

    def set_baud(self, baud: int) -> None:
        limits = self.model.items["baud_rate"].limits or (0, 0)
        code_of = {BAUD_RATES[code]: code for code in range(limits[0], limits[1] + 1)}
        if baud not in code_of:
            raise BusError(f"{self.model.name} knows no {baud} baud; choose from {[*code_of]}")
        self._set("baud_rate", code_of[baud])

    @property
    def alert(self) -> int:
        """The alert bit of the error byte, set while a hardware error is latched."""
        return ALERT_BIT if self._get("hardware_error_status") else 0

    # What the bus asks of the servo

    def hear_instruction(self) -> None:
        """Feed the bus watchdog. An instruction to any servo does so (e-manual, register 98)."""
        self._silence_s = 0.0

    def read(self, address: int, size: int) -> tuple[int, bytes]:
        """Read `size` bytes from `address`: (error number, bytes)."""
        if size == 0 or address + size > len(self._table):
            return ACCESS_ERROR, b""
        self._refresh()
        return 0, bytes(self._table[address : address + size])

    def write(self, address: int, data: bytes) -> int:
        """Write whole registers, all or none, and return the error number."""
        error, writes = self._judge(address, data)
        if not error:
            for name, raw in writes.items():
                self._set(name, raw)
            if "goal_position" in writes:
                self._take_goal()
        return error

    def register_write(self, address: int, data: bytes) -> int:
        """Keep a write for `act`, and return its error number."""
        error, _ = self._judge(address, data)
        if not error:
            self._pending = (address, data)
            self._set("registered_instruction", 1)
        return error

    def act(self) -> int:
        """Carry out the registered write, and return its error number."""
        if self._pending is None:
            return RESULT_FAIL
        (address, data), self._pending = self._pending, None
        self._set("registered_instruction", 0)
        return self.write(address, data)

    def _judge(self, address: int, data: bytes) -> tuple[int, dict[str, int]]:
        """Check a write: (error number, register -> raw value)."""
        writes: dict[str, int] = {}
        while data:
            name, item = self._item_at.get(address, ("", None))
            if item is None or item.limits is None:
                return ACCESS_ERROR, {}
            if len(data) < item.size:
                return LENGTH_ERROR, {}
            raw = item.unpack(data[: item.size])
            if error := self._refuses(name, item, item.limits, raw):
                return error, {}
            writes[name] = raw
            address, data = address + item.size, data[item.size :]
        return 0, writes

    def _refuses(self, name: str, item: Item, limits: tuple[int, int], raw: int) -> int:
        """The error number for writing `raw` now; 0 if the servo accepts it."""
        if item.address < EEPROM_END and self.torque_on:
            return ACCESS_ERROR
        if not limits[0] <= raw <= limits[1]:
            return RANGE_ERROR
        if self._watchdog_tripped and (name in _LIMIT_OF_GOAL or (name == "bus_watchdog" and raw)):
            return RANGE_ERROR  # only 0 clears it
        if not self._within_limit(name, raw):
            return LIMIT_ERROR
        if name == "torque_enable" and raw and self._shut_down:
            return RESULT_FAIL  # only a reboot brings torque back
        return 0

    def _within_limit(self, name: str, raw: int) -> bool:
        if name == "goal_position" and self._get("operating_mode") == POSITION_MODE:
            return self._get("min_position_limit") <= raw <= self._get("max_position_limit")
        limit = _LIMIT_OF_GOAL.get(name, "")
        return not limit or abs(raw) <= self._get(limit)

    def _take_goal(self) -> None:
        self._start_rad = self.setpoint_rad
        if self._get("drive_mode") & _TORQUE_ON_BY_GOAL and not self._shut_down:
            self._set("torque_enable", 1)

    def reboot(self) -> None:
        """Reset the RAM, hardware errors included. The goal becomes the present position."""
        for name, item in self.model.items.items():
            if item.address >= EEPROM_END and (item.limits or name in _STATES):
                self._set(name, item.initial)
        self._pending = None
        self._set("goal_position", self["present_position"])
        self._set_goals_to_limits()
        self._set("torque_enable", self._get("startup_configuration") & _TORQUE_ON_AT_STARTUP)
        self._rest()
        self._watch_health()

    def _set_goals_to_limits(self) -> None:
        """Begin with the current and the PWM that the limits allow (e-manual, "Goal Current")."""
        for name in ("goal_current", "goal_pwm"):
            if name in self.model.items:
                self._set(name, self._get(_LIMIT_OF_GOAL[name]))

    def factory_reset(self, keep: tuple[str, ...]) -> None:
        """Reset the EEPROM to the factory values, except the registers in `keep`; then reboot."""
        for name, item in self.model.items.items():
            if item.address < EEPROM_END and name not in keep:
                self._set(name, item.initial)
        self.reboot()

    def clear_turns(self) -> int:
        """Forget whole turns (the Clear instruction), and return the error number."""
        if self.torque_on:
            return ACCESS_ERROR
        self._present_rad = math.remainder(self._present_rad, 2 * math.pi)
        self._stale = True
        return 0

    # What the world does to the servo

    def overload(self) -> None:
        self.latch_hardware_error(_OVERLOAD)

    def latch_hardware_error(self, status: int) -> None:
        """Latch a fault in register 70, e.g. 1 << 5 for overload.

        If register 63 names this fault, torque goes off, and only a reboot brings it back.
        """
        self._set("hardware_error_status", self._get("hardware_error_status") | status)
        if self._shut_down:
            self._set("torque_enable", 0)

    @property
    def _shut_down(self) -> bool:
        return bool(self._get("hardware_error_status") & self._get("shutdown"))

    def _watch_health(self) -> None:
        low, high = self._get("min_voltage_limit"), self._get("max_voltage_limit")
        errors = _VOLTAGE_ERROR * (not low <= self._get("present_input_voltage") <= high)
        errors |= _OVERHEATING * (self._get("present_temperature") > self._get("temperature_limit"))
        self.latch_hardware_error(errors)

    def step(self, dt_s: float) -> None:
        self._age_s += dt_s
        self._watch_bus(dt_s)
        super().step(dt_s)

    def _watch_bus(self, dt_s: float) -> None:
        self._silence_s += dt_s
        timeout = self._get("bus_watchdog")
        armed = 0 < timeout < WATCHDOG_TRIPPED and self.torque_on
        if armed and self._silence_s > timeout * WATCHDOG_TICK_S:
            self._set("bus_watchdog", WATCHDOG_TRIPPED)

    @property
    def _watchdog_tripped(self) -> bool:
        return self._get("bus_watchdog") == WATCHDOG_TRIPPED

    def _drive(self, dt_s: float) -> None:
        mode = self._get("operating_mode")
        powerless = mode == CURRENT_POSITION_MODE and not self._get("goal_current", 1)
        if self._watchdog_tripped or powerless:
            self._setpoint_rad_s = 0.0
        elif mode in _GOAL_POSITION_MODES:
            goal_rad = self._rad(self._get("goal_position"))
            self._go(goal_rad, self._profile(goal_rad), dt_s)
        elif mode == _VELOCITY_MODE:
            self._spin(self._si("goal_velocity"), self._profile(self._start_rad), dt_s)

    def _profile(self, goal_rad: float) -> Limits:
        """The limits in registers 108 and 112. In a time-based profile, both are in ms."""
        if self._get("drive_mode") & _TIME_BASED_PROFILE:
            duration_ms, ramp_ms = self._get("profile_velocity"), self._get("profile_acceleration")
            return timed(abs(goal_rad - self._start_rad), duration_ms * 1e-3, ramp_ms * 1e-3)
        return Limits(self._limit("profile_velocity"), self._limit("profile_acceleration"))

    def _bounded(self, limits: Limits) -> Limits:
        own_rad_s = self._si("velocity_limit")
        return super()._bounded(limits._replace(velocity_rad_s=min(limits[0], own_rad_s)))

    def _measure(self) -> None:
        super()._measure()
        self._put("position_trajectory", self._ticks(self.setpoint_rad))
        self._show("velocity_trajectory", self._setpoint_rad_s)
        self._set("realtime_tick", int(self._age_s * 1e3) % 32_768)

    # e-manual, "Homing Offset(20)": what is read and written is the actual position plus it.
    # "Drive Mode(10)": in reverse mode, the actual position counts the other way round.

    def _ticks(self, position_rad: float) -> int:
        return super()._ticks(self._direction * position_rad) + self._get("homing_offset")

    def _rad(self, ticks: float) -> float:
        return self._direction * super()._rad(ticks - self._get("homing_offset"))

    @property
    def _direction(self) -> int:
        return -1 if self._get("drive_mode") & REVERSE_BIT else 1
