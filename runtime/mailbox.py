"""Messages, and the single-writer latest-value mailboxes between the workers.

Every edge of the runtime is a `Mailbox`, never a queue: a reader wants the newest value, and an old
one is worth nothing. A reset bumps the epoch; what was begun in an older epoch is dropped on
arrival and counted.
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
    """What every message carries. Times are monotonic nanoseconds.

    `t_capture_ns` is the time of the newest picture or reading that the message rests on,
    `parent_seq` the `seq` of the message that it was made from, `t_publish_ns` is set by `put`.
    """

    seq: int
    t_capture_ns: int
    t_publish_ns: int
    parent_seq: int
    epoch: int


@dataclass(frozen=True, slots=True)
class FrameMsg(Message):
    """A picture at the policy's size, uint8 [H, W, 3] RGB, and the recent ones, oldest first."""

    image: Image
    history: tuple[tuple[int, Image], ...]  # (t_capture_ns, image), this one included


@dataclass(frozen=True, slots=True)
class StateMsg(Message):
    """A complete reading of the joints and the last command, float64 [J] rad.

    A bus cycle in which a servo was missing publishes no StateMsg, so there is no invalid entry.
    """

    position_rad: Vector
    command_rad: Vector


@dataclass(frozen=True, slots=True)
class ConditionMsg(Message):
    """System 2's result: the outputs of the graph `condition`, by name."""

    tensors: dict[str, npt.NDArray[Any]]
    t_frame_ns: int  # capture time of the newest frame used


@dataclass(frozen=True, slots=True)
class ChunkMsg(Message):
    """Joint targets float64 [K, J] rad; row k is for `t_capture_ns + k * step_ns`.

    With `parent_seq`, the frame's, `condition_seq` and `state_seq` say what it was made from, so
    that a recording can be replayed to the bit. They stay 0 in the control process.
    """

    target_rad: Vector
    step_ns: int
    condition_age_ns: int
    condition_seq: int = 0
    state_seq: int = 0


M = TypeVar("M", bound=Message)


class Mailbox(Generic[M]):
    """The latest message of one writer. `get` never blocks and never waits for the writer."""

    def __init__(self) -> None:
        # Each sees every accepted message, in the writer's thread: must not block.
        self.taps: list[Callable[[M], None]] = []
        self.dropped_stale = 0
        self._latest: M | None = None
        self._epoch = 0
        self._changed = threading.Condition()

    def put(self, message: M, now_ns: int) -> bool:
        """Publish at `now_ns`. False when the message was begun in an older epoch: dropped."""
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
        return self._latest

    def wait_newer(self, seq: int, timeout_s: float) -> M | None:
        """The latest message once its seq is above `seq`, or None after `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._seq() > seq, timeout_s)
            return self._latest if self._seq() > seq else None

    def reset(self, epoch: int) -> None:
        """Forget the latest message and refuse what is older than `epoch`."""
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
    """All edges of the runtime and the epoch that they are in."""

    def __init__(self) -> None:
        self.frame: Mailbox[FrameMsg] = Mailbox()
        self.state: Mailbox[StateMsg] = Mailbox()
        self.condition: Mailbox[ConditionMsg] = Mailbox()
        self.chunk: Mailbox[ChunkMsg] = Mailbox()
        self.epoch = Epoch(0, 0)

    def all(self) -> tuple[Mailbox[Any], ...]:
        return (self.frame, self.state, self.condition, self.chunk)

    def reset(self, now_ns: int) -> int:
        """Begin the next epoch and return its number."""
        self.begin(self.epoch.number + 1, now_ns)
        return self.epoch.number

    def begin(self, number: int, now_ns: int) -> None:
        """Begin the epoch of this number, which is above the present one."""
        epoch = Epoch(number, now_ns)
        for mailbox in self.all():
            mailbox.reset(epoch.number)
        # Last: who reads the new number already finds every mailbox empty of older messages.
        self.epoch = epoch

    def dropped_stale(self) -> int:
        return sum(mailbox.dropped_stale for mailbox in self.all())
