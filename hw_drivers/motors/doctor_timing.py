"""The checks of `v2a motors doctor` of how long readings take: pure functions."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from hw_drivers.motors.cycle_time import CYCLES, Cycles
from hw_drivers.motors.doctor_checks import Finding
from hw_drivers.motors.find import Place
from hw_drivers.robot.command_lines import monitor_line, setup_line

_HELD_MS: Final = 3.0  # more than USB, the kernel and this program need on an idle machine
_TIMER_PERIODS_MS: Final = range(4, 33)  # a latency timer counts milliseconds
_IN_PHASE: Final = 0.5  # by chance, the best of these periods reaches 0.2 in 200 readings
_USUAL_BAUD: Final = 1_000_000


def check_answers(cycles: Cycles, place: Place) -> Finding:
    """Check that every servo answered the first request of every reading."""
    found = (
        f"{cycles.repeated} of {CYCLES} readings had to ask again, {cycles.lost} stayed incomplete"
    )
    if not cycles.repeated and not cycles.lost:
        return Finding("answers", True, f"all of {CYCLES} readings complete at once")
    line = monitor_line(place.port, place.protocol, place.baud)
    fix = f"check plugs, cable length, ground and supply; {line} shows which is silent"
    return Finding("answers", False, found, fix)


def check_timing(cycles: Cycles, port: str, latency_timer_ms: int | None) -> Finding:
    """Check that no adapter holds answers back by a timer, as FTDI's do for 16 ms."""
    check = "timing"
    typical_ms = cycles.quantile_ms(0.5)
    held_ms = max(typical_ms - cycles.wire_ms, 0.0)
    period_ms = timer_period_ms(cycles.end_ms) if held_ms >= _HELD_MS else None
    if period_ms is None:
        return Finding(check, True, f"no sign of a timer: {held_ms:.2f} ms beside the wire's")
    known = f"; it reports {latency_timer_ms} ms" if latency_timer_ms is not None else ""
    return Finding(
        check,
        False,
        f"readings take {typical_ms:.1f} ms, their bytes {cycles.wire_ms:.2f} ms, and end at the "
        f"ticks of a timer of {period_ms} ms: the adapter holds answers back{known}",
        f"setserial {shlex.quote(port)} low_latency; if that changes nothing, set the latency "
        "timer to 1 ms in the adapter's driver (in a virtual machine: the host's), or use an "
        "adapter without one (CDC-ACM)",
    )


def timer_period_ms(end_ms: npt.NDArray[np.float64]) -> int | None:
    """The period of the timer at whose ticks readings end at `end_ms` float64 [n]; None if none.

    The mean of exp(2 pi i t / period) is near 1 in magnitude if the times t keep one phase, and
    near 0 if they do not (Rayleigh's test). It also holds on a busy host, which delays some ends. A
    slow but timerless adapter loses the phase, because its delays add up.
    """
    in_phase = [
        period
        for period in _TIMER_PERIODS_MS
        if abs(np.exp(2j * np.pi * end_ms / period).mean()) >= _IN_PHASE
    ]
    return max(in_phase, default=None)  # ticks of 16 ms are ticks of 8 and of 4 as well


def check_headroom(cycles: Cycles, place: Place, ids: Sequence[int], hz: float) -> Finding:
    """Check that a cycle fits in the period of `hz`: the measured reading plus computed goals."""
    cycle_ms = cycles.quantile_ms(0.5) + cycles.goal_ms
    wire_ms = cycles.wire_ms + cycles.goal_ms
    found = (
        f"a cycle takes {cycle_ms:.2f} ms of {1e3 / hz:.1f} ms at {hz:g} Hz "
        f"({wire_ms:.2f} ms of it on the wire at {place.baud} baud, reading p50 "
        f"{cycles.quantile_ms(0.5):.2f}, p99 {cycles.quantile_ms(0.99):.2f} ms)"
    )
    if cycle_ms <= 1e3 / hz:
        return Finding("headroom", True, found)
    lower = f"set control.rate_hz to {1e3 / cycle_ms:.0f} at most"
    if place.baud < _USUAL_BAUD and wire_ms > cycle_ms / 2:
        lines = [
            setup_line(place.port, place.protocol, place.baud, i, new_baud=_USUAL_BAUD) for i in ids
        ]
        return Finding("headroom", False, found, "\n          ".join([f"{lower}, or", *lines]))
    return Finding("headroom", False, found, f"fix the findings above, or {lower}")
