"""Runs the simulated robot in a process of its own. The runtime sees a serial port and a camera.

The demo also controls the process over a pipe, as a person in the room would: it sets the scene,
releases the puck and asks for the result. Between episodes the simulation and the camera pause.
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
    """A request to set the scene of an episode."""

    seed: int
    level: Level


@dataclass(frozen=True, slots=True)
class Play:
    """A request to release the puck."""

    keep_pictures: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """An episode's result and, if requested, its images."""

    result: Result
    pictures: tuple[U8, ...]


class Simulator:
    """The parent's handle of the process; `port` is its serial port."""

    def __init__(self, pipe: Connection, process: BaseProcess) -> None:
        self._pipe, self._process = pipe, process
        self.port = str(self._receive(_START_TIMEOUT_S))

    @classmethod
    def start(cls, camera_path: Path, baud: int = BAUD) -> Simulator:
        """Start the process. Its camera sends images to the socket at `camera_path`."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_serve, args=(theirs, str(camera_path), baud), name="simulator", daemon=True
        )
        process.start()
        theirs.close()
        return cls(ours, process)

    def set_scene(self, seed: int, level: Level) -> None:
        """Put arm and puck at the episode's start, at rest. The robot must be disarmed.

        Raises V2AError if the process has died.
        """
        self._ask(Scene(seed, level))

    def play(self, keep_pictures: bool = False) -> Ended:
        """Release the puck and return when the episode is over.

        Raises V2AError if the process has died.
        """
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
        with contextlib.suppress(OSError):  # the process has died, and `_receive` reports it
            self._pipe.send(what)
        return self._receive(_START_TIMEOUT_S)

    def _receive(self, timeout_s: float) -> object:
        if self._pipe.poll(timeout_s):
            with contextlib.suppress(EOFError, OSError):
                return self._pipe.recv()
        raise V2AError("the simulated robot's process has died; its output above says why")


def _serve(pipe: Connection, camera_path: str, baud: int) -> None:
    """Answer the parent's requests until it says stop or dies."""
    # The parent handles Ctrl-C, as it still needs the servos to turn their torque off.
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
    """The camera: sends one datagram per image to the socket at `path`."""

    def __init__(self, plant: Plant, path: str) -> None:
        self._plant, self._path = plant, path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self._socket.setblocking(False)
        self._seq = 0

    def look(self, now_ns: int) -> U8:
        picture = self._plant.picture()
        self._seq += 1
        # Like a real camera, it ignores a missing or slow reader.
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError, BlockingIOError):
            self._socket.sendto(pack_frame(Frame(self._seq, now_ns, 0, picture)), self._path)
        return picture


def _episode(plant: Plant, eye: _Eye, steps: int, keep_pictures: bool) -> Ended:
    """Run an episode in real time: the world every 5 ms, an image every `FRAME_S`."""
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
