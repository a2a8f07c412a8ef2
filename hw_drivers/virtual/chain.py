"""Virtual servos on one bus: bytes of a controller in, bytes of the servos out."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from hw_drivers.dynamixel.packet import (
    BROADCAST_ID,
    PING,
    READ,
    REBOOT,
    SYNC_READ,
    SYNC_WRITE,
    WRITE,
    Instruction,
    InstructionParser,
    make_status,
)
from hw_drivers.virtual.servo import LENGTH_ERROR, VirtualServo

INSTRUCTION_ERROR = 2
_ADDRESS_SIZE = struct.Struct("<HH")

# Status Return Level (register 68), the level from which an instruction is answered. Ping always.
_ANSWERED_FROM_LEVEL = {PING: 0, READ: 1, SYNC_READ: 1}
_ANSWERED_FROM_LEVEL_OTHERS = 2


@dataclass(frozen=True, slots=True)
class Reply:
    """A status packet, and how long the servo waits before it sends it (register 9)."""

    delay_s: float
    packet: bytes


class VirtualChain:
    """Answers ping, read, write, reboot, sync read and sync write as a chain of X-series servos.

    `lock` guards the servos: `respond` and `step` take it, and a plant in another thread holds it
    while it reads `setpoint_rad` and calls `set_present_rad`. Its holder may take it again.
    Remove a servo from `servos` (by id) to unplug it.
    """

    def __init__(self, servos: Iterable[VirtualServo]) -> None:
        self.servos = {servo.id: servo for servo in servos}
        self.lock = threading.RLock()
        self._parser = InstructionParser()

    def step(self, dt_s: float) -> None:
        """Let `dt_s` seconds pass for every servo."""
        with self.lock:
            for servo in self.servos.values():
                servo.step(dt_s)

    def respond(self, data: bytes) -> bytes:
        """The bytes that the servos send back to `data`; incomplete packets wait for the rest."""
        return b"".join(reply.packet for reply in self.replies(data))

    def replies(self, data: bytes) -> list[Reply]:
        """As `respond`, packet by packet with its delay."""
        with self.lock:
            return [
                reply
                for instruction in self._parser.feed(data)
                for reply in self._execute(instruction)
            ]

    def _execute(self, instruction: Instruction) -> Iterator[Reply]:
        for servo in self.servos.values():
            servo.hear_instruction()
        if instruction.code == SYNC_READ:
            yield from self._sync_read(instruction.params)
        elif instruction.code == SYNC_WRITE:
            self._sync_write(instruction.params)
        else:
            yield from self._execute_on_targets(instruction)

    def _execute_on_targets(self, instruction: Instruction) -> Iterator[Reply]:
        """A broadcast is carried out by all; only a broadcast ping is answered, in ID order."""
        broadcast = instruction.id == BROADCAST_ID
        for servo_id in sorted(self.servos) if broadcast else [instruction.id]:
            if servo := self.servos.get(servo_id):
                reply = _answer(servo, instruction.code, instruction.params)
                if not broadcast or instruction.code == PING:
                    yield from reply
        if instruction.code == WRITE:  # which may have been of an id
            self.servos = {servo.id: servo for servo in self.servos.values()}

    def _sync_read(self, params: bytes) -> Iterator[Reply]:
        for servo_id in params[_ADDRESS_SIZE.size :]:
            if servo := self.servos.get(servo_id):
                yield from _answer(servo, SYNC_READ, params[: _ADDRESS_SIZE.size])

    def _sync_write(self, params: bytes) -> None:
        """No answers, as the protocol has it: a refused write shows only when read back."""
        if len(params) < _ADDRESS_SIZE.size:
            return
        address, size = _ADDRESS_SIZE.unpack_from(params)
        for at in range(_ADDRESS_SIZE.size, len(params) - size, 1 + size):
            if servo := self.servos.get(params[at]):
                servo.write(address, params[at + 1 : at + 1 + size])


def _answer(servo: VirtualServo, code: int, params: bytes) -> list[Reply]:
    """Carry out one instruction. Id, alert and return level count as they were before it."""
    level = _ANSWERED_FROM_LEVEL.get(code, _ANSWERED_FROM_LEVEL_OTHERS)
    silent = servo["status_return_level"] < level
    servo_id, alert = servo.id, servo.alert
    error, answer = _ACTIONS.get(code, _unknown)(servo, params)
    if silent:
        return []
    delay_s = servo["return_delay_time"] * servo.model.items["return_delay_time"].scale
    return [Reply(delay_s, make_status(servo_id, error | alert, answer))]


def _ping(servo: VirtualServo, _params: bytes) -> tuple[int, bytes]:
    return 0, struct.pack("<HB", servo["model_number"], servo["firmware_version"])


def _read(servo: VirtualServo, params: bytes) -> tuple[int, bytes]:
    if len(params) != _ADDRESS_SIZE.size:
        return LENGTH_ERROR, b""
    return servo.read(*_ADDRESS_SIZE.unpack(params))


def _write(servo: VirtualServo, params: bytes) -> tuple[int, bytes]:
    if len(params) < 3:
        return LENGTH_ERROR, b""
    return servo.write(int.from_bytes(params[:2], "little"), params[2:]), b""


def _reboot(servo: VirtualServo, _params: bytes) -> tuple[int, bytes]:
    servo.reboot()
    return 0, b""


def _unknown(_servo: VirtualServo, _params: bytes) -> tuple[int, bytes]:
    return INSTRUCTION_ERROR, b""


# Instruction -> what a servo does: (servo, params) -> (error number, params of the answer).
_ACTIONS: dict[int, Callable[[VirtualServo, bytes], tuple[int, bytes]]] = {
    PING: _ping,
    READ: _read,
    SYNC_READ: _read,
    WRITE: _write,
    REBOOT: _reboot,
}
