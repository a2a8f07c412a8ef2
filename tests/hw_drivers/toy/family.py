"""The bus of the toy family, and its record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hw_drivers.bus.bus import PING_TRIES, Pong, ServoBus
from hw_drivers.bus.reader import BlockReader
from hw_drivers.bus.registers import Item
from hw_drivers.bus.wire import Request
from hw_drivers.family import Family, Packets, Setting
from tests.hw_drivers.toy import packet
from tests.hw_drivers.toy.virtual import BAUD_CODES, MODEL, VirtualToy, VirtualToyBus

_SCAN_EACH_S = 0.05


class ToyBus(ServoBus):
    """Toy servos, asked one by one."""

    def ping(self, servo_id: int) -> Pong | None:
        answers = self._answers(packet.make_ping(servo_id), 3, (servo_id,), PING_TRIES)
        if servo_id not in answers:
            return None
        number = answers[servo_id].params
        return Pong(int.from_bytes(number[:2], "little"), number[2])

    def scan(self) -> dict[int, Pong]:
        return {
            servo_id: pong
            for servo_id in range(packet.MAX_ID + 1)
            if self.wire.ask_one(
                packet.make_ping(servo_id), packet.StatusParser(), (servo_id,), _SCAN_EACH_S
            )
            and (pong := self.ping(servo_id))
        }

    def reboot(self, servo_id: int) -> None:
        self.write(servo_id, "torque_enable", 0)

    def sync_write(self, name: str, ids: tuple[int, ...], raw: Sequence[int]) -> None:
        item = self.shared_item(name, ids)
        blocks = {servo_id: item.pack(value) for servo_id, value in zip(ids, raw, strict=True)}
        self.wire.send(packet.make_sync_write(item.address, item.size, blocks))

    def reader(self, ids: tuple[int, ...]) -> BlockReader:
        return BlockReader(self.wire, ids, _read_request, one_by_one=True)

    def _read_packet(self, servo_id: int, item: Item) -> bytes:
        return packet.make_read(servo_id, item.address, item.size)

    def _write_packet(self, servo_id: int, item: Item, raw: int) -> bytes:
        return packet.make_write(servo_id, item.address, item.pack(raw))

    def _parser(self, request: bytes, size: int) -> packet.StatusParser:
        return packet.StatusParser()

    def _refusal(self, error: int) -> str:
        return "out of range" if error & packet.REFUSED else ""


def _read_request(address: int, size: int, ids: Sequence[int]) -> Request:
    return Request(
        packet.make_read(ids[0], address, size),
        tuple(ids),
        address,
        size,
        head_bytes=0,
        row_bytes=len(packet.make_status(0, 0, bytes(size))),
        data_at=0,
        clean=lambda _: False,  # text is no row of binary registers: it takes the parser
        parser=packet.StatusParser,
        refusal=packet.REFUSED,
    )


FAMILY: Final = Family(
    tables=(MODEL,),
    bus=ToyBus,
    packets=Packets(
        max_id=packet.MAX_ID,
        make_ping=packet.make_ping,
        make_sync_write=packet.make_sync_write,
        make_status=packet.make_status,
        parser=lambda _: packet.StatusParser(),
    ),
    baud_codes=BAUD_CODES,
    cycle_registers=("present_position",),
    speed_register="pace",
    speed_limit_register=None,
    watchdog=None,
    position_settings=(),
    answer_settings=(Setting("return_delay_time", 0, "answer at once"),),
    lock_register=None,
    offset_moves_seam=False,
    alarm_bits=packet.ALARM,
    describe_alarms=lambda status: "overload" if status else "",
    virtual_servo=VirtualToy,
    virtual_bus=VirtualToyBus,
)
