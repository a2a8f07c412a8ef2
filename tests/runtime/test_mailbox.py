"""Mailboxes: the latest value of the current epoch, and nothing else."""

from __future__ import annotations

import threading
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from runtime.mailbox import Mailbox, Mailboxes, Message


def message(seq: int, epoch: int = 0) -> Message:
    return Message(seq=seq, t_capture_ns=0, t_publish_ns=0, parent_seq=0, epoch=epoch)


# A message of an epoch, or a reset to an epoch.
events = st.lists(st.tuples(st.sampled_from(["put", "reset"]), st.integers(0, 5)))


@given(events)
def test_holds_the_latest_message_of_the_current_epoch(events: list[tuple[str, int]]) -> None:
    box: Mailbox[Message] = Mailbox()
    current, expected, dropped = 0, None, 0
    for seq, (what, epoch) in enumerate(events):
        if what == "reset":
            current, expected = max(current, epoch), None
            box.reset(current)
        elif epoch < current:
            assert not box.put(message(seq, epoch), 0)
            dropped += 1
        else:
            assert box.put(message(seq, epoch), 0)
            expected = seq
        latest = box.get()
        assert (latest.seq if latest else None) == expected
    assert box.dropped_stale == dropped


def test_put_stamps_the_time_of_publication() -> None:
    box: Mailbox[Message] = Mailbox()
    box.put(message(0), 123)
    latest = box.get()
    assert latest is not None
    assert latest.t_publish_ns == 123


def test_wait_newer_returns_what_another_thread_puts() -> None:
    box: Mailbox[Message] = Mailbox()
    box.put(message(4), 0)
    assert box.wait_newer(4, timeout_s=0.0) is None
    writer = threading.Thread(target=lambda: box.put(message(5), 0))
    writer.start()
    news = box.wait_newer(4, timeout_s=30.0)
    writer.join()
    assert news is not None
    assert news.seq == 5


def test_tap_sees_what_was_accepted_only() -> None:
    seen: list[int] = []
    box: Mailbox[Message] = Mailbox()
    box.taps.append(lambda m: seen.append(m.seq))
    box.reset(1)
    box.put(message(1, epoch=0), 0)
    box.put(message(2, epoch=1), 0)
    assert seen == [2]


def test_a_reset_clears_every_mailbox_before_the_new_epoch_shows() -> None:
    boxes = Mailboxes()
    for box in boxes.all():
        box.put(message(1), 0)
    assert boxes.reset(now_ns=77) == 1
    assert [box.get() for box in boxes.all()] == [None] * 4
    assert (boxes.epoch.number, boxes.epoch.start_ns) == (1, 77)
    chunk: Mailbox[Any] = boxes.chunk  # a plain message will do
    chunk.put(message(2, epoch=0), 0)
    assert boxes.dropped_stale() == 1
