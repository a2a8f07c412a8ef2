"""What is around `v2a run`: a robot.yaml, and a simulator that sends pictures to a socket."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import numpy as np
from click.testing import CliRunner, Result

from hw_drivers.cameras.camera import Frame
from hw_drivers.cameras.datagram import pack_frame
from tests.runtime.conftest import SIZE
from v2a.cli import cli

ROBOT_YAML = """\
robot:
  name: two
  bus: {protocol: dynamixel2, port: /dev/not-there, baud: 1000000}
  joints:
    - {name: base, id: 1, model: xl430-w250, lower_rad: 0.3, upper_rad: 1, velocity_limit_rad_s: 1}
    - {name: tip, id: 2, model: xl430-w250, lower_rad: -1, upper_rad: 1, velocity_limit_rad_s: 1,
       direction: -1, zero_tick: 1900}
camera: {source: "socket:camera.sock", fps: 20, timeout_s: 20}
instruction: push the cube
"""


def run_command(*options: str) -> Result:
    """`v2a run robot.yaml --bundle bundle OPTIONS` in this process."""
    arguments = ["run", "robot.yaml", "--bundle", "bundle", *options]
    return CliRunner().invoke(cli, arguments, prog_name="v2a")


class Simulator:
    """Sends a picture to `path` every 50 ms as soon as somebody has opened it. Its clock may be
    ahead of this machine's."""

    def __init__(self, path: Path, ahead_ns: int = 0) -> None:
        self._path = path
        self._ahead_ns = ahead_ns
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._send, name="simulator")
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _send(self) -> None:
        image = np.zeros((SIZE, SIZE, 3), np.uint8)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            seq = 0
            while not self._stopping.wait(0.05):
                seq += 1
                try:
                    frame = Frame(seq, time.monotonic_ns() + self._ahead_ns, 0, image)
                    sender.sendto(pack_frame(frame), str(self._path))
                except OSError:
                    continue  # not open yet, or closed again
