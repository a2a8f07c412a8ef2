"""What every virtual bus has, whatever its servos speak: bytes in, answers out."""

from __future__ import annotations

import abc
import threading
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from hw_drivers.virtual.body import Body
from hw_drivers.virtual.wire import Reply

ServoT = TypeVar("ServoT", bound=Body)


class Line(abc.ABC, Generic[ServoT]):
    """Servos on one wire.

    `lock` guards the servos: `respond` and `step` take it, and a plant in another thread holds it
    while it reads `setpoint_rad` and calls `set_present_rad`. Its holder may take it again.
    Remove a servo from `servos` (by id) to unplug it.
    """

    def __init__(self, servos: Iterable[ServoT]) -> None:
        self.servos = {servo.id: servo for servo in servos}
        self.lock = threading.RLock()

    def set_baud(self, baud: int) -> None:
        """Every servo as if it had been set up for `baud`. Raises BusError where it cannot."""
        with self.lock:
            for servo in self.servos.values():
                servo.set_baud(baud)

    def step(self, dt_s: float) -> None:
        """Let `dt_s` seconds pass for every servo."""
        with self.lock:
            for servo in list(self.servos.values()):
                servo.step(dt_s)

    def respond(self, data: bytes) -> bytes:
        """The bytes that the servos send back to `data`; incomplete packets wait for the rest."""
        return b"".join(reply.packet for reply in self.replies(data))

    def replies(self, data: bytes, baud: int | None = None) -> list[Reply]:
        """As `respond`, packet by packet. Only servos that listen at `baud` hear it; None: all."""
        with self.lock:
            hearing = {
                servo_id: servo
                for servo_id, servo in list(self.servos.items())  # one may be unplugged meanwhile
                if baud is None or servo.baud == baud
            }
            replies = self._hear(data, hearing) if hearing else []
            if any(servo_id != servo.id for servo_id, servo in hearing.items()):
                self.servos = {servo.id: servo for servo in self.servos.values()}
            return replies

    @abc.abstractmethod
    def _hear(self, data: bytes, servos: Mapping[int, ServoT]) -> list[Reply]:
        """Carry out what `data` asks of `servos`."""
