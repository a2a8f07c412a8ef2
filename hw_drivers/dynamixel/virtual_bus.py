"""Virtual Dynamixels on one bus: a controller's bytes in, the servos' bytes out."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping

from hw_drivers.dynamixel.packet import (
    ACTION,
    BROADCAST_ID,
    BULK_READ,
    BULK_WRITE,
    CLEAR,
    FACTORY_RESET,
    FAST_BULK_READ,
    FAST_SYNC_READ,
    HEADER,
    MAX_ID,
    PING,
    READ,
    REBOOT,
    REG_WRITE,
    STATUS,
    SYNC_READ,
    SYNC_WRITE,
    WRITE,
    Instruction,
    InstructionParser,
    crc16,
    make_status,
)
from hw_drivers.dynamixel.virtual_servo import LENGTH_ERROR, RANGE_ERROR, VirtualDynamixel
from hw_drivers.virtual.bus import VirtualBus
from hw_drivers.virtual.wire_timing import Reply

INSTRUCTION_ERROR = 2
_ADDRESS_SIZE = struct.Struct("<HH")
_ID_ADDRESS_SIZE = struct.Struct("<BHH")
_CLEAR_TURNS = b"\x01\x44\x58\x4c\x22"  # e-manual, "Clear (0x10)": 1, then "DXL", then 0x22
_MAX_LENGTH = 1024  # of a servo's packet: RXPACKET_MAX_LEN in the vendor's SDK
# Parameter of "Factory Reset (0x06)" in the e-manual -> the registers that keep their value.
_KEPT_BY_RESET = {b"\xff": (), b"\x01": ("id",), b"\x02": ("id", "baud_rate")}

# Instruction -> the least Status Return Level (register 68) at which a servo answers it.
_ANSWERED_FROM_LEVEL = {PING: 0, READ: 1}
_ANSWERED_FROM_LEVEL_OTHERS = 2

_Servos = Mapping[int, VirtualDynamixel]


class VirtualDynamixelBus(VirtualBus[VirtualDynamixel]):
    """Answers every instruction of Protocol 2.0 as a chain of X-series servos does."""

    def __init__(self, servos: Iterable[VirtualDynamixel]) -> None:
        super().__init__(servos)
        self._parser = InstructionParser()

    def _hear(self, data: bytes, servos: _Servos) -> list[Reply]:
        return [
            reply
            for instruction in self._parser.feed(data)
            for reply in _execute(instruction, servos)
        ]


def _execute(instruction: Instruction, servos: _Servos) -> Iterator[Reply]:
    for servo in servos.values():
        servo.hear_instruction()
    group = _GROUP_ACTIONS.get(instruction.code)
    if group and instruction.id == BROADCAST_ID:
        yield from group(instruction.params, servos)
    else:
        yield from _execute_on_targets(instruction, servos)


def _execute_on_targets(instruction: Instruction, servos: _Servos) -> Iterator[Reply]:
    """All servos carry out a broadcast. They answer only a broadcast ping, in the order of ids."""
    broadcast = instruction.id == BROADCAST_ID
    for servo_id in sorted(servos) if broadcast else [instruction.id]:
        if servo := servos.get(servo_id):
            reply = _answer(servo, instruction.code, instruction.params)
            if not broadcast or instruction.code == PING:
                yield from reply
        if not broadcast:
            for shadow in _shadows(servo_id, servos):
                _answer(shadow, instruction.code, instruction.params)


def _shadows(servo_id: int, servos: _Servos) -> list[VirtualDynamixel]:
    """The servos that carry out what is sent to `servo_id`, without an answer.

    e-manual, "Secondary(Shadow) ID(12)".
    """
    others = [servo for servo in servos.values() if servo.id != servo_id]
    return [servo for servo in others if servo["secondary_id"] == servo_id <= MAX_ID]


def _answer(servo: VirtualDynamixel, code: int, params: bytes) -> list[Reply]:
    """Carry out one instruction. The answer has the id, alert and level from before it."""
    level = _ANSWERED_FROM_LEVEL.get(code, _ANSWERED_FROM_LEVEL_OTHERS)
    silent = servo["status_return_level"] < level
    servo_id, alert, delay_s = servo.id, servo.alert, _return_delay_s(servo)
    error, answer = _ACTIONS.get(code, _unknown)(servo, params)
    if silent:
        return []
    return [Reply(delay_s, make_status(servo_id, error | alert, answer), servo_id)]


def _return_delay_s(servo: VirtualDynamixel) -> float:
    return servo["return_delay_time"] * servo.model.items["return_delay_time"].scale


# Instructions to one servo: (servo, params) -> (error number, params of the answer).


def _ping(servo: VirtualDynamixel, _params: bytes) -> tuple[int, bytes]:
    return 0, struct.pack("<HB", servo["model_number"], servo["firmware_version"])


def _read(servo: VirtualDynamixel, params: bytes) -> tuple[int, bytes]:
    if len(params) != _ADDRESS_SIZE.size:
        return LENGTH_ERROR, b""
    return servo.read(*_ADDRESS_SIZE.unpack(params))


def _write(servo: VirtualDynamixel, params: bytes) -> tuple[int, bytes]:
    if len(params) < 3:
        return LENGTH_ERROR, b""
    return servo.write(int.from_bytes(params[:2], "little"), params[2:]), b""


def _reg_write(servo: VirtualDynamixel, params: bytes) -> tuple[int, bytes]:
    if len(params) < 3:
        return LENGTH_ERROR, b""
    return servo.register_write(int.from_bytes(params[:2], "little"), params[2:]), b""


def _action(servo: VirtualDynamixel, _params: bytes) -> tuple[int, bytes]:
    return servo.act(), b""


def _reboot(servo: VirtualDynamixel, _params: bytes) -> tuple[int, bytes]:
    servo.reboot()
    return 0, b""


def _factory_reset(servo: VirtualDynamixel, params: bytes) -> tuple[int, bytes]:
    if (keep := _KEPT_BY_RESET.get(params)) is None:
        return RANGE_ERROR, b""
    servo.factory_reset(keep)
    return 0, b""


def _clear(servo: VirtualDynamixel, params: bytes) -> tuple[int, bytes]:
    return (servo.clear_turns() if params == _CLEAR_TURNS else RANGE_ERROR), b""


def _unknown(_servo: VirtualDynamixel, _params: bytes) -> tuple[int, bytes]:
    return INSTRUCTION_ERROR, b""


_ACTIONS: dict[int, Callable[[VirtualDynamixel, bytes], tuple[int, bytes]]] = {
    PING: _ping,
    READ: _read,
    WRITE: _write,
    REG_WRITE: _reg_write,
    ACTION: _action,
    REBOOT: _reboot,
    FACTORY_RESET: _factory_reset,
    CLEAR: _clear,
}


# Instructions to many servos at once: (params, servos) -> replies. Broken params do nothing.

_Reads = list[tuple[int, bytes]]  # (id, address and size), in the order of the answers


def _sync_reads(params: bytes) -> _Reads:
    return [(servo_id, params[:4]) for servo_id in params[4:]]


def _bulk_reads(params: bytes) -> _Reads:
    whole = range(0, len(params) - _ID_ADDRESS_SIZE.size + 1, _ID_ADDRESS_SIZE.size)
    return [(params[at], params[at + 1 : at + _ID_ADDRESS_SIZE.size]) for at in whole]


def _read_each(reads: _Reads, servos: _Servos) -> Iterator[Reply]:
    for servo_id, where in reads:
        if servo := servos.get(servo_id):
            yield from _answer(servo, READ, where)


def _read_together(reads: _Reads, servos: _Servos) -> Iterator[Reply]:
    """The answer to a fast read: each servo adds error byte, id, data and the CRC so far.

    Each servo waits for the one before it, so a silent servo cuts off the rest of the packet. The
    bytes are not stuffed (pollen-robotics/rustypot#122).
    """
    sizes = [_ADDRESS_SIZE.unpack(where)[1] for _, where in reads]
    length = 1 + sum(size + 4 for size in sizes)
    if length > _MAX_LENGTH:
        return
    packet = HEADER + struct.pack("<BHB", BROADCAST_ID, length, STATUS)
    answering = []
    for (servo_id, where), size in zip(reads, sizes, strict=True):
        servo = servos.get(servo_id)
        if servo is None or not _answers_together(servo):
            break
        error, data = _read(servo, where)
        packet += bytes((error | servo.alert, servo_id)) + data.ljust(size, b"\0")
        packet += crc16(packet).to_bytes(2, "little")
        answering.append(servo)
    if answering:
        yield Reply(_return_delay_s(answering[0]), packet, answering[0].id)


def _answers_together(servo: VirtualDynamixel) -> bool:
    since = servo.model.fast_read_firmware
    understood = since is not None and servo["firmware_version"] >= since
    return understood and servo["status_return_level"] > 0


def _hearing(servo_id: int, servos: _Servos) -> list[VirtualDynamixel]:
    """The servo with this id, and its shadows."""
    own = [servos[servo_id]] if servo_id in servos else []
    return own + _shadows(servo_id, servos)


def _sync_write(params: bytes, servos: _Servos) -> Iterator[Reply]:
    """Write to many servos. Nobody answers, so a refused write shows only when read back."""
    if len(params) >= _ADDRESS_SIZE.size:
        address, size = _ADDRESS_SIZE.unpack_from(params)
        for at in range(_ADDRESS_SIZE.size, len(params) - size, 1 + size):
            for servo in _hearing(params[at], servos):
                servo.write(address, params[at + 1 : at + 1 + size])
    return iter(())


def _bulk_write(params: bytes, servos: _Servos) -> Iterator[Reply]:
    """As `_sync_write`, with an address and a size for each servo."""
    while len(params) > _ID_ADDRESS_SIZE.size:
        servo_id, address, size = _ID_ADDRESS_SIZE.unpack_from(params)
        data, params = params[5 : 5 + size], params[5 + size :]
        for servo in _hearing(servo_id, servos) if len(data) == size else ():
            servo.write(address, data)
    return iter(())


_GROUP_ACTIONS: dict[int, Callable[[bytes, _Servos], Iterator[Reply]]] = {
    SYNC_READ: lambda params, servos: _read_each(_sync_reads(params), servos),
    BULK_READ: lambda params, servos: _read_each(_bulk_reads(params), servos),
    FAST_SYNC_READ: lambda params, servos: _read_together(_sync_reads(params), servos),
    FAST_BULK_READ: lambda params, servos: _read_together(_bulk_reads(params), servos),
    SYNC_WRITE: _sync_write,
    BULK_WRITE: _bulk_write,
}
