"""The Dynamixel bus: requests out, answers in, each servo's answer judged by itself."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hw_drivers.dynamixel.models import Item, Model
from hw_drivers.dynamixel.packet import (
    ALERT_BIT,
    BROADCAST_ID,
    ERROR_NUMBERS,
    MAX_ID,
    Status,
    StatusParser,
    make_ping,
    make_read,
    make_reboot,
    make_sync_read,
    make_sync_write,
    make_write,
)
from hw_drivers.port import Port
from v2a.clock import Clock
from v2a.errors import BusError

NO_RAW = np.iinfo(np.int64).min  # in `SyncRead.raw` where valid is False; no register holds it
# On a broadcast ping every possible ID has its own 3 ms to answer in (DynamixelSDK, broadcastPing).
_SCAN_TIMEOUT_S = 0.003 * (MAX_ID + 1)


@dataclass(frozen=True, slots=True)
class Pong:
    """What a servo says of itself when pinged."""

    model_number: int
    firmware_version: int


@dataclass(frozen=True, slots=True)
class SyncRead:
    """One register of n servos, in the order asked. A servo that did not answer, or answered with
    an error number, has valid False and raw NO_RAW; `error` is its error byte (0 for no answer),
    whose bit 7 (ALERT_BIT) may be set on a valid answer, too."""

    raw: npt.NDArray[np.int64]
    valid: npt.NDArray[np.bool_]
    error: npt.NDArray[np.uint8]


class DynamixelBus:
    """Servos on one port. Not for use by two threads at a time.

    Every method raises PortError when the port is gone. A request begins by throwing away what has
    been received, so that an answer that came too late is not taken for the next one.
    """

    def __init__(
        self, port: Port, clock: Clock, models: Mapping[int, Model], timeout_s: float = 0.02
    ) -> None:
        """`models`: servo id -> its model. `timeout_s`: from a request to its last answer."""
        self._port = port
        self._clock = clock
        self._models = models
        self._timeout_s = timeout_s
        self._sync_read_packets: dict[tuple[str, tuple[int, ...]], tuple[Item, bytes]] = {}

    def close(self) -> None:
        """Close the port."""
        self._port.close()

    def ping(self, servo_id: int) -> Pong | None:
        """What the servo says of itself; None without an answer."""
        pongs = _pongs(self._exchange(make_ping(servo_id), {servo_id}, self._timeout_s))
        return pongs.get(servo_id)

    def scan(self) -> dict[int, Pong]:
        """Every servo that answers a broadcast ping, by id. Takes 0.8 s."""
        everyone = set(range(MAX_ID + 1))
        return _pongs(self._exchange(make_ping(BROADCAST_ID), everyone, _SCAN_TIMEOUT_S))

    def read(self, servo_id: int, name: str) -> int:
        """The raw value of register `name`. Raises BusError on no answer or an error number."""
        item = self._item(servo_id, name)
        packet = make_read(servo_id, item.address, item.size)
        status = self._request(servo_id, f"read {name}", packet)
        if len(status.params) != item.size:
            raise BusError(
                f"servo {servo_id}: read {name}: {len(status.params)} bytes came, "
                f"expected {item.size}; check that no two servos have this id"
            )
        return item.unpack(status.params)

    def write(self, servo_id: int, name: str, raw: int) -> None:
        """Write register `name`. Raises BusError on no answer or an error number."""
        item = self._item(servo_id, name)
        packet = make_write(servo_id, item.address, item.pack(raw))
        self._request(servo_id, f"write {name} = {raw}", packet)

    def reboot(self, servo_id: int) -> None:
        """Restart the servo: clears its hardware error, drops its torque."""
        self._request(servo_id, "reboot", make_reboot(servo_id))

    def sync_read(self, name: str, ids: tuple[int, ...]) -> SyncRead:
        """Register `name` of all `ids` in one request; a missing servo leaves the others valid."""
        key = (name, ids)
        if key not in self._sync_read_packets:
            item = self._shared_item(name, ids)
            self._sync_read_packets[key] = item, make_sync_read(item.address, item.size, ids)
        item, packet = self._sync_read_packets[key]
        return _decode(item, ids, self._exchange(packet, set(ids), self._timeout_s))

    def sync_write(self, name: str, ids: Sequence[int], raw: Iterable[int]) -> None:
        """Write `raw[k]` to register `name` of `ids[k]` in one request. Nobody answers: a servo
        that refuses the value or is missing goes unnoticed."""
        item = self._shared_item(name, ids)
        blocks = {servo_id: item.pack(value) for servo_id, value in zip(ids, raw, strict=True)}
        self._port.write(make_sync_write(item.address, item.size, blocks))

    def _item(self, servo_id: int, name: str) -> Item:
        model = self._models[servo_id]
        if name not in model.items:
            raise BusError(f"servo {servo_id}: a {model.name} has no register {name!r}")
        return model.items[name]

    def _shared_item(self, name: str, ids: Sequence[int]) -> Item:
        item = self._item(ids[0], name)
        for servo_id in ids[1:]:
            other = self._item(servo_id, name)
            if (other.address, other.size) != (item.address, item.size):
                raise BusError(
                    f"servo {servo_id}: {name} is at {other.address} ({other.size} bytes), at "
                    f"{item.address} ({item.size} bytes) in servo {ids[0]}; access them one by one"
                )
        return item

    def _request(self, servo_id: int, what: str, packet: bytes) -> Status:
        answers = self._exchange(packet, {servo_id}, self._timeout_s)
        if servo_id not in answers:
            raise BusError(
                f"servo {servo_id}: no answer to {what} within {self._timeout_s * 1e3:.0f} ms; "
                "check its cable, power, id and baud rate"
            )
        status = answers[servo_id]
        if number := status.error & ~ALERT_BIT:
            reason = ERROR_NUMBERS.get(number, f"unknown error {number}")
            raise BusError(f"servo {servo_id}: refused to {what}: {reason}")
        return status

    def _exchange(self, packet: bytes, expected: set[int], timeout_s: float) -> dict[int, Status]:
        """Send `packet`, collect the answers of `expected` until all came or the time is over."""
        self._port.reset_input()
        self._port.write(packet)
        answers: dict[int, Status] = {}
        for status in self._statuses(timeout_s):
            if status.id in expected:
                answers[status.id] = status
                if len(answers) == len(expected):
                    break
        return answers

    def _statuses(self, timeout_s: float) -> Iterator[Status]:
        """Status packets as they come, up to the deadline. What has arrived by then is still
        looked at: a host that was stopped past the deadline has the answers waiting."""
        parser = StatusParser()
        deadline_ns = self._clock.now_ns() + round(timeout_s * 1e9)
        remaining_ns = 1
        while remaining_ns > 0:
            remaining_ns = deadline_ns - self._clock.now_ns()
            data = self._port.read(max(remaining_ns, 0) * 1e-9)
            if not data:
                return
            yield from parser.feed(data)


def _pongs(answers: Mapping[int, Status]) -> dict[int, Pong]:
    return {
        servo_id: Pong(*struct.unpack("<HB", status.params))
        for servo_id, status in sorted(answers.items())
        if len(status.params) == 3
    }


def _decode(item: Item, ids: tuple[int, ...], answers: Mapping[int, Status]) -> SyncRead:
    raw, valid, error = [NO_RAW] * len(ids), [False] * len(ids), [0] * len(ids)
    for k, servo_id in enumerate(ids):
        if status := answers.get(servo_id):
            error[k] = status.error
            if not status.error & ~ALERT_BIT and len(status.params) == item.size:
                raw[k], valid[k] = item.unpack(status.params), True
    return SyncRead(np.array(raw, np.int64), np.array(valid), np.array(error, np.uint8))
