"""Virtual Feetech servos: their tables, their rules, and the bus that they share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from hw_drivers.bus.registers import Item, Model
from hw_drivers.feetech.models import (
    BAUD_RATES,
    MULTI_TURN_PHASE_BIT,
    NO_SYNC_READ,
    POSITION_MODE,
    SRAM_START,
    TORQUE_CALIBRATE,
)
from hw_drivers.feetech.packet import (
    ACTION,
    BROADCAST_ID,
    PING,
    READ,
    REG_WRITE,
    SYNC_READ,
    SYNC_WRITE,
    WRITE,
    Instruction,
    InstructionParser,
    make_status,
)
from hw_drivers.virtual.body import Body
from hw_drivers.virtual.line import Line
from hw_drivers.virtual.motion import Limits
from hw_drivers.virtual.wire import Reply
from v2a.errors import BusError

_TABLE_BYTES = 256  # an address is one byte; where no register is known, 0 is read
_VELOCITY_MODE = 1
_VOLTAGE_ALARM, _HEAT_ALARM, _OVERLOAD_ALARM = 1 << 0, 1 << 2, 1 << 5


class FeetechServo(Body):
    """One STS or SCS servo. Nothing is refused: what may not be written is passed over, what is out
    of range is clipped, and the alarm byte only reports. No watchdog: it holds its goal for ever.

    Gains and goal_time are stored and no more; in PWM and step mode the horn rests.
    """

    def __init__(self, model: Model, servo_id: int, velocity_limit_rad_s: float = math.inf) -> None:
        centre = model.items["goal_position"].initial
        super().__init__(model, servo_id, centre, velocity_limit_rad_s)
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
        """The alarm byte of its answers."""
        return self._get("hardware_error_status")

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes from `address`; fewer at the end of the table."""
        self._refresh()
        return bytes(self._table[address : address + size])

    def write(self, address: int, data: bytes) -> None:
        """Write the registers that `data` covers."""
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

    def _make_here_the_centre(self) -> None:
        if "homing_offset" in self.model.items:
            turned = round(self._present_rad / self._rad_per_tick)
            half = self._centre_tick
            self._put("homing_offset", (turned + half) % (2 * half) - half)

    # What the world does

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
        limits = Limits(self._limit("goal_velocity"), self._limit("acceleration"))
        mode = self._get("operating_mode", POSITION_MODE)
        if mode == POSITION_MODE:
            self._go(self._goal_rad(), limits, dt_s)
        elif mode == _VELOCITY_MODE:
            self._spin(self._si("goal_velocity"), limits, dt_s)

    def _goal_rad(self) -> float:
        """The goal within the position limits; two zeros there mean no limits."""
        low, high = self._get("min_position_limit"), self._get("max_position_limit")
        goal = self._get("goal_position")
        return self._rad(max(low, min(high, goal)) if (low, high) != (0, 0) else goal)

    # present = actual - offset (hw_drivers/feetech/models.py)

    def _ticks(self, position_rad: float) -> int:
        """An encoder wraps unless it counts turns, a potentiometer ends."""
        ticks = super()._ticks(position_rad) - self._get("homing_offset")
        turn = 2 * self._centre_tick
        if "phase" not in self.model.items:
            return max(0, min(turn - 1, ticks))
        return ticks if self._get("phase") & MULTI_TURN_PHASE_BIT else ticks % turn

    def _rad(self, ticks: int) -> float:
        return super()._rad(ticks + self._get("homing_offset"))


class FeetechChain(Line[FeetechServo]):
    """Answers every instruction as a chain of Feetech servos; SCS ones know no sync read."""

    def __init__(self, servos: Iterable[FeetechServo]) -> None:
        super().__init__(servos)
        self._parser = InstructionParser()

    def _hear(self, data: bytes, servos: Mapping[int, FeetechServo]) -> list[Reply]:
        return [
            reply
            for instruction in self._parser.feed(data)
            for reply in _execute(instruction, servos)
        ]


def _execute(instruction: Instruction, servos: Mapping[int, FeetechServo]) -> list[Reply]:
    code, params = instruction.code, instruction.params
    if instruction.id != BROADCAST_ID:
        target = servos.get(instruction.id)
        return _answer(target, code, params) if target else []
    if code == PING:
        return [reply for k in sorted(servos) for reply in _answer_to_all(servos[k], code, params)]
    if code == SYNC_READ:
        asked = [servos[servo_id] for servo_id in params[2:] if servo_id in servos]
        return [reply for servo in asked for reply in _answer_to_all(servo, READ, params[:2])]
    if code == SYNC_WRITE:
        _sync_write(params, servos)
    elif code in (WRITE, REG_WRITE, ACTION):
        for servo in servos.values():
            _answer(servo, code, params)
    return []


def _answer_to_all(servo: FeetechServo, code: int, params: bytes) -> list[Reply]:
    return [] if servo.model.name in NO_SYNC_READ else _answer(servo, code, params)


def _answer(servo: FeetechServo, code: int, params: bytes) -> list[Reply]:
    """Carry out one instruction; id, alarms and return level count as they were before it."""
    servo_id, alarms = servo.id, servo.alarms
    silent = code not in (PING, READ) and not servo["status_return_level"]
    delay_s = servo["return_delay_time"] * servo.model.items["return_delay_time"].scale
    answer = b""
    if code == READ:
        answer = servo.read(*params)
        silent = len(answer) != params[1]
    elif code == WRITE:
        servo.write(params[0], params[1:])
    elif code == REG_WRITE:
        servo.register_write(params[0], params[1:])
    elif code == ACTION:
        servo.act()
    return [] if silent else [Reply(delay_s, make_status(servo_id, alarms, answer), servo_id)]


def _sync_write(params: bytes, servos: Mapping[int, FeetechServo]) -> None:
    address, size = params[:2]
    for at in range(2, len(params) - size, 1 + size):
        if servo := servos.get(params[at]):
            servo.write(address, params[at + 1 : at + 1 + size])
