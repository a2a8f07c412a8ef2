"""The base of every virtual bus, of any family: the controller's bytes in, the answers out."""

from __future__ import annotations

import abc
import threading
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from hw_drivers.virtual.servo import VirtualServo
from hw_drivers.virtual.wire_timing import Reply

ServoT = TypeVar("ServoT", bound=VirtualServo)


class VirtualBus(abc.ABC, Generic[ServoT]):
    """Virtual servos on one wire.

    `lock` guards the servos, and may be taken again by the thread that holds it. `respond` and
    `step` take it. A plant in another thread holds it while it reads `setpoint_rad` and calls
    `set_present_rad`. To unplug a servo, delete its id from `servos`.
    """

    def __init__(self, servos: Iterable[ServoT]) -> None:
        self.servos = {servo.id: servo for servo in servos}
        self.lock = threading.RLock()

    def set_baud(self, baud: int) -> None:
        """Set every servo up for `baud`, in bit/s. Raises BusError for a rate that one lacks."""
        with self.lock:
            for servo in self.servos.values():
                servo.set_baud(baud)

    def step(self, dt_s: float) -> None:
        """Let `dt_s` seconds pass for every servo."""
        with self.lock:
            for servo in list(self.servos.values()):
                servo.step(dt_s)

    def respond(self, data: bytes) -> bytes:
        """The bytes that the servos answer to `data`. An incomplete packet waits for its rest."""
        return b"".join(reply.packet for reply in self.replies(data))

    def replies(self, data: bytes, baud: int | None = None) -> list[Reply]:
        """The answers to `data`, one packet each, of the servos that hear `baud` (None: all)."""
        with self.lock:
            hearing = {
                servo_id: servo
                for servo_id, servo in list(self.servos.items())  # another thread may unplug one
                if baud is None or servo.baud == baud
            }
            replies = self._hear(data, hearing) if hearing else []
            if any(servo_id != servo.id for servo_id, servo in hearing.items()):
                self.servos = {servo.id: servo for servo in self.servos.values()}
            return replies

    @abc.abstractmethod
    def _hear(self, data: bytes, servos: Mapping[int, ServoT]) -> list[Reply]:
        """Carry out the requests in `data` on `servos` (id -> servo), and return the answers."""
