"""Virtual toy servos, and their bus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hw_drivers.bus.registers import Item, Model
from hw_drivers.virtual.bus import VirtualBus
from hw_drivers.virtual.motion import Limits
from hw_drivers.virtual.servo import VirtualServo
from hw_drivers.virtual.wire_timing import Reply
from tests.hw_drivers.toy.packet import ALARM, REFUSED, Lines, make_status

RAD_PER_TICK = 0.01
BAUD_CODES = {0: 19_200, 1: 38_400}
MODEL = Model(
    "toy-1",
    4711,
    {
        "model_number": Item(0, 2, initial=4711),
        "firmware_version": Item(2, 1, initial=7),
        "id": Item(3, 1, (0, 9)),
        "baud_rate": Item(4, 1, (0, 1)),
        "return_delay_time": Item(5, 1, (0, 100), scale=1e-5, unit="s"),
        "min_position_limit": Item(6, 2, (0, 599), scale=RAD_PER_TICK, unit="rad"),
        "max_position_limit": Item(8, 2, (0, 599), 599, scale=RAD_PER_TICK, unit="rad"),
        "torque_enable": Item(10, 1, (0, 1)),
        "pace": Item(11, 2, (0, 1000), scale=0.001, unit="rad/s"),
        "goal_position": Item(13, 2, (0, 599), 300, scale=RAD_PER_TICK, unit="rad"),
        "present_position": Item(16, 2, scale=RAD_PER_TICK, unit="rad"),
        "hardware_error_status": Item(18, 1),
    },
)


class VirtualToy(VirtualServo):
    """One toy servo. It has no sensors, and it refuses values out of range."""

    @property
    def baud(self) -> int:
        return BAUD_CODES[self["baud_rate"]]

    def set_baud(self, baud: int) -> None:
        self._set("baud_rate", {rate: code for code, rate in BAUD_CODES.items()}[baud])

    def overload(self) -> None:
        self._set("hardware_error_status", 1)
        self._set("torque_enable", 0)

    def _watch_health(self) -> None:
        """There is nothing to watch."""

    def _drive(self, dt_s: float) -> None:
        self._go(self._rad(self["goal_position"]), Limits(self._limit("pace")), dt_s)

    def read(self, address: int, size: int) -> bytes:
        self._refresh()
        return bytes(self._table[address : address + size])

    def write(self, address: int, data: bytes) -> bool:
        """Write one register. False if the servo refuses."""
        name, item = self._item_at.get(address, ("", None))
        if item is None or item.limits is None or len(data) != item.size:
            return False
        raw = item.unpack(data)
        if not item.limits[0] <= raw <= item.limits[1]:
            return False
        self._set(name, raw)
        return True


class VirtualToyBus(VirtualBus[VirtualToy]):
    """Answers every request that the toy family knows."""

    def __init__(self, servos: Iterable[VirtualToy]) -> None:
        super().__init__(servos)
        self._lines = Lines()

    def _hear(self, data: bytes, servos: Mapping[int, VirtualToy]) -> list[Reply]:
        return [reply for line in self._lines.feed(data) for reply in _execute(line, servos)]


def _execute(line: str, servos: Mapping[int, VirtualToy]) -> list[Reply]:
    verb, (first, *rest) = line[0], line[1:].split(",")
    if verb == "#":
        for servo_id, data in zip(rest[::2], rest[1::2], strict=True):
            if servo := servos.get(int(servo_id, 16)):
                servo.write(int(first, 16), bytes.fromhex(data))
        return []
    if (servo := servos.get(int(first, 16))) is None:
        return []
    address, alarm = int(rest[0], 16), ALARM * servo["hardware_error_status"]
    if verb == "?":
        answer = make_status(servo.id, alarm, servo.read(address, int(rest[1], 16)))
    else:
        old_id, taken = servo.id, servo.write(address, bytes.fromhex(rest[1]))
        answer = make_status(old_id, alarm | (0 if taken else REFUSED))
    return [Reply(0.0, answer, servo.id)]
