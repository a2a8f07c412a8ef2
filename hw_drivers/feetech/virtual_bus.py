"""Virtual Feetech servos on one bus: a controller's bytes in, the servos' bytes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hw_drivers.feetech.models import NO_SYNC_READ
from hw_drivers.feetech.packet import (
    ACTION,
    BROADCAST_ID,
    PING,
    READ,
    REBOOT,
    REG_WRITE,
    SYNC_READ,
    SYNC_WRITE,
    WRITE,
    Instruction,
    InstructionParser,
    make_status,
)
from hw_drivers.feetech.virtual_servo import VirtualFeetech
from hw_drivers.virtual.bus import VirtualBus
from hw_drivers.virtual.wire_timing import Reply


class VirtualFeetechBus(VirtualBus[VirtualFeetech]):
    """Answers every instruction as a chain of Feetech servos does. SCS servos ignore sync reads."""

    def __init__(self, servos: Iterable[VirtualFeetech]) -> None:
        super().__init__(servos)
        self._parser = InstructionParser()

    def _hear(self, data: bytes, servos: Mapping[int, VirtualFeetech]) -> list[Reply]:
        return [
            reply
            for instruction in self._parser.feed(data)
            for reply in _execute(instruction, servos)
        ]


def _execute(instruction: Instruction, servos: Mapping[int, VirtualFeetech]) -> list[Reply]:
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


def _answer_to_all(servo: VirtualFeetech, code: int, params: bytes) -> list[Reply]:
    return [] if servo.model.name in NO_SYNC_READ else _answer(servo, code, params)


def _answer(servo: VirtualFeetech, code: int, params: bytes) -> list[Reply]:
    """Carry out one instruction. The answer has the id, alarms and level from before it."""
    servo_id, alarms = servo.id, servo.alarms
    silent = code == REBOOT or (code not in (PING, READ) and not servo["status_return_level"])
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
    elif code == REBOOT:
        servo.reboot()
    return [] if silent else [Reply(delay_s, make_status(servo_id, alarms, answer), servo_id)]


def _sync_write(params: bytes, servos: Mapping[int, VirtualFeetech]) -> None:
    address, size = params[:2]
    for at in range(2, len(params) - size, 1 + size):
        if servo := servos.get(params[at]):
            servo.write(address, params[at + 1 : at + 1 + size])
