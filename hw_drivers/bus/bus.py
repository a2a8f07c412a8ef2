"""A bus of servos, whatever they speak.

BusWire        one request and its answers, by a deadline      hw_drivers/bus/wire.py
Block          which registers, and what their bytes say       hw_drivers/bus/block.py
BlockReader    the same block of all servos, cycle by cycle    hw_drivers/bus/reader.py
ServoBus       all of it together; a child for each protocol   here
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hw_drivers.bus.block import Block
from hw_drivers.bus.port import Port
from hw_drivers.bus.reader import BlockReader
from hw_drivers.bus.registers import Item, Model
from hw_drivers.bus.wire import BusWire, Heard, Parser, Status
from v2a.clock import Clock
from v2a.errors import BusError

PING_TRIES = _READ_TRIES = 3  # a byte lost to noise is no reason to give up


@dataclass(frozen=True, slots=True)
class Pong:
    """What a servo says of itself when pinged."""

    model_number: int
    firmware_version: int


@dataclass(frozen=True, slots=True)
class SyncRead:
    """One register of n servos, in the order asked. A servo that did not answer, or answered with
    an error number, has valid False and raw NO_RAW; `error` is its error byte (0 for no answer),
    which may tell of an alarm in a valid answer, too."""

    raw: npt.NDArray[np.int64]
    valid: npt.NDArray[np.bool_]
    error: npt.NDArray[np.uint8]


class ServoBus(abc.ABC):
    """Servos on one port. Not for use by two threads at a time.

    Every method raises PortError when the port is gone. A request begins by throwing away what has
    been received, so that an answer that came too late is not taken for the next one.
    """

    def __init__(
        self, port: Port, clock: Clock, models: Mapping[int, Model], timeout_s: float = 0.02
    ) -> None:
        """`models`: servo id -> its model. `timeout_s`: from a request to its last answer, or to
        that of its repetition."""
        self.wire = BusWire(port, clock)
        self.models = models
        self.timeout_s = timeout_s
        self._sync_reads: dict[tuple[str, tuple[int, ...]], tuple[BlockReader, Block]] = {}

    def close(self) -> None:
        """Close the port."""
        self.wire.close()

    @abc.abstractmethod
    def ping(self, servo_id: int) -> Pong | None:
        """What the servo says of itself; None without an answer."""

    @abc.abstractmethod
    def scan(self) -> dict[int, Pong]:
        """Every servo that is there, by id. Takes about a second."""

    def read(self, servo_id: int, name: str) -> int:
        """The raw value of register `name`. Raises BusError on no answer or an error number."""
        item = self.item(servo_id, name)
        packet = self._read_packet(servo_id, item)
        status = self._request(servo_id, f"read {name}", packet, item.size, _READ_TRIES)
        return item.unpack(status.params)

    def write(self, servo_id: int, name: str, raw: int) -> None:
        """Write register `name`. Raises BusError on no answer or an error number."""
        item = self.item(servo_id, name)
        self._request(servo_id, f"write {name} = {raw}", self._write_packet(servo_id, item, raw), 0)

    def sync_read(self, name: str, ids: tuple[int, ...]) -> SyncRead:
        """Register `name` of all `ids` in one request; a missing servo leaves the others valid."""
        key = (name, ids)
        if key not in self._sync_reads:
            self.shared_item(name, ids)
            self._sync_reads[key] = self.reader(ids), self.block((name,), ids)
        reader, block = self._sync_reads[key]
        found = reader.read(block, self.timeout_s)
        return SyncRead(found.raw(name), found.valid, found.error)

    def block(self, names: Sequence[str], ids: Sequence[int]) -> Block:
        """The registers `names` of `ids`, as one block. Raises BusError where they can't be."""
        return Block({servo_id: self.models[servo_id] for servo_id in ids}, names)

    def cycle_reader(self, block: Block) -> BlockReader:
        """To read `block`, and others of the same servos, again and again, the quickest way."""
        return self.reader(block.ids)

    @abc.abstractmethod
    def sync_write(self, name: str, ids: tuple[int, ...], raw: Sequence[int]) -> None:
        """Write `raw[k]` to register `name` of `ids[k]` in one request. Nobody answers: a servo
        that refuses the value or is missing goes unnoticed."""

    def learn_return_delays(self) -> None:
        """Ask each servo how long it waits before it answers: that much longer to wait for it."""
        for servo_id, model in self.models.items():
            item = model.items["return_delay_time"]
            delay_s = self.read(servo_id, "return_delay_time") * item.scale
            self.wire.return_delay_ns[servo_id] = round(delay_s * 1e9)

    def item(self, servo_id: int, name: str) -> Item:
        """The register `name` of this servo. Raises BusError where it has none."""
        model = self.models[servo_id]
        if name not in model.items:
            raise BusError(f"servo {servo_id}: a {model.name} has no register {name!r}")
        return model.items[name]

    def shared_item(self, name: str, ids: Sequence[int]) -> Item:
        """The register `name` that all of `ids` have in one place. Raises BusError if not."""
        for servo_id in ids:
            self.item(servo_id, name)
        self.block((name,), ids)
        return self.item(ids[0], name)

    def _request(
        self, servo_id: int, what: str, packet: bytes, size: int, tries: int = 1
    ) -> Status:
        answers = self._answers(packet, size, (servo_id,), tries)
        if servo_id not in answers:
            raise BusError(
                f"servo {servo_id}: no answer to {what} within {self.timeout_s * 1e3:.0f} ms; "
                "check its cable, power, id and baud rate"
            )
        if reason := self._refusal(answers[servo_id].error):
            raise BusError(f"servo {servo_id}: refused to {what}: {reason}")
        return answers[servo_id]

    def _answers(self, packet: bytes, size: int, ids: Sequence[int], tries: int) -> Heard:
        """Ask up to `tries` times for answers of `size` bytes: what does no harm when repeated."""

        def fits(status: Status) -> bool:
            return len(status.params) == size or bool(self._refusal(status.error))

        for _ in range(tries):
            self.wire.settle(self.timeout_s)
            parser = self._parser(packet, size)
            heard = self.wire.ask_one(packet, parser, ids, self.timeout_s, fits)
            if heard:
                break
        return heard

    @abc.abstractmethod
    def reader(self, ids: tuple[int, ...]) -> BlockReader:
        """To read blocks of `ids` again and again."""

    @abc.abstractmethod
    def _read_packet(self, servo_id: int, item: Item) -> bytes: ...

    @abc.abstractmethod
    def _write_packet(self, servo_id: int, item: Item, raw: int) -> bytes: ...

    @abc.abstractmethod
    def _parser(self, packet: bytes, size: int) -> Parser:
        """For the answers of `size` bytes to `packet`."""

    @abc.abstractmethod
    def _refusal(self, error: int) -> str:
        """Why a servo did not do what it was asked to; '' where it did."""
