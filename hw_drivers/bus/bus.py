"""The bus: reads and writes registers of servos of any family.

BusWire        sends one request and collects its answers          hw_drivers/bus/wire.py
Block          which registers to read, and what their bytes mean  hw_drivers/bus/block.py
BlockReader    reads the same block of all servos in every cycle   hw_drivers/bus/reader.py
ServoBus       puts these together; each family has a subclass     here
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

PING_TRIES = _READ_TRIES = 3  # noise may destroy one answer


@dataclass(frozen=True, slots=True)
class Pong:
    """A servo's answer to a ping. Feetech servos have a minor version besides the version."""

    model_number: int
    firmware_version: int
    firmware_minor: int | None = None

    @property
    def firmware(self) -> str:
        """The firmware as the vendor writes it: 46 on a Dynamixel, 3.10 on a Feetech servo."""
        if self.firmware_minor is None:
            return str(self.firmware_version)
        return f"{self.firmware_version}.{self.firmware_minor}"


@dataclass(frozen=True, slots=True)
class SyncRead:
    """One register of n servos, in the order of the request.

    `raw` int64 [n] is the register's value. A servo that did not answer or refused has `valid`
    bool [n] False and `raw` NO_RAW. `error` uint8 [n] is the error byte of its answer, 0 without
    one. In a valid answer it may report an alarm.
    """

    raw: npt.NDArray[np.int64]
    valid: npt.NDArray[np.bool_]
    error: npt.NDArray[np.uint8]


class ServoBus(abc.ABC):
    """Servos on one port. Two threads must not use it at the same time.

    Every method raises PortError when the port is gone. A request first discards the bytes that
    have arrived, so that a late answer is not taken for the next one.
    """

    def __init__(
        self, port: Port, clock: Clock, models: Mapping[int, Model], timeout_s: float = 0.02
    ) -> None:
        """`models`: servo id -> its model. `timeout_s`: the longest wait for answers."""
        self.wire = BusWire(port, clock)
        self.models = models
        self.timeout_s = timeout_s
        self._sync_reads: dict[tuple[str, tuple[int, ...]], tuple[BlockReader, Block]] = {}

    def close(self) -> None:
        """Close the port."""
        self.wire.close()

    @abc.abstractmethod
    def ping(self, servo_id: int) -> Pong | None:
        """Ask the servo for its model and firmware; None if it does not answer."""

    @abc.abstractmethod
    def scan(self) -> dict[int, Pong]:
        """Find every servo on the bus: id -> its answer. Takes about a second."""

    @abc.abstractmethod
    def reboot(self, servo_id: int) -> None:
        """Restart the servo, which switches torque off and ends hardware errors without a cause.

        Raises BusError if it does not answer. Its registers in RAM start anew.
        """

    def read(self, servo_id: int, name: str) -> int:
        """Read register `name`, raw. Raises BusError if the servo does not answer or refuses."""
        return self.read_item(servo_id, name, self.item(servo_id, name))

    def read_item(self, servo_id: int, name: str, item: Item) -> int:
        """Read the register `name`, which is `item`, of a servo whose model need not be known."""
        packet = self._read_packet(servo_id, item)
        status = self._request(servo_id, f"read {name}", packet, item.size, _READ_TRIES)
        return item.unpack(status.params)

    def write(self, servo_id: int, name: str, raw: int) -> None:
        """Write register `name`. Raises BusError if the servo does not answer or refuses."""
        item = self.item(servo_id, name)
        self._request(servo_id, f"write {name} = {raw}", self._write_packet(servo_id, item, raw), 0)

    def sync_read(self, name: str, ids: tuple[int, ...]) -> SyncRead:
        """Read register `name` of all `ids`. A missing servo leaves the others valid."""
        key = (name, ids)
        if key not in self._sync_reads:
            self.shared_item(name, ids)
            self._sync_reads[key] = self.reader(ids), self.block((name,), ids)
        reader, block = self._sync_reads[key]
        found = reader.read(block, self.timeout_s)
        return SyncRead(found.raw(name), found.valid, found.error)

    def block(self, names: Sequence[str], ids: Sequence[int]) -> Block:
        """The block of registers `names` of `ids`. Raises BusError if they are no common block."""
        return Block({servo_id: self.models[servo_id] for servo_id in ids}, names)

    def cycle_reader(self, block: Block) -> BlockReader:
        """A reader for `block`, and other blocks of the same servos, by the quickest request."""
        return self.reader(block.ids)

    @abc.abstractmethod
    def sync_write(self, name: str, ids: tuple[int, ...], raw: Sequence[int]) -> None:
        """Write `raw[k]` to register `name` of `ids[k]`, for every k, in one request.

        Nobody answers, so a servo that refuses or is missing goes unnoticed.
        """

    def learn_return_delays(self) -> None:
        """Read each servo's delay before an answer, and wait that much longer from now on."""
        for servo_id, model in self.models.items():
            item = model.items["return_delay_time"]
            delay_s = self.read(servo_id, "return_delay_time") * item.scale
            self.wire.return_delay_ns[servo_id] = round(delay_s * 1e9)

    def item(self, servo_id: int, name: str) -> Item:
        """The register `name` of this servo. Raises BusError if it has none."""
        model = self.models[servo_id]
        if name not in model.items:
            raise BusError(f"servo {servo_id}: a {model.name} has no register {name!r}")
        return model.items[name]

    def shared_item(self, name: str, ids: Sequence[int]) -> Item:
        """The register `name`, at one address in all of `ids`. Raises BusError if it is not."""
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
            pong = self.ping(servo_id)
            firmware = f" (firmware {pong.firmware})" if pong else ""
            raise BusError(f"servo {servo_id}: refused to {what}: {reason}{firmware}")
        return answers[servo_id]

    def _answers(self, packet: bytes, size: int, ids: Sequence[int], tries: int) -> Heard:
        """Send `packet` up to `tries` times, until answers of `size` bytes come."""

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
        """A reader for blocks of `ids`."""

    @abc.abstractmethod
    def _read_packet(self, servo_id: int, item: Item) -> bytes: ...

    @abc.abstractmethod
    def _write_packet(self, servo_id: int, item: Item, raw: int) -> bytes: ...

    @abc.abstractmethod
    def _parser(self, packet: bytes, size: int) -> Parser:
        """A parser for the answers of `size` bytes to `packet`."""

    @abc.abstractmethod
    def _refusal(self, error: int) -> str:
        """Why a servo with this error byte refused the request; '' if it did not refuse."""
