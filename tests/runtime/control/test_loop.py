"""The control loop on a fake clock: holds, follows, counts, and lets go when it must."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw_drivers.robot.robot import JointState, Robot
from hw_drivers.virtual.loopback import LoopbackPort
from runtime.control.grid import run_periodic
from runtime.control.loop import Control
from runtime.fit import check_fit
from runtime.mailbox import ChunkMsg, Mailboxes, Vector
from runtime.safety.safety import State
from tests.runtime.conftest import K, make_chain, manifest, run_config, torques
from v2a.clock import FakeClock
from v2a.errors import PortError, SafetyFault
from v2a.spans import SpanRing

PERIOD_NS = 20_000_000


class Rig:
    """A control loop over a robot in memory; `answers` may spoil the port."""

    def __init__(self, **config: Any) -> None:
        self.clock = FakeClock(start_ns=10**9)
        self.chain = make_chain()
        self.port = LoopbackPort(self.chain)
        self.boxes = Mailboxes()
        self.config = run_config(**config)
        self.robot = Robot(self.config.robot, self.clock, self.port)
        self.robot.connect()
        limits = check_fit(self.config, manifest())
        self.control = Control(self.robot, limits, self.config, self.boxes, self.clock, SpanRing())

    def tick(self, n: int = 1) -> None:
        for _ in range(n):
            self.clock.advance_ns(PERIOD_NS)
            self.chain.step(PERIOD_NS / 1e9)
            self.control.tick(self.clock.now_ns())

    def arm(self) -> None:
        done = self.control.request("arm")
        self.tick()
        assert done.is_set()

    def chunk(self, target_rad: Any, seq: int, epoch: int = 0) -> None:
        now_ns = self.clock.now_ns()
        row = np.asarray(target_rad, np.float64)
        rows = np.broadcast_to(row, (K, *row.shape))
        self.boxes.chunk.put(ChunkMsg(seq, now_ns, 0, 0, epoch, rows, 50_000_000, 0), now_ns)


def test_nothing_is_written_before_arming() -> None:
    rig = Rig()
    written: list[Any] = []
    rig.robot.write_goal = written.append  # type: ignore[assignment] # noted instead
    rig.chunk([0.5, 0.5], seq=1)
    rig.tick(5)
    assert written == []
    assert torques(rig.chain) == [False, False]
    state = rig.boxes.state.get()
    assert state is not None
    assert (state.seq, state.position_rad.tolist()) == (5, [0.0, 0.0])


def test_it_arms_where_it_is_and_follows_no_faster_than_allowed() -> None:
    rig = Rig()
    rig.chain.servos[1].set_present_rad(0.25)
    rig.arm()
    assert torques(rig.chain) == [True, True]
    state = rig.boxes.state.get()
    assert state is not None
    np.testing.assert_allclose(state.command_rad, [0.25, 0.0], atol=1e-3)
    rig.chunk([0.9, -0.9], seq=1)
    commands = []
    for _ in range(30):
        rig.tick()
        commands.append(rig.control.safety.command_rad)
    steps = np.abs(np.diff(commands, axis=0))
    assert steps.max() <= 1.0 * 0.02 + 1e-9  # velocity_limit_rad_s of the robot, one period
    assert rig.control.safety.state is State.ARMED
    np.testing.assert_allclose(rig.chain.servos[2].setpoint_rad, commands[-1][1], atol=0.03)


def test_joints_moved_by_hand_while_they_are_read_are_armed_where_they_are_now() -> None:
    rig = Rig()
    read = rig.robot.read_state

    def moved_after_reading() -> JointState:
        state = read()
        rig.chain.servos[1].set_present_rad(0.4)
        if not asked:
            asked.append(rig.control.request("arm"))
        return state

    asked: list[threading.Event] = []
    rig.robot.read_state = moved_after_reading  # type: ignore[method-assign]
    rig.tick()
    assert not asked[0].is_set()
    assert torques(rig.chain) == [False, False]
    rig.tick()
    assert asked[0].is_set()
    np.testing.assert_allclose(rig.control.safety.command_rad, [0.4, 0.0], atol=1e-3)


def test_after_a_chunk_it_holds_and_a_new_one_resumes_from_there() -> None:
    rig = Rig()
    rig.arm()
    rig.chunk([0.1, 0.1], seq=1)
    rig.tick(50)  # 1 s: the chunk's 0.75 s and its rest are over
    assert rig.control.safety.state is State.HOLD
    assert rig.control.safety.changes[-1].reason == "no chunk"
    held = rig.control.safety.command_rad
    np.testing.assert_allclose(held, [0.1, 0.1], atol=1e-9)
    no_chunk = rig.control.missed_ticks["no_chunk"]
    rig.chunk([-0.5, 0.1], seq=2)
    rig.tick()
    np.testing.assert_allclose(rig.control.safety.command_rad, held, atol=1e-9)
    rig.tick()
    assert rig.control.safety.command_rad[0] < held[0]
    assert rig.control.missed_ticks["no_chunk"] == no_chunk
    assert rig.control.seam_jumps_rad[-1] == pytest.approx(0.6)


def test_a_hold_in_the_middle_of_a_chunk_resumes_from_where_it_stopped() -> None:
    rig = Rig(control={"command_age_max_s": 0.2})
    rig.arm()
    rig.chunk([0.9, 0.9], seq=1)
    rig.tick(20)
    assert rig.control.safety.changes[-1].reason == "target too old"
    held = rig.control.safety.command_rad
    assert 0.0 < held[0] < 0.9
    rig.chunk(held, seq=2)
    rig.tick(5)
    np.testing.assert_allclose(rig.control.safety.command_rad, held, atol=1e-9)


def test_a_chunk_with_nan_is_refused_and_the_old_one_goes_on() -> None:
    rig = Rig()
    rig.arm()
    rig.chunk([0.1, 0.1], seq=1)
    rig.tick()
    rig.chunk([np.nan, 0.1], seq=2)
    rig.tick(20)
    assert rig.control.counts["chunk_not_finite"] == 1
    np.testing.assert_allclose(rig.control.safety.command_rad, [0.1, 0.1])


def test_a_chunk_of_another_number_of_joints_is_refused_and_the_old_one_goes_on() -> None:
    rig = Rig()
    rig.arm()
    rig.chunk([0.1, 0.1], seq=1)
    rig.tick()
    for seq, targets in ((2, [0.9]), (3, [0.9, 0.9, 0.9])):
        rig.chunk(targets, seq=seq)
        rig.tick(20)
    assert rig.control.counts["chunk_of_wrong_shape"] == 2
    np.testing.assert_allclose(rig.control.safety.command_rad, [0.1, 0.1])


def test_a_reset_drops_the_chunk_in_hand_and_those_still_to_come() -> None:
    rig = Rig()
    rig.arm()
    rig.chunk([0.5, 0.5], seq=1)
    rig.tick(5)
    epoch = rig.boxes.reset(rig.clock.now_ns())
    held = rig.control.safety.command_rad
    rig.chunk([0.5, 0.5], seq=2, epoch=epoch - 1)
    rig.tick(5)
    assert rig.control.safety.changes[-1].reason == "no chunk"
    np.testing.assert_array_equal(rig.control.safety.command_rad, held)
    assert rig.boxes.chunk.dropped_stale == 1


def test_a_silent_servo_is_a_fault_after_n_cycles_and_publishes_no_state() -> None:
    rig = Rig()
    rig.arm()
    state = rig.boxes.state.get()
    missing = rig.chain.servos.pop(2)
    rig.tick(4)
    assert rig.boxes.state.get() is state
    assert rig.control.safety.torque_on
    with pytest.raises(SafetyFault, match=r"5 bad .* in a row, the last: no answer from tip"):
        rig.tick()
    assert rig.control.safety.state is State.FAULT
    assert not rig.chain.servos[1].torque_on
    assert rig.control.torque_fault is not None
    assert rig.control.torque_fault.startswith("torque may still be on: tip: servo 2: no answer")
    assert missing.torque_on


def test_a_servo_that_comes_back_in_time_is_forgiven() -> None:
    rig = Rig()
    rig.arm()
    servo = rig.chain.servos.pop(2)
    rig.tick(4)
    rig.chain.servos[2] = servo
    rig.tick()
    assert rig.control.safety.counts["serial"] == 4
    assert rig.control.safety.torque_on


def test_a_vanished_port_ends_it_at_once_after_an_attempt_to_let_go() -> None:
    rig = Rig()
    rig.arm()
    attempts: list[bytes] = []

    def gone(data: bytes) -> None:
        attempts.append(data)
        raise PortError("/dev/ttyUSB0: vanished")

    rig.port.write = gone  # type: ignore[method-assign]
    with pytest.raises(PortError, match="vanished"):
        rig.tick()
    # The read, torque off to all at once, then to each by itself, three times.
    assert len(attempts) == 1 + 1 + 2 * 3
    assert rig.control.safety.state is State.FAULT


def test_disarming_lets_go_and_arming_again_is_possible() -> None:
    rig = Rig()
    rig.arm()
    rig.control.request("disarm")
    rig.tick()
    assert torques(rig.chain) == [False, False]
    assert rig.control.safety.state is State.DISARMED
    rig.arm()
    assert torques(rig.chain) == [True, True]


def test_a_joint_that_moves_while_arming_is_commanded_where_it_is_held() -> None:
    """It was read before torque came on, and may have been carried on since."""
    rig = Rig()
    sync_write = rig.robot.bus.sync_write

    def carried_on(name: str, ids: tuple[int, ...], raw: Sequence[int]) -> None:
        sync_write(name, ids, raw)
        servo = rig.chain.servos[2]
        if not servo.torque_on:
            servo.set_present_rad(servo.setpoint_rad + 0.1)
            servo.step(0.0)

    rig.robot.bus.sync_write = carried_on  # type: ignore[method-assign]
    rig.arm()
    held_rad = (rig.chain.servos[2]["goal_position"] - 2048) * 2 * np.pi / 4096
    assert held_rad > 0.2
    np.testing.assert_allclose(rig.control.safety.command_rad, [0.0, held_rad], atol=1e-9)


@pytest.mark.parametrize("step", range(5))
@pytest.mark.parametrize("source", ["estop", "signal"])
def test_a_stop_at_any_step_of_the_arming_leaves_torque_off(step: int, source: str) -> None:
    rig = Rig()
    polls = []

    def pressed() -> str | None:
        polls.append(torques(rig.chain))
        return "a button" if source == "estop" and len(polls) == step + 2 else None

    class Button:
        close = staticmethod(lambda: None)

    Button.pressed = staticmethod(pressed)  # type: ignore[attr-defined]
    rig.control._estop = Button()  # type: ignore[assignment]
    rig.control.interrupted = lambda: source == "signal" and len(polls) == step + 2
    rig.control.request("arm")
    with pytest.raises(SafetyFault, match="by a button" if source == "estop" else "a signal"):
        rig.tick()
    assert torques(rig.chain) == [False, False]
    assert polls[step + 1] == [step > 1] * 2  # torque comes on at the third step
    assert not rig.control.safety.torque_on


def test_a_servo_that_restarts_while_armed_is_a_fault_that_names_it() -> None:
    rig = Rig()
    rig.arm()
    rig.chain.servos[2].reboot()
    with pytest.raises(SafetyFault, match="tip: lost its torque: it restarted or was switched off"):
        rig.tick(10)
    assert rig.control.safety.state is State.FAULT
    assert torques(rig.chain) == [False, False]


def test_a_chunk_from_before_the_arming_is_not_followed() -> None:
    """Its picture may show the arm elsewhere: with torque off somebody may have moved it."""
    rig = Rig()
    rig.chunk([0.5, 0.5], seq=1)
    rig.tick()
    rig.arm()
    rig.tick(5)
    assert rig.control.counts["chunk_before_arming"] == 1
    np.testing.assert_allclose(rig.control.safety.command_rad, [0.0, 0.0])
    rig.chunk([0.5, 0.5], seq=2)
    rig.tick(5)
    assert rig.control.safety.command_rad[0] > 0.0


def test_the_last_request_counts_and_nobody_waits_for_ever() -> None:
    rig = Rig()
    arm = rig.control.request("arm")
    disarm = rig.control.request("disarm")
    assert arm.is_set()
    rig.tick()
    assert disarm.is_set()
    assert torques(rig.chain) == [False, False]


def test_a_disarm_that_is_asked_for_while_arming_is_obeyed_next() -> None:
    rig = Rig()
    enable_torque = rig.robot.enable_torque
    asked = []

    def enable_and_ask(poll: Callable[[], None] = lambda: None) -> Vector:
        goals_rad = enable_torque(poll)
        asked.append(rig.control.request("disarm"))
        return goals_rad

    rig.robot.enable_torque = enable_and_ask  # type: ignore[method-assign]
    rig.arm()
    assert torques(rig.chain) == [True, True]
    rig.tick()
    assert asked[0].is_set()
    assert torques(rig.chain) == [False, False]


def test_a_closed_loop_can_not_be_armed_again() -> None:
    """Nobody would turn the torque off a second time."""
    rig = Rig()
    rig.control.close()
    rig.control.request("arm")
    with pytest.raises(SafetyFault, match="the control loop is closed"):
        rig.tick()
    assert torques(rig.chain) == [False, False]


def test_a_torque_off_that_is_interrupted_is_done_by_the_next_close() -> None:
    rig = Rig()
    rig.arm()
    disable_torque = rig.robot.disable_torque

    def interrupted() -> None:
        raise KeyboardInterrupt

    rig.robot.disable_torque = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        rig.control.close()
    rig.robot.disable_torque = disable_torque  # type: ignore[method-assign]
    rig.control.close()
    assert torques(rig.chain) == [False, False]


def test_ticks_missed_while_arming_are_the_buss() -> None:
    rig = Rig()
    enable_torque = rig.robot.enable_torque

    def slow(poll: Callable[[], None] = lambda: None) -> Vector:
        rig.clock.advance_ns(25_000_000)
        return enable_torque(poll)

    rig.robot.enable_torque = slow  # type: ignore[method-assign]
    rig.arm()
    rig.control.missed(1)
    assert (rig.control.missed_ticks["bus"], rig.control.missed_ticks["late"]) == (1, 0)


class StallingClock(FakeClock):
    """A clock on which the n-th sleep oversleeps by the given time."""

    def __init__(self, oversleep_ns: dict[int, int]) -> None:
        super().__init__()
        self._oversleep_ns = oversleep_ns
        self._sleeps = 0

    def sleep_until_ns(self, t_ns: int) -> None:
        self._sleeps += 1
        super().sleep_until_ns(t_ns + self._oversleep_ns.get(self._sleeps, 0))


class FakeControl:
    """What `run_periodic` needs of a control loop; each tick takes `work_ns`."""

    period_ns = 100

    def __init__(self, clock: FakeClock, work_ns: Callable[[int], int], ticks: int) -> None:
        self._clock = clock
        self._work_ns = work_ns
        self._left = ticks
        self.at_ns: list[int] = []
        self.missed_ticks = 0
        self.closed = False

    def stopping(self) -> bool:
        return len(self.at_ns) == self._left

    def tick(self, now_ns: int, late_ns: int) -> None:
        self._clock.advance_ns(self._work_ns(len(self.at_ns)))
        self.at_ns.append(now_ns)

    def missed(self, ticks: int) -> None:
        self.missed_ticks += ticks

    def close(self) -> None:
        self.closed = True


def run_grid(control: FakeControl, clock: FakeClock) -> None:
    run_periodic(control, clock, control.stopping)


def test_the_grid_is_absolute() -> None:
    clock = FakeClock()
    control = FakeControl(clock, lambda tick: 30, ticks=4)
    run_grid(control, clock)
    assert control.at_ns == [0, 100, 200, 300]
    assert control.closed


def test_a_late_tick_skips_to_the_grid_and_is_never_caught_up() -> None:
    clock = StallingClock({2: 250})
    control = FakeControl(clock, lambda tick: 0, ticks=4)
    run_grid(control, clock)
    assert control.at_ns == [0, 350, 400, 500]
    assert control.missed_ticks == 2


def test_a_long_tick_skips_what_it_worked_through() -> None:
    clock = FakeClock()
    control = FakeControl(clock, lambda tick: 330 if tick == 0 else 0, ticks=3)
    run_grid(control, clock)
    assert control.at_ns == [0, 330, 400]
    assert control.missed_ticks == 2


@pytest.mark.parametrize(("bus_ns", "cause"), [(5_000_000, "late"), (25_000_000, "bus")])
def test_missed_ticks_are_laid_at_the_buss_door_when_it_was_slow(bus_ns: int, cause: str) -> None:
    rig = Rig()
    read_state = rig.robot.read_state

    def slow() -> Any:
        rig.clock.advance_ns(bus_ns)
        return read_state()

    rig.robot.read_state = slow  # type: ignore[method-assign]
    rig.tick()
    rig.control.missed(1)
    assert rig.control.missed_ticks == {"late": 0, "bus": 0, "no_chunk": 0, cause: 1}


def test_a_press_during_torque_off_is_an_emergency_stop(tmp_path: Path) -> None:
    """Torque-off over a dead bus takes seconds, and no tick follows it."""
    socket_path = tmp_path / "estop"
    rig = Rig(safety={"estop": {"socket": str(socket_path)}})
    rig.control.open()
    rig.arm()
    disable_torque = rig.robot.disable_torque

    def press_meanwhile() -> None:
        disable_torque()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"stop", str(socket_path))

    rig.robot.disable_torque = press_meanwhile  # type: ignore[method-assign]
    rig.control.close()
    assert str(socket_path) in (rig.control.safety.emergency or "")
