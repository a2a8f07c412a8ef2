"""What a stop by the live page does, and what the control process says about it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from runtime.control.outcome import BEAT, SILENT_NS, Outcome, PageEnd, describe_torque
from runtime.safety.safety import State
from tests.runtime.conftest import torques
from tests.runtime.control.test_loop import PERIOD_NS, Rig
from v2a.errors import SafetyFault


class Page:
    """A live page beside a control loop, in this thread."""

    def __init__(self) -> None:
        ours, self.end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours = ours
        self.rig = Rig()
        self.rig.control.page = PageEnd(ours, self.rig.clock)
        self.rig.control.open()
        self.rig.arm()

    def outcomes(self) -> list[Outcome | None]:
        """Everything that the page heard so far."""
        self.end.setblocking(False)
        found = []
        with contextlib.suppress(BlockingIOError):
            while packet := self.end.recv(1 << 16):
                found.append(Outcome.unpack(packet))
        return found

    def last_words(self) -> Outcome:
        """What the control process says at its end."""
        control = self.rig.control
        assert control.page is not None
        control.close()
        control.page.tell_last(control)
        last = self.outcomes()[-1]
        assert last is not None
        return last

    def close(self) -> None:
        self.end.close()
        self._ours.close()


@pytest.fixture
def page() -> Iterator[Page]:
    made = Page()
    yield made
    made.close()


def test_a_press_lets_go_at_the_next_tick_and_every_joint_confirms(page: Page) -> None:
    page.end.send(b"stop")
    with pytest.raises(SafetyFault, match="torque off: emergency stop by the live page"):
        page.rig.tick()
    assert torques(page.rig.chain) == [False, False]
    last = page.last_words()
    assert (last.confirmed, last.state) == (True, State.TORQUE_OFF)
    assert last.torque == {"base": "off", "tip": "off"}


def test_a_lost_page_is_a_stop(page: Page) -> None:
    page.end.close()
    with pytest.raises(SafetyFault, match="the live page: its STOP was lost"):
        page.rig.tick()
    assert torques(page.rig.chain) == [False, False]


def test_a_page_that_hangs_is_a_stop_within_five_seconds(page: Page) -> None:
    page.end.send(BEAT)
    page.rig.tick(SILENT_NS // PERIOD_NS)
    with pytest.raises(SafetyFault, match="the live page: its STOP was lost"):
        page.rig.tick(2)
    assert torques(page.rig.chain) == [False, False]


def test_a_page_that_beats_is_no_stop(page: Page) -> None:
    for seq in range(1, 5):
        page.rig.tick(SILENT_NS // PERIOD_NS - 1)
        page.end.send(BEAT)
        page.rig.chunk([0.0, 0.0], seq)  # so that safety does not end the hold
    page.rig.tick()
    assert torques(page.rig.chain) == [True, True]


def test_a_halt_of_the_control_process_is_no_silence_of_the_page(page: Page) -> None:
    """For example a suspended machine: the page had no chance to be heard."""
    for _ in range(20):
        page.rig.clock.advance_ns(2 * SILENT_NS)
        assert page.rig.control.page is not None
        assert page.rig.control.page.pressed() is None


def test_a_press_among_beats_is_heard(page: Page) -> None:
    for packet in (BEAT, b"stop", BEAT):
        page.end.send(packet)
    with pytest.raises(SafetyFault, match="torque off: emergency stop by the live page"):
        page.rig.tick()


@pytest.mark.parametrize("silent", [{1}, {2}, {1, 2}])
def test_a_servo_that_does_not_answer_makes_the_stop_unconfirmed(
    page: Page, silent: set[int]
) -> None:
    for number in silent:
        del page.rig.chain.servos[number]
    page.end.send(b"stop")
    with pytest.raises(SafetyFault) as caught:
        page.rig.tick()
    said = "emergency stop by the live page, but torque may still be on: "
    assert str(caught.value).startswith(said)
    assert "cut the motors' power" in str(caught.value)
    last = page.last_words()
    assert (last.confirmed, last.final, last.state) == (False, True, State.FAULT)
    names = {1: "base", 2: "tip"}
    assert last.torque == {
        name: "unknown" if number in silent else "off" for number, name in names.items()
    }
    assert last.fault is not None


def test_a_servo_that_keeps_its_torque_is_named(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = page.rig.robot.bus.read
    monkeypatch.setattr(
        page.rig.robot.bus,
        "read",
        lambda servo, name: 1 if (servo, name) == (2, "torque_enable") else read(servo, name),
    )
    last = page.last_words()
    assert (last.confirmed, last.torque) == (False, {"base": "off", "tip": "on"})
    assert describe_torque(last.torque) == (
        "torque is not confirmed off (tip on): cut the motors' power"
    )


def test_the_page_hears_each_change_at_once_and_else_five_times_a_second(page: Page) -> None:
    control = page.rig.control
    assert control.page is not None
    page.outcomes()
    for _ in range(50):  # a second of hold
        page.rig.tick()
        control.page.tell(control, page.rig.clock.now_ns())
    heard = page.outcomes()
    assert 5 <= len(heard) <= 7
    assert all(each is not None and not each.final for each in heard)
    page.rig.chunk([0.1, 0.1], seq=1)
    page.rig.tick()
    control.page.tell(control, page.rig.clock.now_ns())
    (changed,) = page.outcomes()
    assert changed is not None
    assert (changed.state, set(changed.torque.values())) == (State.ARMED, {"on"})


def test_a_robot_that_was_never_reached_confirms_nothing() -> None:
    rig = Rig()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        rig.robot.close()
        rig.control.close()
        PageEnd(ours, rig.clock).tell_last(rig.control)
        last = Outcome.unpack(theirs.recv(1 << 16))
    assert last is not None
    assert (last.final, last.confirmed) == (True, False)
    assert set(last.torque.values()) == {"unknown"}
