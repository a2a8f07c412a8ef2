"""A servo that lives in memory: its control table, its rules for writes, and its set-point."""

from __future__ import annotations

import math

from hw_drivers.dynamixel.models import (
    CENTRE_TICK,
    EEPROM_END,
    POSITION_MODE,
    RAD_PER_TICK,
    WATCHDOG_TICK_S,
    WATCHDOG_TRIPPED,
    Item,
    Model,
)
from hw_drivers.dynamixel.packet import ALERT_BIT

RESULT_FAIL, RANGE_ERROR, LENGTH_ERROR, LIMIT_ERROR, ACCESS_ERROR = 1, 4, 5, 6, 7

_TABLE_BYTES = 147  # 0 .. present_temperature(146)
_GOALS = ("goal_position",)  # read only while the bus watchdog has tripped


class VirtualServo:
    """One Dynamixel in position mode, with the centre tick 2048 at 0 rad.

    With torque on, `setpoint_rad` moves to the goal at no more than `velocity_limit_rad_s` (or
    profile_velocity, where that is set and lower); with torque off it follows the present position.
    A plant that calls `set_present_rad` owns the present position from then on; until then the
    present position follows the set-point. Gains, LED and EEPROM settings are stored and no more.
    """

    def __init__(self, model: Model, servo_id: int, velocity_limit_rad_s: float = 6.0) -> None:
        self.model = model
        self.setpoint_rad = 0.0
        self._velocity_limit_rad_s = velocity_limit_rad_s
        self._present_rad = 0.0
        self._plant_owns_present = False
        self._silence_s = 0.0
        self._item_at = {item.address: (name, item) for name, item in model.items.items()}
        self._table = bytearray(_TABLE_BYTES)
        for name, item in model.items.items():
            self._set(name, item.initial)
        self._set("id", servo_id)
        self._show_present(0.0)

    def __getitem__(self, name: str) -> int:
        """The raw value of a register."""
        item = self.model.items[name]
        return item.unpack(self._table[item.address : item.address + item.size])

    def _set(self, name: str, raw: int) -> None:
        item = self.model.items[name]
        self._table[item.address : item.address + item.size] = item.pack(raw)

    @property
    def id(self) -> int:
        """The address on the bus."""
        return self["id"]

    @property
    def torque_on(self) -> bool:
        """Whether the servo holds its set-point."""
        return bool(self._table[self.model.items["torque_enable"].address])

    @property
    def alert(self) -> int:
        """The alert bit of the error byte, set while a hardware error is latched."""
        return ALERT_BIT if self["hardware_error_status"] else 0

    # What the bus does

    def hear_instruction(self) -> None:
        """Any instruction on the bus, to whomever, feeds the bus watchdog (e-manual, reg. 98)."""
        self._silence_s = 0.0

    def read(self, address: int, size: int) -> tuple[int, bytes]:
        """(error number, `size` bytes from `address`)."""
        if size == 0 or address + size > _TABLE_BYTES:
            return ACCESS_ERROR, b""
        return 0, bytes(self._table[address : address + size])

    def write(self, address: int, data: bytes) -> int:
        """Write whole registers, all or none; returns the error number."""
        writes: dict[str, int] = {}
        while data:
            name, item = self._item_at.get(address, ("", None))
            if item is None:
                return ACCESS_ERROR
            if len(data) < item.size:
                return LENGTH_ERROR
            raw = item.unpack(data[: item.size])
            if error := self._refuses(name, item, raw):
                return error
            writes[name] = raw
            address, data = address + item.size, data[item.size :]
        for name, raw in writes.items():
            self._set(name, raw)
        return 0

    def _refuses(self, name: str, item: Item, raw: int) -> int:
        """The error number for writing `raw` now; 0 where it may be written."""
        if item.limits is None or (item.address < EEPROM_END and self.torque_on):
            return ACCESS_ERROR
        if not item.limits[0] <= raw <= item.limits[1]:
            return RANGE_ERROR
        if name in _GOALS and self["bus_watchdog"] == WATCHDOG_TRIPPED:
            return RANGE_ERROR
        if name == "goal_position" and not self._inside_position_limits(raw):
            return LIMIT_ERROR
        if name == "torque_enable" and raw and self.alert:
            return RESULT_FAIL  # only a reboot brings torque back
        return 0

    def _inside_position_limits(self, tick: int) -> bool:
        if self["operating_mode"] != POSITION_MODE:
            return True
        return self["min_position_limit"] <= tick <= self["max_position_limit"]

    def reboot(self) -> None:
        """Forget everything in RAM, hardware errors included; the goal becomes where we are."""
        for name, item in self.model.items.items():
            if item.address >= EEPROM_END:
                self._set(name, item.initial)
        self._show_present(self._present_rad)
        self._set("goal_position", self["present_position"])
        self.setpoint_rad = self._present_rad

    # What the world does

    def set_present_rad(self, position_rad: float) -> None:
        """The plant says where the horn is, in radians from the centre tick."""
        self._plant_owns_present = True
        self._show_present(position_rad)

    def latch_hardware_error(self, status: int) -> None:
        """A fault as register 70 shows it, e.g. 1 << 5 for overload: torque goes off."""
        self._set("hardware_error_status", status)
        self._set("torque_enable", 0)

    def step(self, dt_s: float) -> None:
        """Let `dt_s` seconds pass."""
        self._watch_bus(dt_s)
        if not self.torque_on:
            self.setpoint_rad = self._present_rad
        elif self["bus_watchdog"] != WATCHDOG_TRIPPED:
            reach_rad = self._velocity_rad_s() * dt_s
            goal_rad = (self["goal_position"] - CENTRE_TICK) * RAD_PER_TICK
            error_rad = goal_rad - self.setpoint_rad
            self.setpoint_rad += max(-reach_rad, min(reach_rad, error_rad))
        if not self._plant_owns_present:
            self._show_present(self.setpoint_rad)

    def _velocity_rad_s(self) -> float:
        profile = self["profile_velocity"]  # 0: no limit
        profile_rad_s = profile * self.model.items["profile_velocity"].scale or math.inf
        return min(self._velocity_limit_rad_s, profile_rad_s)

    def _watch_bus(self, dt_s: float) -> None:
        self._silence_s += dt_s
        timeout = self["bus_watchdog"]
        armed = self.torque_on and 0 < timeout < WATCHDOG_TRIPPED
        if armed and self._silence_s > timeout * WATCHDOG_TICK_S:
            self._set("bus_watchdog", WATCHDOG_TRIPPED)

    def _show_present(self, position_rad: float) -> None:
        self._present_rad = position_rad
        self._set("present_position", CENTRE_TICK + round(position_rad / RAD_PER_TICK))
