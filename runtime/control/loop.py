"""The control loop: reads the bus, plays the chunk, checks safety, writes the motors.

The loop ticks on an absolute time grid, and each tick takes one nominal step. Missed grid points
are skipped and counted by cause; the loop never catches up. A real run has the loop in a process
of its own (`runtime.control.process`). Simulation and tests run the same class in a thread or on a
virtual clock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hw_drivers.robot.robot import Robot
from runtime.config.robot_yaml import RunConfig
from runtime.control.grid import run_periodic
from runtime.control.outcome import PageEnd
from runtime.control.record import ControlRecord, TickFacts
from runtime.control.trajectory import Trajectory
from runtime.mailbox import Mailboxes, StateMsg, Vector
from runtime.safety.estop import Estop
from runtime.safety.motion_limiter import Limits
from runtime.safety.safety import Safety, State
from v2a.clock import Clock
from v2a.errors import BusError, PortError, SafetyFault
from v2a.spans import STAGE_INDEX, SpanRing

TICK, BUS_READ, BUS_WRITE = (STAGE_INDEX[s] for s in ("tick", "bus_read", "bus_write"))

Verb = Literal["arm", "disarm"]


@dataclass(frozen=True, slots=True)
class Request:
    """A request to the loop, as only the loop may use the bus. It sets `done` afterwards."""

    verb: Verb
    done: threading.Event


class Control(ControlRecord):
    """The control loop; one `tick` is one cycle. Every error turns the torque off first."""

    safety: Safety

    def __init__(
        self,
        robot: Robot,
        limits: Limits,
        config: RunConfig,
        mailboxes: Mailboxes,
        clock: Clock,
        ring: SpanRing,
    ) -> None:
        self.period_ns = config.control_period_ns
        super().__init__(Safety(limits, self.period_ns / 1e9, config.control, config.safety))
        self._robot = robot
        self._names = limits.names
        self.torque = robot.torque
        self._mailboxes = mailboxes
        self._clock = clock
        self._ring = ring
        self._estop_config = config.safety.estop
        self._estop: Estop | None = None
        self.page: PageEnd | None = None  # the live page's STOP
        self._trajectory = Trajectory(config.control.blend_s)
        self._request: Request | None = None
        self._request_lock = threading.Lock()
        # Last heartbeat of a policy in another process; None if the policy runs in this one.
        self.heard_ns: int | None = None
        self.closing: Callable[[], None] = lambda: None  # called before torque goes off for good
        self.interrupted: Callable[[], bool] = lambda: False  # whether a signal ends the process
        self.facts = TickFacts()
        self._armed_ns = 0
        self._read_ns = 0
        self._epoch = 0
        self._seq = 0
        self._chunk_seq = 0
        self._bus_ns = 0  # bus time of this tick
        self._serial_fault: str | None = None  # bus fault of this tick
        self._owns_torque = False  # what this run never turned on, it leaves as it is
        self._closed = False
        self._closing = threading.Lock()

    def open(self) -> None:
        """Connect the robot, and leave its torque as it is.

        A killed run leaves torque on, and the arm would fall if it went off unasked. Then
        `torque_fault` says so. Raises BusError if the robot does not answer.
        """
        self._estop = Estop(self._estop_config, None if self.page is None else self.page.pressed)
        self._robot.connect()
        self._robot.read_torque()
        self.torque = self._robot.torque
        found = self.torque.items()
        if stiff := [f"{name} {torque}" for name, torque in found if torque != "off"]:
            self.torque_fault = (
                f"this run found torque on and leaves it so: {', '.join(stiff)}; to turn it off: "
                "v2a motors release ROBOT.yaml"
            )

    def run(self, stopping: Callable[[], bool]) -> None:
        """Tick in the calling thread until `stopping()`."""
        run_periodic(self, self._clock, stopping)

    def request(self, verb: Verb) -> threading.Event:
        """Request `verb` for the next tick; arming waits for a tick that reads every joint.

        A newer request replaces a waiting one and sets its event. `safety` shows the outcome.
        """
        request = Request(verb, threading.Event())
        with self._request_lock:
            overtaken, self._request = self._request, request
        if overtaken is not None:
            overtaken.done.set()
        return request.done

    def end_gently(self, reason: str) -> bool:
        """Leave the policy for the safe pose, and return whether the arm is on its way there.

        `tick` raises SafetyFault when it has arrived. Call it between two ticks.
        """
        with self._request_lock:
            waiting, self._request = self._request, None  # the policy's last wish is void
        if waiting is not None:
            waiting.done.set()
        return self.safety.end_gently(self._clock.now_ns(), reason)

    def hurry(self) -> None:
        """Nothing to do: in this process `close` turns the torque off at once."""

    def missed(self, ticks: int) -> None:
        """Count missed grid points, by cause."""
        self.missed_ticks["bus" if self._bus_ns > self.period_ns else "late"] += ticks

    def tick(self, now_ns: int, late_ns: int = 0) -> None:
        """Run one cycle. Raises PortError if the port is gone, SafetyFault if safety stops it."""
        if self._closed:
            raise SafetyFault("the control loop is closed; start a new run")
        self.facts = TickFacts(late_ns)
        try:
            self._cycle(now_ns)
        except BaseException as fault:
            stopped = self.safety.state is State.TORQUE_OFF
            if not stopped:
                self.safety.fault(now_ns, str(fault) or type(fault).__name__)
            reason = self.safety.changes[-1].reason
            self.close()
            if stopped and self.torque_fault is not None:  # `fault` says that torque is off
                raise SafetyFault(
                    f"{reason}, but {self.torque_fault}; cut the motors' power"
                ) from fault
            raise
        self.ticks += 1
        self.add(self.facts)
        self._ring.add(TICK, now_ns, self._clock.now_ns(), self._in_play())

    def close(self) -> None:
        """Turn the torque off and release the robot. `torque_fault` keeps a failure to do so.

        Torque that another program left on stays on, unless somebody pressed a stop.
        """
        with self._closing:
            if self._closed:
                return
            self.closing()
            now_ns = self._clock.now_ns()
            self._note_press()  # no tick has seen a press since the last one
            try:
                if self._owns_torque or self.safety.emergency is not None:
                    self._let_go()
            except BusError as fault:
                self.torque_fault = f"{fault}; cut the motors' power"
                self.safety.fault(now_ns, self.torque_fault)
            self.safety.disarm(now_ns, "end of the run")
            self._closed = True
            self._robot.close()
            self._note_press()  # torque-off over a dead bus takes seconds
            if self._estop is not None:
                self._estop.close()

    def _note_press(self) -> None:
        if self._estop is not None:
            self.safety.emergency = self.safety.emergency or self._estop.pressed()

    def _let_go(self) -> None:
        self._owns_torque = True
        try:
            self._robot.disable_torque()
        finally:
            self.torque = self._robot.torque
        self.torque_fault = None  # it is off now, whoever turned it on

    def _cycle(self, now_ns: int) -> None:
        self._bus_ns = 0
        self._serial_fault = None
        self._follow_epoch()
        self._poll_estop(now_ns)
        asked_before = self._request
        position_rad = self._read(now_ns)
        self._obey(now_ns, position_rad, asked_before)
        if position_rad is not None:
            self._publish(now_ns, position_rad)
            self.safety.check_following(now_ns, position_rad)
        self.health, self.torque = self._robot.health(), self._robot.torque
        if self.health is not None:
            self.safety.health(now_ns, self.health)
        if self.safety.torque_on:
            self._take_chunk(now_ns)
            self._write(self._next_command(now_ns))
            self._note_ages(now_ns)
        self.safety.serial(now_ns, self._serial_fault)

    def _poll_estop(self, now_ns: int) -> None:
        if self._estop is not None and (source := self._estop.pressed()):
            self.safety.emergency_stop(now_ns, source)

    def _poll_stop(self) -> None:
        """Raise SafetyFault if a stop was asked for. Arming calls this between its steps."""
        self._poll_estop(self._clock.now_ns())
        if self.interrupted():
            raise SafetyFault("a signal broke off the arming")

    def _follow_epoch(self) -> None:
        if self._mailboxes.epoch.number != self._epoch:
            self._epoch = self._mailboxes.epoch.number
            self._trajectory.clear()

    def _read(self, now_ns: int) -> Vector | None:
        """Return the joint positions, float64 [J] rad, or None if the read failed."""
        start_ns = self._clock.now_ns()
        try:
            state = self._robot.read_state()
        except PortError:
            raise  # the port is gone, so no later cycle can succeed
        except BusError as fault:
            self._serial_fault = str(fault)
            return None
        finally:
            self._bus_span(BUS_READ, start_ns)
        if not state.valid.all():
            silent = [self._names[joint] for joint in np.flatnonzero(~state.valid)]
            self._serial_fault = f"no answer from {', '.join(silent)}"
            return None
        self._read_ns = now_ns
        return state.position_rad

    def _obey(self, now_ns: int, position_rad: Vector | None, asked_before: Request | None) -> None:
        """Execute the waiting request.

        Arming needs a read that began after the request: before, a hand may have moved the joints.
        """
        with self._request_lock:
            request = self._request
            known = position_rad is not None and request is asked_before
            if request is None or (request.verb == "arm" and not known):
                return
            self._request = None  # now: a request from here on waits for the next tick
        start_ns = self._clock.now_ns()
        if request.verb == "arm" and position_rad is not None:
            self.safety.check_arming(position_rad)
            self._owns_torque, self.torque_fault = True, None
            # A joint may move until its torque is on, so the command starts at the goals written.
            self.safety.arm(now_ns, self._robot.enable_torque(self._poll_stop))
            self._armed_ns = now_ns
        else:
            self._let_go()
            self.safety.disarm(now_ns, "asked to")
        self._bus_ns += self._clock.now_ns() - start_ns
        self._trajectory.clear()
        request.done.set()

    def _publish(self, now_ns: int, position_rad: Vector) -> None:
        self._seq += 1
        command_rad = self.safety.command_rad if self.safety.torque_on else position_rad
        message = StateMsg(
            seq=self._seq,
            t_capture_ns=now_ns,
            t_publish_ns=0,
            parent_seq=self._chunk_seq,
            epoch=self._epoch,
            position_rad=position_rad,
            command_rad=command_rad,
        )
        self._mailboxes.state.put(message, now_ns)

    def _take_chunk(self, now_ns: int) -> None:
        chunk = self._mailboxes.chunk.get()
        if chunk is None or chunk.seq <= self._chunk_seq:
            return
        self._chunk_seq = chunk.seq
        if chunk.t_capture_ns < self._armed_ns:  # a hand may have moved the arm since
            self.counts["chunk_before_arming"] += 1
            return
        if chunk.target_rad.ndim != 2 or chunk.target_rad.shape[1] != len(self._names):
            # numpy would broadcast a single column to every joint.
            self.counts["chunk_of_wrong_shape"] += 1
            return
        if not np.isfinite(chunk.target_rad).all():
            self.counts["chunk_not_finite"] += 1
            return
        resume = self.safety.state is State.HOLD
        jump_rad = self._trajectory.take(chunk, now_ns, self.safety.command_rad, resume)
        if jump_rad is None:
            self.counts["chunk_past"] += 1
            return
        self.facts.seam_jump_rad = jump_rad

    def _next_command(self, now_ns: int) -> Vector:
        silent = self.heard_ns is not None and self.safety.policy_silent(now_ns, self.heard_ns)
        if self.safety.state is State.SAFE_POSE:
            return self.safety.safe_pose(now_ns)
        if silent:
            return self._hold(now_ns, "the policy is silent")
        if self.safety.reading_stale(now_ns, self._read_ns):
            return self._hold(now_ns, "joint positions too old")
        return self._follow(now_ns)

    def _hold(self, now_ns: int, reason: str) -> Vector:
        self._trajectory.clear()  # only a new chunk resumes, through a blend
        return self.safety.hold(now_ns, reason)

    def _follow(self, now_ns: int) -> Vector:
        target_rad, chunk = self._trajectory.target(now_ns), self._trajectory.chunk
        if target_rad is None or chunk is None:
            self.missed_ticks["no_chunk"] += 1
            return self.safety.hold(now_ns, "no chunk")
        current = chunk.epoch == self._epoch
        return self.safety.command(now_ns, target_rad, chunk.t_capture_ns, current)

    def _note_ages(self, now_ns: int) -> None:
        if (chunk := self._trajectory.chunk) is None:
            return
        self.facts.chunk_age_ns = max(now_ns - chunk.t_publish_ns, 0)
        self.facts.frame_to_motor_ns = self._clock.now_ns() - chunk.t_capture_ns

    def _write(self, command_rad: Vector) -> None:
        start_ns = self._clock.now_ns()
        try:
            self._robot.write_goal(command_rad)
        except PortError:
            raise
        except BusError as fault:
            self._serial_fault = str(fault)
        finally:
            self._bus_span(BUS_WRITE, start_ns)

    def _bus_span(self, stage: int, start_ns: int) -> None:
        end_ns = self._clock.now_ns()
        self._bus_ns += end_ns - start_ns
        self._ring.add(stage, start_ns, end_ns, self._in_play())

    def _in_play(self) -> int:
        """Return the flow id of this tick: the seq of the chunk in play, or 0."""
        chunk = self._trajectory.chunk
        return 0 if chunk is None else chunk.seq
