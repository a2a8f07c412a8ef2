"""The base of every virtual servo, of any family: its registers, and a horn that moves."""

from __future__ import annotations

import abc
import math

from hw_drivers.bus.registers import Item, Model
from hw_drivers.virtual.motion import Limits, lag, ramp, toward

# A guess at how fast a small servo's position loop is. Nothing depends on its value.
_TIME_CONSTANT_S = 0.02


class VirtualServo(abc.ABC):
    """Registers and a horn. The horn is at 0 rad at the centre tick, where a goal begins.

    `setpoint_rad` is the position that the servo's own profile generator asks for. The horn follows
    it as a first-order lag, until a plant calls `set_present_rad`. From then on the plant decides
    where the horn is.
    """

    def __init__(self, model: Model, servo_id: int, velocity_limit_rad_s: float = math.inf) -> None:
        """`velocity_limit_rad_s` is the highest speed that the mechanics allow."""
        self.model = model
        self.setpoint_rad = 0.0
        self._velocity_limit_rad_s = velocity_limit_rad_s
        self._setpoint_rad_s = self._present_rad_s = 0.0
        self._present_rad = self._present_before_rad = 0.0
        self._plant_owns_present = False
        self._centre_tick = model.items["goal_position"].initial
        self._item_at = {item.address: (name, item) for name, item in model.items.items()}
        self._raw: dict[str, int] = {}  # the contents of `_table`, register by register
        self._stale = True  # whether a measured value has changed since its last read
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
        """The raw value, not brought up to date; `missing` if the model lacks the register."""
        return self._raw.get(name, missing)

    def _si(self, name: str) -> float:
        """The value of a register in its SI unit."""
        return self._get(name) * self.model.items[name].scale

    def _limit(self, name: str) -> float:
        """The SI value of a limit; `inf` if the register is 0 or missing."""
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
        """Set the servo up for `baud`, in bit/s. Raises BusError if its family has no such rate."""

    # What the world does to the servo

    def set_present_rad(self, position_rad: float) -> None:
        """Put the horn at `position_rad`, on behalf of the plant."""
        self._plant_owns_present = True
        self._present_rad = position_rad
        self._stale = True

    def rest_at(self, tick: float) -> None:
        """Put the horn and the set-point at `tick`. Who moves the horn stays as it is."""
        owner = self._plant_owns_present
        self.setpoint_rad = self._rad(tick)
        self.set_present_rad(self.setpoint_rad)
        self._plant_owns_present = owner

    def sense(self, name: str, raw: int) -> None:
        """Set what a sensor measures, e.g. `sense("present_temperature", 85)`."""
        self._set(name, raw)
        self._watch_health()

    @abc.abstractmethod
    def overload(self) -> None:
        """Overload the servo. It protects itself in the way of its family."""

    @abc.abstractmethod
    def _watch_health(self) -> None:
        """Compare temperature and voltage with their limits, and raise or clear alarms."""

    @abc.abstractmethod
    def _drive(self, dt_s: float) -> None:
        """Move the set-point for `dt_s` seconds. Torque is on."""

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
        """Let the set-point follow the horn, as it does without torque."""
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
        """`limits`, narrowed to what the mechanics allow."""
        velocity_rad_s = min(limits.velocity_rad_s, self._velocity_limit_rad_s)
        return limits._replace(velocity_rad_s=velocity_rad_s)

    def _refresh(self) -> None:
        """Bring the measured registers up to date. Between reads nobody sees them."""
        if self._stale:
            self._measure()
            self._stale = False

    def _measure(self) -> None:
        self._put("present_position", self._ticks(self._present_rad))
        if "present_velocity" in self.model.items:
            self._show("present_velocity", self._present_rad_s)
        if "moving" in self.model.items:
            self._set("moving", int(self._setpoint_rad_s != 0.0))

    def _show(self, name: str, value: float) -> None:
        """`_put` a value in SI units."""
        self._put(name, round(value / self.model.items[name].scale))

    def _put(self, name: str, raw: int) -> None:
        """Set the register to `raw`, or to the nearest value that it can hold."""
        largest = _largest(self.model.items[name])
        self._set(name, max(-largest, min(largest, raw)))

    def _ticks(self, position_rad: float) -> int:
        return self._centre_tick + round(position_rad / self._rad_per_tick)

    def _rad(self, ticks: float) -> float:
        return (ticks - self._centre_tick) * self._rad_per_tick

    @property
    def _rad_per_tick(self) -> float:
        return self.model.rad_per_tick


def _largest(item: Item) -> int:
    bits = 8 * item.size - 1 if item.sign_bit is None else item.sign_bit
    return (1 << bits) - 1
