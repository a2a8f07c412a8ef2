"""The messages between workers and the mailboxes that carry them.

Workers exchange messages through a `Mailbox`, never a queue: only the newest value is useful.
A mailbox has one writer and keeps its latest message. A reset starts a new epoch; a message that
was begun in an older epoch is dropped on arrival and counted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Message:
    """The fields of every message. Times are monotonic nanoseconds.

    `t_capture_ns` is the capture time of the newest image or reading behind the message.
    `parent_seq` is the `seq` of the message that it was computed from. `put` sets `t_publish_ns`.
    """

    seq: int
    t_capture_ns: int
    t_publish_ns: int
    parent_seq: int
    epoch: int


@dataclass(frozen=True, slots=True)
class FrameMsg(Message):
    """A camera image in the policy's size, uint8 [H, W, 3] RGB, and the recent ones."""

    image: Image
    history: tuple[tuple[int, Image], ...]  # (t_capture_ns, image), oldest first, this one last


@dataclass(frozen=True, slots=True)
class StateMsg(Message):
    """A complete reading of the joints and the last command, float64 [J] rad.

    Every entry is valid: a bus cycle without an answer from each servo publishes no StateMsg.
    """

    position_rad: Vector
    command_rad: Vector


@dataclass(frozen=True, slots=True)
class ConditionMsg(Message):
    """System 2's result: the output tensors of the graph `condition`, by name.

    Shapes and dtypes are those in the bundle's manifest.
    """

    tensors: dict[str, npt.NDArray[Any]]
    t_frame_ns: int  # capture time of the newest frame used


@dataclass(frozen=True, slots=True)
class ChunkMsg(Message):
    """System 1's result: joint targets, float64 [K, J] rad.

    Row k is the target for `t_capture_ns + k * step_ns`. `parent_seq`, `condition_seq` and
    `state_seq` name the frame, condition and state that the chunk was computed from, so that a
    replay can use the same ones. The last two are 0 in the control process.
    """

    target_rad: Vector
    step_ns: int
    condition_age_ns: int
    condition_seq: int = 0
    state_seq: int = 0


M = TypeVar("M", bound=Message)


class Mailbox(Generic[M]):
    """The latest message of one writer."""

    def __init__(self) -> None:
        # Called with every accepted message in the writer's thread, so a tap must not block.
        self.taps: list[Callable[[M], None]] = []
        self.dropped_stale = 0
        self._latest: M | None = None
        self._epoch = 0
        self._changed = threading.Condition()

    def put(self, message: M, now_ns: int) -> bool:
        """Publish a message. Return False if it is of an older epoch and was dropped."""
        message = replace(message, t_publish_ns=now_ns)
        with self._changed:
            if message.epoch < self._epoch:
                self.dropped_stale += 1
                return False
            self._latest = message
            self._changed.notify_all()
        for tap in self.taps:
            tap(message)
        return True

    def get(self) -> M | None:
        """Return the latest message, or None. Never blocks."""
        return self._latest

    def wait_newer(self, seq: int, timeout_s: float) -> M | None:
        """Wait for a message with a higher `seq` and return it, or None after `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._seq() > seq, timeout_s)
            return self._latest if self._seq() > seq else None

    def reset(self, epoch: int) -> None:
        """Discard the latest message. From now on, drop messages of epochs before `epoch`."""
        with self._changed:
            self._epoch = epoch
            self._latest = None

    def _seq(self) -> int:
        return -1 if self._latest is None else self._latest.seq


@dataclass(frozen=True, slots=True)
class Epoch:
    """One episode: everything between two resets."""

    number: int
    start_ns: int


class Mailboxes:
    """The mailboxes of one run and their current epoch."""

    def __init__(self) -> None:
        self.frame: Mailbox[FrameMsg] = Mailbox()
        self.state: Mailbox[StateMsg] = Mailbox()
        self.condition: Mailbox[ConditionMsg] = Mailbox()
        self.chunk: Mailbox[ChunkMsg] = Mailbox()
        self.epoch = Epoch(0, 0)

    def all(self) -> tuple[Mailbox[Any], ...]:
        return (self.frame, self.state, self.condition, self.chunk)

    def reset(self, now_ns: int) -> int:
        """Start the next epoch and return its number."""
        self.begin(self.epoch.number + 1, now_ns)
        return self.epoch.number

    def begin(self, number: int, now_ns: int) -> None:
        """Start epoch `number`, which must be above the current one."""
        epoch = Epoch(number, now_ns)
        for mailbox in self.all():
            mailbox.reset(epoch.number)
        # Last: a reader of the new number must find no message of an older epoch.
        self.epoch = epoch

    def dropped_stale(self) -> int:
        return sum(mailbox.dropped_stale for mailbox in self.all())
