"""What the control process says about torque, and its end of the socket pair to the live page.

Only the control process knows what the servos confirmed, so only it writes an `Outcome`. Whatever
arrives instead of a final outcome (silence, a hang-up, an error) means "not confirmed".

    to the page         an `Outcome` as JSON: at each change, every 200 ms, and a last, final one
    from the page       `BEAT` every 200 ms; any other packet is a stop
                        a hang-up or `SILENT_NS` without a packet is a stop, too: nobody could press

The pair is an AF_UNIX SOCK_SEQPACKET pair without a name in the file system.
"""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Mapping
from typing import Final

from pydantic import Field, ValidationError

from hw_drivers.robot.torque import TorqueState
from runtime.control.record import ControlRecord
from runtime.control.wire import Link
from runtime.safety.safety import Change, State
from v2a.clock import Clock
from v2a.measured import Measured

TEXT_MAX: Final = 4000  # characters, so that every outcome fits into a packet
PERIOD_NS: Final = 200_000_000
BEAT: Final = b"beat"
# Three times a starved page's longest gap between beats (docs/measurements/control.md).
# A false stop lets the arm fall.
SILENT_NS: Final = 5_000_000_000
LOOK_NS: Final = 100_000_000  # the most that one look adds to the page's silence
LAST_S: Final = 1.0  # how long a page that is behind may hold up the last outcome
PRESSED: Final = "the live page"
LOST: Final = "the live page: its STOP was lost"


class Outcome(Measured):
    """The safety state of a run, and the torque of each joint as its servo confirmed it."""

    run: str = Field(description="random id of the run")
    state: State = Field(description="safety state")
    reason: str = Field(description="reason for the state")
    torque: dict[str, TorqueState] = Field(
        description="joint -> what its servo confirmed last: on, off, or unknown"
    )
    final: bool = Field(description="torque-off was tried, and nothing changes any more")
    fault: str | None = Field(description="why torque may have been left on; null if not")

    @classmethod
    def of(cls, control: ControlRecord, run: str, final: bool) -> Outcome:
        """The outcome as of now."""
        last, fault = control.safety.changes[-1], control.torque_fault
        return cls(
            run=run,
            state=last.state,
            reason=last.reason[:TEXT_MAX],
            torque=dict(control.torque),
            final=final,
            fault=fault and fault[:TEXT_MAX],
        )

    @property
    def confirmed(self) -> bool:
        """Whether torque is off for good, as every joint confirmed."""
        return self.final and not not_off(self.torque)

    def pack(self) -> bytes:
        """One packet."""
        return json.dumps(self.model_dump(mode="json")).encode()

    @classmethod
    def unpack(cls, packet: bytes) -> Outcome | None:
        """The outcome in `packet`, None if it is no whole outcome."""
        try:
            return cls.model_validate_json(packet)
        except ValidationError:
            return None


def not_off(torque: Mapping[str, TorqueState]) -> str:
    """Name the joints that did not confirm that torque is off, such as "yaw unknown, tip on".

    Empty if every joint did. No joints at all confirm nothing.
    """
    if not torque:
        return "no joint"
    return ", ".join(f"{name} {state}" for name, state in torque.items() if state != "off")


def describe_torque(torque: Mapping[str, TorqueState]) -> str:
    """Say that torque is off if every joint confirmed it, else what to do about it."""
    joints = not_off(torque)
    return (
        f"torque is not confirmed off ({joints}): cut the motors' power"
        if joints
        else ("torque is off")
    )


class PageEnd:
    """The control process's end of the pair. Only `tell_last` may wait, and not for long."""

    def __init__(self, end: socket.socket, clock: Clock) -> None:
        self._link = Link(end)
        self._clock = clock
        self._looked_ns = clock.now_ns()
        self._silent_ns = 0
        self._run = secrets.token_hex(8)
        self._told_change: Change | None = None
        self._told_ns = 0

    def pressed(self) -> str | None:
        """Return who asks for a stop: `PRESSED`, `LOST` if the page is dead or hangs, or None."""
        packets = list(self._link.packets())
        if any(packet != BEAT for packet in packets):
            return PRESSED
        self._note_silence(heard=bool(packets))
        return LOST if self._link.hung_up or self._silent_ns > SILENT_NS else None

    def _note_silence(self, heard: bool) -> None:
        """Measure how long the page is silent.

        Each look adds `LOOK_NS` at most. So a halt of this process or of the whole machine, during
        which the page could not be heard, counts for nothing.
        """
        now_ns = self._clock.now_ns()
        since_ns, self._looked_ns = now_ns - self._looked_ns, now_ns
        self._silent_ns = 0 if heard else self._silent_ns + min(since_ns, LOOK_NS)

    def tell(self, control: ControlRecord, now_ns: int) -> None:
        """Send the outcome at a change of state, and every `PERIOD_NS`."""
        change = control.safety.changes[-1]
        if change is self._told_change and now_ns - self._told_ns < PERIOD_NS:
            return
        self._told_change, self._told_ns = change, now_ns
        self._link.send(
            Outcome.of(control, self._run, final=False).pack()
        )  # a page that is behind hears the next one

    def tell_last(self, control: ControlRecord) -> None:
        """Send the final outcome. Call it after torque-off was tried."""
        self._link.send_last(Outcome.of(control, self._run, final=True).pack(), LAST_S)
