"""What every virtual servo has, whatever it speaks: registers, and a horn that moves."""

from __future__ import annotations

import abc
import math

from hw_drivers.bus.registers import Item, Model
from hw_drivers.virtual.motion import Limits, lag, ramp, toward

# A plain guess at how fast a small servo's position loop is; nothing depends on its value.
_TIME_CONSTANT_S = 0.02


class Body(abc.ABC):
    """Registers and a horn, with the centre tick at 0 rad.

    `setpoint_rad` is where the servo's own profile generator is. A plant that calls
    `set_present_rad` owns the present position from then on; until then the present position
    follows the set-point as a first-order lag.
    """

    def __init__(
        self, model: Model, servo_id: int, centre_tick: int, velocity_limit_rad_s: float
    ) -> None:
        """`velocity_limit_rad_s`: what the mechanics allow."""
        self.model = model
        self.setpoint_rad = 0.0
        self._velocity_limit_rad_s = velocity_limit_rad_s
        self._setpoint_rad_s = self._present_rad_s = 0.0
        self._present_rad = self._present_before_rad = 0.0
        self._plant_owns_present = False
        self._centre_tick = centre_tick
        self._item_at = {item.address: (name, item) for name, item in model.items.items()}
        self._raw: dict[str, int] = {}  # what `_table` says, register by register
        self._stale = True  # whether what is measured has changed since it was last read
        self._table = bytearray(max(item.address + item.size for item in model.items.values()))
        self._pending: tuple[int, bytes] | None = None  # a registered write: (address, data)
        for name, item in model.items.items():
            self._set(name, item.initial)
        self._set("id", servo_id)

    def __getitem__(self, name: str) -> int:
        """The raw value of a register."""
        if self.model.items[name].limits is None:
            self._refresh()
        return self._get(name)

    def _get(self, name: str, missing: int = 0) -> int:
        """As `self[name]` but for what is measured; `missing` where the model has no such one."""
        return self._raw.get(name, missing)

    def _si(self, name: str) -> float:
        """The value of a register in its SI unit."""
        return self._get(name) * self.model.items[name].scale

    def _limit(self, name: str) -> float:
        """The SI value of a register in which 0 stands for no limit, as does its absence."""
        return abs(self._si(name)) or math.inf if name in self.model.items else math.inf

    def _set(self, name: str, raw: int) -> None:
        item = self.model.items[name]
        self._table[item.address : item.address + item.size] = item.pack(raw)
        self._raw[name] = raw
        self._stale = True

    @property
    def id(self) -> int:
        """The address on the bus."""
        return self._get("id")

    @property
    def torque_on(self) -> bool:
        """Whether the servo holds its set-point."""
        return bool(self._get("torque_enable"))

    @property
    @abc.abstractmethod
    def baud(self) -> int:
        """The rate at which it listens, in bit/s."""

    @abc.abstractmethod
    def set_baud(self, baud: int) -> None:
        """As if it had been set up for `baud`. Raises BusError where it cannot."""

    # What the world does

    def set_present_rad(self, position_rad: float) -> None:
        """The plant says where the horn is, in radians from the centre tick."""
        self._plant_owns_present = True
        self._present_rad = position_rad
        self._stale = True

    def sense(self, name: str, raw: int) -> None:
        """The world says what a sensor measures, e.g. `sense("present_temperature", 85)`."""
        self._set(name, raw)
        self._watch_health()

    @abc.abstractmethod
    def overload(self) -> None:
        """The load was too much for too long: the servo protects itself as its kind does."""

    @abc.abstractmethod
    def _watch_health(self) -> None:
        """Compare temperature and voltage with their limits."""

    @abc.abstractmethod
    def _drive(self, dt_s: float) -> None:
        """Move the set-point, with torque on."""

    def step(self, dt_s: float) -> None:
        """Let `dt_s` seconds pass."""
        self._stale = True
        if self.torque_on:
            self._drive(dt_s)
        else:
            self._rest()
        if not self._plant_owns_present:
            self._present_rad = lag(self._present_rad, self.setpoint_rad, _TIME_CONSTANT_S, dt_s)
        if dt_s > 0:
            self._present_rad_s = (self._present_rad - self._present_before_rad) / dt_s
            self._present_before_rad = self._present_rad

    def _rest(self) -> None:
        """Without torque the set-point goes where the horn is moved to."""
        self.setpoint_rad, self._setpoint_rad_s = self._present_rad, 0.0

    def _go(self, goal_rad: float, limits: Limits, dt_s: float) -> None:
        self.setpoint_rad, self._setpoint_rad_s = toward(
            self.setpoint_rad, self._setpoint_rad_s, goal_rad, self._bounded(limits), dt_s
        )

    def _spin(self, wanted_rad_s: float, limits: Limits, dt_s: float) -> None:
        most_rad_s, acceleration_rad_s2 = self._bounded(limits)
        bounded_rad_s = max(-most_rad_s, min(most_rad_s, wanted_rad_s))
        self._setpoint_rad_s = ramp(self._setpoint_rad_s, bounded_rad_s, acceleration_rad_s2, dt_s)
        self.setpoint_rad += self._setpoint_rad_s * dt_s

    def _bounded(self, limits: Limits) -> Limits:
        """`limits` within what the mechanics allow."""
        velocity_rad_s = min(limits.velocity_rad_s, self._velocity_limit_rad_s)
        return limits._replace(velocity_rad_s=velocity_rad_s)

    def _refresh(self) -> None:
        """Bring the registers of what is measured up to date: nobody sees them between reads."""
        if self._stale:
            self._measure()
            self._stale = False

    def _measure(self) -> None:
        self._put("present_position", self._ticks(self._present_rad))
        self._show("present_velocity", self._present_rad_s)
        self._set("moving", int(self._setpoint_rad_s != 0.0))

    def _show(self, name: str, value: float) -> None:
        """`_put` of a value in SI units."""
        self._put(name, round(value / self.model.items[name].scale))

    def _put(self, name: str, raw: int) -> None:
        """`raw`, or as near as the register comes to it."""
        largest = _largest(self.model.items[name])
        self._set(name, max(-largest, min(largest, raw)))

    def _ticks(self, position_rad: float) -> int:
        return self._centre_tick + round(position_rad / self._rad_per_tick)

    def _rad(self, ticks: int) -> float:
        return (ticks - self._centre_tick) * self._rad_per_tick

    @property
    def _rad_per_tick(self) -> float:
        return self.model.items["present_position"].scale


def _largest(item: Item) -> int:
    bits = 8 * item.size - 1 if item.sign_bit is None else item.sign_bit
    return (1 << bits) - 1
