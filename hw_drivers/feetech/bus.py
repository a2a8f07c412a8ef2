"""The bus of Feetech servos."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hw_drivers.bus.bus import PING_TRIES, Pong, ServoBus
from hw_drivers.bus.port import Port
from hw_drivers.bus.reader import BlockReader
from hw_drivers.bus.registers import Item, Model
from hw_drivers.bus.wire import Request
from hw_drivers.feetech.models import MODELS, NO_SYNC_READ
from hw_drivers.feetech.packet import (
    BROADCAST_ID,
    HEADER,
    MAX_ID,
    StatusParser,
    make_action,
    make_ping,
    make_read,
    make_reboot,
    make_sync_read,
    make_sync_write,
    make_write,
)
from v2a.clock import Clock

_SCAN_TIMEOUT_S = 0.5
_SCAN_EACH_S = 0.003
_ECHO_S = 0.02
_DATA_AT, _CHECKSUM_BYTES = 5, 1  # FF FF ID LEN ALARMS data CHECKSUM
_VERSION_AND_MODEL = (0, 5)  # firmware 0 and 1, model number 3 and 4
_BIG_ENDIAN_NUMBERS = {
    model.number for model in MODELS.values() if model.items["model_number"].order == "big"
}


class FeetechBus(ServoBus):
    """Feetech STS and SMS servos, and SCS servos, which are read one by one."""

    def __init__(
        self, port: Port, clock: Clock, models: Mapping[int, Model], timeout_s: float = 0.02
    ) -> None:
        super().__init__(port, clock, models, timeout_s)
        self._echoes: bool | None = None  # whether the adapter sends requests back

    def ping(self, servo_id: int) -> Pong | None:
        """See `ServoBus`. Reads model and version, because the answer to a ping is empty."""
        packet = make_read(servo_id, *_VERSION_AND_MODEL)
        answers = self._answers(packet, _VERSION_AND_MODEL[1], (servo_id,), PING_TRIES)
        if servo_id not in answers:
            return None
        params = answers[servo_id].params
        little, big = (int.from_bytes(params[3:5], order) for order in ("little", "big"))
        number = big if big in _BIG_ENDIAN_NUMBERS else little
        return Pong(number, firmware_version=params[0], firmware_minor=params[1])

    def scan(self) -> dict[int, Pong]:
        """See `ServoBus`. Pings each id by itself too: some servos ignore a broadcast ping."""
        everyone = range(MAX_ID + 1)
        packet = make_ping(BROADCAST_ID)
        parser = self._parser(packet, 0)
        found = set(self.wire.ask_one(packet, parser, everyone, _SCAN_TIMEOUT_S))
        for servo_id in everyone:
            packet = make_ping(servo_id)
            parser = self._parser(packet, 0)
            if servo_id not in found:
                found |= set(self.wire.ask_one(packet, parser, (servo_id,), _SCAN_EACH_S))
        return {i: pong for i in sorted(found) if (pong := self.ping(i))}

    def reboot(self, servo_id: int) -> None:
        """See `ServoBus`. Torque off ends an overload. A restart follows if an alarm stays.

        The manual knows no restart, so nothing depends on it: a servo may ignore the instruction.
        """
        self.write(servo_id, "torque_enable", 0)
        if self.read(servo_id, "hardware_error_status"):
            self.wire.send(make_reboot(servo_id))

    def sync_write(self, name: str, ids: tuple[int, ...], raw: Sequence[int]) -> None:
        """See `ServoBus`."""
        item = self.shared_item(name, ids)
        blocks = {servo_id: item.pack(value) for servo_id, value in zip(ids, raw, strict=True)}
        self.wire.send(make_sync_write(item.address, item.size, blocks))

    def reader(self, ids: tuple[int, ...]) -> BlockReader:
        """See `ServoBus`."""
        if any(self.models[servo_id].name in NO_SYNC_READ for servo_id in ids):
            return BlockReader(self.wire, ids, self._read_request, one_by_one=True)
        return BlockReader(self.wire, ids, sync_read_request)

    def _read_request(self, address: int, size: int, ids: Sequence[int]) -> Request:
        packet = make_read(ids[0], address, size)
        return _request(packet, address, size, ids, lambda: self._parser(packet, size))

    def _read_packet(self, servo_id: int, item: Item) -> bytes:
        return make_read(servo_id, item.address, item.size)

    def _write_packet(self, servo_id: int, item: Item, raw: int) -> bytes:
        return make_write(servo_id, item.address, item.pack(raw))

    def _parser(self, packet: bytes, size: int) -> StatusParser:
        """Skips the echo of a request, which would pass for an answer with an alarm."""
        if self._echoes is None:
            listener, unanswered = (
                _Listener(),
                make_action(),
            )  # no write is registered, so it does nothing
            self.wire.ask_one(unanswered, listener, (BROADCAST_ID,), _ECHO_S)
            self._echoes = unanswered in listener.received
        return StatusParser(size, packet if self._echoes else b"")

    def _refusal(self, error: int) -> str:
        return ""  # the alarm byte reports, it never refuses


def sync_read_request(address: int, size: int, ids: Sequence[int]) -> Request:
    """A sync read, to which each servo answers by a packet. An echo has the broadcast id."""
    packet = make_sync_read(address, size, ids)
    return _request(packet, address, size, ids, lambda: StatusParser(size))


def _request(
    packet: bytes, address: int, size: int, ids: Sequence[int], parser: Callable[[], StatusParser]
) -> Request:
    prefixes = [HEADER + bytes((servo_id, size + 2, 0)) for servo_id in ids]  # no alarms
    row_bytes = _DATA_AT + size + _CHECKSUM_BYTES
    expected = [(k * row_bytes, prefix) for k, prefix in enumerate(prefixes)]

    def clean(received: bytes) -> bool:
        return len(received) == row_bytes * len(expected) and all(
            received.startswith(prefix, at) and _checksum_fits(received[at : at + row_bytes])
            for at, prefix in expected
        )

    return Request(packet, tuple(ids), address, size, 0, row_bytes, _DATA_AT, clean, parser)


def _checksum_fits(row: bytes) -> bool:
    """Whether the bytes from the id to the checksum add up to 255, modulo 256."""
    return sum(row, -sum(HEADER)) & 0xFF == 0xFF


class _Listener:
    """Keeps the bytes it is fed, and finds no answers."""

    def __init__(self) -> None:
        self.received = b""

    def feed(self, data: bytes) -> tuple[()]:
        self.received += data
        return ()
