"""The simulated robot as a process of its own: a serial port and a camera are all that the runtime
sees of it.

The demo also speaks to it over a pipe, as a person in the room would: set the scene, let the puck
go, see how it ended. Between episodes time stands still there and the camera is silent.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import socket
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import cast

from demo import task
from demo.picture import U8
from demo.plant import Plant, Result
from demo.task import Level
from hw_drivers.cameras.camera import Frame
from hw_drivers.cameras.datagram import pack_frame
from hw_drivers.virtual.pty import PtyServer
from v2a.clock import MonotonicClock
from v2a.errors import V2AError

BAUD = 1_000_000
FRAME_S = 0.05
STEP_S = 0.005
_START_TIMEOUT_S = 30.0
_SEND_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Scene:
    """Set the scene of this episode."""

    seed: int
    level: Level


@dataclass(frozen=True, slots=True)
class Play:
    """Let the puck go."""

    keep_pictures: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """An episode's result and, if they were asked for, its pictures."""

    result: Result
    pictures: tuple[U8, ...]


class Simulator:
    """The parent's handle on the process; `port` is its serial port."""

    def __init__(self, pipe: Connection, process: BaseProcess) -> None:
        self._pipe, self._process = pipe, process
        self.port = str(self._receive(_START_TIMEOUT_S))

    @classmethod
    def start(cls, camera_path: Path, baud: int = BAUD) -> Simulator:
        """Start the process; its pictures go to the socket at `camera_path`."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_serve, args=(theirs, str(camera_path), baud), name="simulator", daemon=True
        )
        process.start()
        theirs.close()
        return cls(ours, process)

    def set_scene(self, seed: int, level: Level) -> None:
        """Arm and puck to the episode's start; nothing moves yet. The robot must be disarmed."""
        self._ask(Scene(seed, level))

    def play(self, keep_pictures: bool = False) -> Ended:
        """Let the puck go; returns when the episode is over."""
        ended = self._ask(Play(keep_pictures))
        assert isinstance(ended, Ended)
        return ended

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._pipe.send(None)
        self._process.join(2.0)
        self._process.kill()
        self._process.join()

    def __enter__(self) -> Simulator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, what: Scene | Play) -> object:
        with contextlib.suppress(OSError):  # nobody there: there will be no answer either
            self._pipe.send(what)
        return self._receive(_START_TIMEOUT_S)

    def _receive(self, timeout_s: float) -> object:
        if self._pipe.poll(timeout_s):
            with contextlib.suppress(EOFError, OSError):
                return self._pipe.recv()
        raise V2AError("the simulated robot's process has died; its output above says why")


def _serve(pipe: Connection, camera_path: str, baud: int) -> None:
    """The process: answer the parent until it says stop or is gone."""
    # Ctrl-C is the parent's to handle: it still needs the servos to turn their torque off.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.setswitchinterval(0.0005)  # the servos' answers must not wait for the physics
    plant = Plant()
    bus = PtyServer(plant.chain, baud)
    eye = _Eye(plant, camera_path)
    pipe.send(bus.path)
    try:
        while (asked := _next(pipe)) is not None:
            if isinstance(asked, Scene):
                scenario = task.scenario(asked.seed, asked.level)
                plant.reset(scenario)
                pipe.send(asked)
            else:
                pipe.send(_episode(plant, eye, scenario.steps, asked.keep_pictures))
    finally:
        bus.close()


def _next(pipe: Connection) -> Scene | Play | None:
    try:
        return cast("Scene | Play | None", pipe.recv())
    except EOFError:
        return None


class _Eye:
    """The camera: a datagram a picture, to whoever listens at `path`."""

    def __init__(self, plant: Plant, path: str) -> None:
        self._plant, self._path = plant, path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self._socket.setblocking(False)
        self._seq = 0

    def look(self, now_ns: int) -> U8:
        picture = self._plant.picture()
        self._seq += 1
        # Nobody there, or too slow: a camera does not care.
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError, BlockingIOError):
            self._socket.sendto(pack_frame(Frame(self._seq, now_ns, 0, picture)), self._path)
        return picture


def _episode(plant: Plant, eye: _Eye, steps: int, keep_pictures: bool) -> Ended:
    """Real time: the world on a 5 ms grid, a picture every `FRAME_S`."""
    clock = MonotonicClock()
    start_ns = clock.now_ns()
    pictures = []
    ticks_a_frame = round(FRAME_S / STEP_S)
    for tick in range(steps * ticks_a_frame):
        due_ns = start_ns + round(tick * STEP_S * 1e9)
        clock.sleep_until_ns(due_ns)
        plant.advance(tick * STEP_S)
        if tick % ticks_a_frame == 0:
            picture = eye.look(due_ns)
            if keep_pictures:
                pictures.append(picture)
    plant.advance(steps * FRAME_S)
    return Ended(plant.result(), tuple(pictures))
