"""Switches torque off and reads it back, servo by servo."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Sequence
from typing import Final

from hw_drivers.bus.bus import ServoBus
from v2a.errors import BusError

_TRIES: Final = 3  # a byte lost to noise must not leave a joint stiff
_ENDS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def torque_off(bus: ServoBus, ids: Sequence[int]) -> dict[int, str]:
    """Switch torque off in all of `ids`.

    Returns why that is not confirmed, for each servo that did not read back torque off. A servo
    that answers no writes still counts as off once a read says so.
    """
    with contextlib.suppress(BusError):  # the reads below tell
        # All at once, before waiting for any answer.
        bus.sync_write("torque_enable", tuple(ids), [0] * len(ids))
    stiff = dict.fromkeys(ids, "")
    for _ in range(_TRIES):
        stiff = {servo_id: why for servo_id in stiff if (why := _let_go(bus, servo_id))}
    return stiff


def _let_go(bus: ServoBus, servo_id: int) -> str:
    """Switch one servo's torque off. Returns why that is not confirmed; '' if torque is off."""
    fault = ""
    try:
        bus.write(servo_id, "torque_enable", 0)
    except BusError as error:
        fault = str(error)
    try:
        on = bus.read(servo_id, "torque_enable")
    except BusError as error:
        return fault or str(error)
    return (fault or f"servo {servo_id}: keeps torque on") if on else ""


@contextlib.contextmanager
def signals_wait() -> Iterator[None]:
    """Inside this context, a signal that would end the program waits for the end of the context."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
