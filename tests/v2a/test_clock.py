"""Monotonic time, real and fake."""

from __future__ import annotations

import signal
import time

import pytest

from v2a.clock import Clock, FakeClock, MonotonicClock


def test_sleeping_ends_at_the_deadline_or_later() -> None:
    clock: Clock = MonotonicClock()
    deadline_ns = clock.now_ns() + 3_000_000
    clock.sleep_until_ns(deadline_ns)
    assert clock.now_ns() >= deadline_ns


def test_a_deadline_in_the_past_is_not_slept_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = MonotonicClock()
    slept_s: list[float] = []
    monkeypatch.setattr(time, "sleep", slept_s.append)
    clock.sleep_until_ns(clock.now_ns() - 1_000_000_000)
    assert slept_s == []


def test_a_signal_does_not_cut_the_sleep_short() -> None:
    caught = []
    previous = signal.signal(signal.SIGALRM, lambda *_: caught.append(time.monotonic_ns()))
    try:
        deadline_ns = time.monotonic_ns() + 30_000_000
        signal.setitimer(signal.ITIMER_REAL, 0.005)
        MonotonicClock().sleep_until_ns(deadline_ns)
        woken_ns = time.monotonic_ns()
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert len(caught) == 1
    assert caught[0] <= woken_ns
    assert woken_ns >= deadline_ns


def test_the_fake_clock_moves_only_when_told_and_never_back() -> None:
    clock = FakeClock(start_ns=100)
    clock.advance_ns(50)
    assert clock.now_ns() == 150
    clock.sleep_until_ns(1_000)
    assert clock.now_ns() == 1_000
    clock.sleep_until_ns(10)
    assert clock.now_ns() == 1_000
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance_ns(-1)
