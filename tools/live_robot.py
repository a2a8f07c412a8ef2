"""A `v2a run` as a process of its own, the virtual servos that it moves, and a watch over both.

`benchmarks/stops.py` and `benchmarks/soak.py` use it. The servos live in this process, in threads
that run before ordinary ones where that is permitted: a servo does not wait for a busy host.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from hw_drivers.dynamixel.models import MODELS
from hw_drivers.dynamixel.virtual_bus import VirtualDynamixelBus
from hw_drivers.dynamixel.virtual_servo import VirtualDynamixel
from hw_drivers.virtual.pty import PtyServer

REPOSITORY: Final = Path(__file__).resolve().parents[1]
BUNDLE: Final = REPOSITORY / "demo" / "bundle"
START_RAD: Final = {1: 0.0, 2: 0.3, 3: -1.0, 4: 0.0, 5: 0.0}
LOOK_S: Final = 0.002
PATIENCE_S: Final = 60.0
# The demo's arm. A bus on a busy machine loses answers that a wire would not.
YAML: Final = """\
robot:
  name: soak
  bus: {{protocol: dynamixel2, port: {port}, baud: 1000000}}
  joints:
    - {{name: yaw, id: 1, model: xl430-w250, lower_rad: -1.6, upper_rad: 1.6, velocity_limit_rad_s: 0.585}}
    - {{name: shoulder, id: 2, model: xl430-w250, lower_rad: -0.6, upper_rad: 1.9, velocity_limit_rad_s: 0.845}}
    - {{name: elbow, id: 3, model: xl430-w250, lower_rad: -2.9, upper_rad: 0.0, velocity_limit_rad_s: 1.105}}
    - {{name: wrist, id: 4, model: xl430-w250, lower_rad: -1.6, upper_rad: 2.6, velocity_limit_rad_s: 1.105}}
    - {{name: roll, id: 5, model: xl430-w250, lower_rad: -1.0, upper_rad: 1.0, velocity_limit_rad_s: 1.105}}
camera: {{source: "synthetic:", fps: 20, width: 192, height: 192}}
control: {{rate_hz: 40, serial_faults_max: 40}}
safety: {{state_age_max_s: 1.0, hold_max_s: 600, estop: {{socket: {estop}{gpio}}}{safety}}}
system1: {{period_s: 0.1, noise_scale: 0}}
system2: {{period_s: 0.2, soft_age_s: 1.75, hard_age_s: 2.5}}
instruction: drop the ring over the puck
"""  # noqa: E501
# A package `gpiod` whose lines are pressed once a file beside it exists.
FAKE_GPIOD: Final = """\
import pathlib
class LineSettings:
    def __init__(self, **_): pass
class _Request:
    def get_value(self, _):
        from gpiod.line import Value
        pressed = pathlib.Path(__file__).with_name("pressed").exists()
        return Value.ACTIVE if pressed else Value.INACTIVE
    def release(self): pass
def request_lines(*_, **__): return _Request()
"""
FAKE_GPIOD_LINE: Final = """\
import enum
Bias = enum.Enum("Bias", "PULL_UP")
Direction = enum.Enum("Direction", "INPUT")
Value = enum.Enum("Value", "INACTIVE ACTIVE")
"""
RANGE_RAD: Final = {1: (-1.6, 1.6), 2: (-0.6, 1.9), 3: (-2.9, 0.0), 4: (-1.6, 2.6), 5: (-1.0, 1.0)}


@contextlib.contextmanager
def scheduled_first() -> Iterator[None]:
    """Threads started inside run first, where that is permitted: servos do not wait for a host."""
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(60))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def benchmark_parser(doc: str | None, rounds: int, **tables: Iterable[str]) -> ArgumentParser:
    """Return the arguments of a benchmark that plays rounds.

    `rounds` is the default number of rounds. Each of `tables` becomes an option of that name, which
    chooses some of its rows.
    """
    parser = ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds)
    for name, rows in tables.items():
        parser.add_argument(f"--{name}", choices=list(rows), action="append")
    parser.add_argument("--json", action="store_true")
    return parser


class Servos:
    """Five virtual servos behind a port, and what was seen of them."""

    def __init__(self, folder: Path, latency_timer_s: float = 0.0) -> None:
        self.chain = VirtualDynamixelBus(
            VirtualDynamixel(MODELS["xl430-w250"], i) for i in START_RAD
        )
        for i, servo in self.chain.servos.items():
            servo.rest_at(2048 + round(START_RAD[i] / servo.model.rad_per_tick))
        self.goals_out_of_range: list[str] = []
        self.limp_since_s: float | None = None  # monotonic; None while a servo has torque
        self._over = threading.Event()
        with scheduled_first():
            self.pty: PtyServer = PtyServer(
                self.chain, link=folder / "port", moves=True, latency_timer_s=latency_timer_s
            )
            self._watch = threading.Thread(target=self._look, daemon=True)
            self._watch.start()

    def registers(self, name: str) -> list[int]:
        with self.chain.lock:
            return [servo[name] for servo in self.chain.servos.values()]

    def any_torque(self) -> bool:
        return any(self.registers("torque_enable"))

    def all_torque(self) -> bool:
        return all(self.registers("torque_enable"))

    def close(self) -> None:
        self._over.set()
        self._watch.join()
        self.pty.close()

    def _look(self) -> None:
        while not self._over.wait(LOOK_S):
            with self.chain.lock:
                stiff = [i for i, servo in self.chain.servos.items() if servo["torque_enable"]]
                goals = {i: self._goal_rad(i) for i in stiff}
            if stiff:
                self.limp_since_s = None
            elif self.limp_since_s is None:
                self.limp_since_s = time.monotonic()
            for i, goal_rad in goals.items():
                low, high = RANGE_RAD[i]
                if not low - 0.002 <= goal_rad <= high + 0.002:  # a tick is 0.0015 rad
                    self.goals_out_of_range.append(f"servo {i}: {goal_rad:.3f} rad")

    def _goal_rad(self, servo_id: int) -> float:
        servo = self.chain.servos[servo_id]
        return float((servo["goal_position"] - 2048) * servo.model.rad_per_tick)


class Run:
    """`v2a run` on these servos, with files in `folder`."""

    def __init__(
        self,
        servos: Servos,
        folder: Path,
        *options: str,
        safety: str = "",
        engine: str = "ort",
        with_gpio: bool = False,
    ) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.estop = folder / "estop"
        file = folder / "robot.yaml"
        gpio = ", gpio: {chip: /dev/gpiochip0, line: 1}" if with_gpio else ""
        file.write_text(
            YAML.format(port=servos.pty.path, estop=self.estop, gpio=gpio, safety=safety)
        )
        self._gpiod = folder / "packages" / "gpiod"
        self._gpiod.mkdir(parents=True)
        (self._gpiod / "__init__.py").write_text(FAKE_GPIOD)
        (self._gpiod / "line.py").write_text(FAKE_GPIOD_LINE)
        packages = os.pathsep.join([str(REPOSITORY), str(self._gpiod.parent)])
        # `v2a run` honours an inherited nohup; here SIGHUP must count.
        command = ["env", "--default-signal=HUP", sys.executable]
        command += ["-m", "v2a", "run", "robot.yaml", "--bundle", str(BUNDLE)]
        command += ["--engine", engine, "--record", "run", "--json"]
        command += ["--web", "127.0.0.1:0", *options]
        self.stderr = folder / "stderr"
        self.stdout = folder / "stdout"
        with self.stderr.open("w") as err, self.stdout.open("w") as out:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                stdout=out,
                stderr=err,
                env={**os.environ, "PYTHONPATH": packages, "V2A_STATE_DIR": str(folder)},
                start_new_session=True,  # so that a signal to its group is a key in its terminal
            )

    @property
    def host(self) -> str:
        """Host and port of the live page. Raises TimeoutError if it does not come up."""
        found: list[str] = []

        def look() -> bool:
            found[:] = re.findall(r"live page: http://([^/]+)/", self.stderr.read_text())
            if not found and self.process.poll() is not None:
                raise RuntimeError(f"the run ended: {self.stderr.read_text()}")
            return bool(found)

        until(look)
        return found[0]

    def pid(self, module: str) -> int | None:
        """The child process that runs `module`, None without one."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().split(b"\0")
                if module.encode() in words and self._is_ours(int(path.parent.name)):
                    return int(path.parent.name)
        return None

    def _is_ours(self, pid: int) -> bool:
        return os.getsid(pid) == self.process.pid

    def press_page(self) -> dict[str, Any]:
        """POST /estop, and the page's answer."""
        return ask_json(self.host, "POST", "/estop")

    def press_socket(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"stop", str(self.estop))

    def press_gpio(self) -> None:
        """Open the contact of the fake GPIO line."""
        (self._gpiod / "pressed").touch()

    def kill_child(self, module: str) -> None:
        """Kill the child process that runs `module`, and wait until it is gone."""
        pid = self.pid(module)
        if pid is None:
            raise RuntimeError(f"no process runs {module}")
        os.kill(pid, signal.SIGKILL)
        until(lambda: self.pid(module) is None)

    def signal_all(self, number: int) -> None:
        """Send a signal to every process of the run, as a key in its terminal does."""
        os.killpg(self.process.pid, number)

    def wait(self, seconds: float = PATIENCE_S) -> int:
        return self.process.wait(seconds)

    def close(self) -> None:
        """Kill what is left of the run."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def ask_json(host: str, method: str, path: str, timeout_s: float = 10.0) -> dict[str, Any]:
    """The JSON that the page at `host` answers."""
    connection = http.client.HTTPConnection(host, timeout=timeout_s)
    with contextlib.closing(connection):
        connection.request(method, path, headers={"X-V2A-Button": "1"})
        found: dict[str, Any] = json.loads(connection.getresponse().read())
        return found


def until(condition: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
    """Wait for `condition`. Raises TimeoutError."""
    end_s = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end_s:
            raise TimeoutError(f"nothing happened within {seconds:g} s")
        time.sleep(LOOK_S)
