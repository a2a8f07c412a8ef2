"""Measures one cycle of a bus with seven servos: read the positions, write the goals.

    python benchmarks/bus_cycle.py [--json] [--peers DIR]

Compares our driver with its peers. The servos are virtual XL330s in another process, behind a
pseudo terminal. The figures of each client:

- `cpu_us`: CPU time of the client's thread per cycle, with the kernel's share, on a wire that takes
  no time.
- `paced_cpu_us`: the same on a wire that takes time. A client that polls computes while it waits.
- `cycle_over_wire`: the median cycle, divided by the time of its bytes on a wire of that rate.
- `failed_cycles`: cycles without an answer, though the servos always answer.

`ours` uses sync read and `ours_fast` fast sync read. `ours_robot` is the whole `Robot`: radians,
limits and watchdog, current, voltage and temperature. `again` is `ours` a second time, which gives
the noise floor. The clients take turns, round after round. A peer that is not installed is left out
with its reason. Install one into DIR with `pip install --target DIR/NAME NAME`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hw_drivers.bus.port import BITS_PER_BYTE, SerialPort
from hw_drivers.dynamixel.bus import DynamixelBus
from hw_drivers.dynamixel.models import CENTRE_TICK, MODELS
from hw_drivers.robot.robot import BusConfig, JointConfig, Robot, RobotConfig
from v2a.clock import MonotonicClock
from v2a.errors import BusError

MODEL = "xl330-m288"
IDS = (1, 2, 3, 4, 5, 6, 7)
POSITION, GOAL, RETURN_DELAY = 132, 116, 9
CYCLES = 20  # in one round of an arm
PACED_BAUDS = (1_000_000, 4_000_000)
UNPACED = 1_000_000  # what the clients set where the rate does not matter
PATIENCE_S = 0.2
TICKS = [CENTRE_TICK + servo_id for servo_id in IDS]

# Bytes of a cycle (e-manual, Protocol 2.0): request and answers of the read, then the write.
_WRITE_BYTES = 14 + 5 * len(IDS)
WIRE_BYTES = {
    "sync": 14 + len(IDS) + 15 * len(IDS) + _WRITE_BYTES,
    "fast": 14 + len(IDS) + 8 + 8 * len(IDS) + _WRITE_BYTES,
    "fast with current": 14 + len(IDS) + 8 + 14 * len(IDS) + _WRITE_BYTES,
}

Cycle = Callable[[], object]


class Arm(NamedTuple):
    """One way to do it: `open(path, baud)` gives a cycle and what closes it."""

    open: Callable[[str, int], tuple[Cycle, Callable[[], None]]]
    wire: str = "sync"


def ours(path: str, baud: int, fast: bool = False) -> tuple[Cycle, Callable[[], None]]:
    bus = DynamixelBus(
        SerialPort(path, baud), MonotonicClock(), dict.fromkeys(IDS, MODELS[MODEL]), PATIENCE_S
    )
    block = bus.block(("present_position",), IDS)
    reader = bus.cycle_reader(block) if fast else bus.reader(IDS)
    assert reader.is_fast == fast

    def cycle() -> object:
        found = reader.read(block, PATIENCE_S)
        bus.sync_write("goal_position", IDS, TICKS)
        if not found.all_valid:
            raise BusError("no answer")
        return found.si("present_position")

    return cycle, bus.close


def ours_robot(path: str, baud: int) -> tuple[Cycle, Callable[[], None]]:
    joints = tuple(
        JointConfig(
            name=f"joint{i}", id=i, model=MODEL, lower_rad=-3, upper_rad=3, velocity_limit_rad_s=5
        )
        for i in IDS
    )
    bus = BusConfig(protocol="dynamixel2", port=path, baud=baud, budget_s=PATIENCE_S)
    robot = Robot(RobotConfig(name="arm", bus=bus, joints=joints), MonotonicClock())
    robot.connect()
    goal_rad = np.full(len(IDS), 0.01)

    def cycle() -> object:
        state = robot.read_state()
        robot.write_goal(goal_rad)
        if not state.valid.all():
            raise BusError("no answer")
        return state

    return cycle, robot.close


def dynamixel_sdk(path: str, baud: int, fast: bool = False) -> tuple[Cycle, Callable[[], None]]:
    sdk = importlib.import_module("dynamixel_sdk")
    port, handler = sdk.PortHandler(path), sdk.PacketHandler(2.0)
    assert port.openPort()
    assert port.setBaudRate(baud)
    reader = sdk.GroupSyncRead(port, handler, POSITION, 4)
    writer = sdk.GroupSyncWrite(port, handler, GOAL, 4)
    for servo_id in IDS:
        reader.addParam(servo_id)
        writer.addParam(servo_id, list(CENTRE_TICK.to_bytes(4, "little")))
    read = reader.fastSyncRead if fast else reader.txRxPacket

    def cycle() -> object:
        result = read()
        for servo_id, tick in zip(IDS, TICKS, strict=True):
            writer.changeParam(servo_id, list(tick.to_bytes(4, "little")))
        writer.txPacket()
        if result != sdk.COMM_SUCCESS:
            raise ConnectionError(handler.getTxRxResult(result))
        return [reader.getData(servo_id, POSITION, 4) for servo_id in IDS]

    return cycle, port.closePort


def rustypot(path: str, baud: int, fast: bool = False) -> tuple[Cycle, Callable[[], None]]:
    bus = importlib.import_module("rustypot").Xl330PyController(path, baud, PATIENCE_S)
    if fast:
        bus.set_fast_sync_read(True)
    ids, goals = list(IDS), [0.01] * len(IDS)

    def cycle() -> object:
        found = bus.sync_read_present_position(ids)
        bus.sync_write_goal_position(ids, goals)
        return found

    return cycle, lambda: None


def lerobot(path: str, baud: int) -> tuple[Cycle, Callable[[], None]]:
    motors = importlib.import_module("lerobot.motors")
    tables = importlib.import_module("lerobot.motors.dynamixel")
    names = [f"joint{i}" for i in IDS]
    bus = tables.DynamixelMotorsBus(
        path,
        {
            name: motors.Motor(i, MODEL, motors.MotorNormMode.RANGE_M100_100)
            for name, i in zip(names, IDS, strict=True)
        },
        {
            name: motors.MotorCalibration(i, 0, 0, 0, 4095)
            for name, i in zip(names, IDS, strict=True)
        },
    )
    bus.connect(handshake=False)
    bus.set_baudrate(baud)
    goals = dict.fromkeys(names, 0.5)

    def cycle() -> object:
        found = bus.sync_read("Present_Position", num_retry=3)
        bus.sync_write("Goal_Position", goals)
        return found

    return cycle, lambda: bus.disconnect(disable_torque=False)


ARMS = {
    "ours": Arm(ours),
    "again": Arm(ours),
    "ours_fast": Arm(lambda path, baud: ours(path, baud, fast=True), "fast"),
    "ours_robot": Arm(ours_robot, "fast with current"),
    "dynamixel_sdk": Arm(dynamixel_sdk),
    "dynamixel_sdk_fast": Arm(lambda path, baud: dynamixel_sdk(path, baud, fast=True), "fast"),
    "rustypot": Arm(rustypot),
    "rustypot_fast": Arm(lambda path, baud: rustypot(path, baud, fast=True), "fast"),
    "lerobot": Arm(lerobot),
}

SERVOS = """
import sys
from pathlib import Path
from hw_drivers.dynamixel.models import MODELS
from hw_drivers.dynamixel.virtual_bus import VirtualDynamixelBus
from hw_drivers.virtual.pty import PtyServer
from hw_drivers.dynamixel.virtual_servo import VirtualDynamixel
from v2a.clock import MonotonicClock
class Punctual(MonotonicClock):  # a wire is never late, whatever the scheduler does
    def sleep_until_ns(self, t_ns):
        while self.now_ns() < t_ns:
            pass
model, ids, baud, link = sys.argv[1:]
chain = VirtualDynamixelBus(VirtualDynamixel(MODELS[model], int(i)) for i in ids.split(","))
for servo in chain.servos.values():
    assert servo.write(9, b"\\x00") == 0  # no return delay
server = PtyServer(chain, int(baud) or None, link=Path(link), clock=Punctual())
print("ready", flush=True)
sys.stdin.read()
server.close()
"""


@contextlib.contextmanager
def servos(baud: int | None) -> Iterator[str]:
    """The path of seven servos in another process, on a wire of `baud` (None: takes no time)."""
    with tempfile.TemporaryDirectory() as folder:
        link = str(Path(folder) / "bus")
        command = [
            sys.executable,
            "-c",
            SERVOS,
            MODEL,
            ",".join(map(str, IDS)),
            str(baud or 0),
            link,
        ]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin
            assert process.stdout
            assert process.stdout.readline() == b"ready\n"
            yield link
            process.stdin.close()


class Runner:
    """An opened arm with servos of its own; `run` does one round."""

    def __init__(self, arm: Arm, path: str, baud: int) -> None:
        self._cycle, self.close = arm.open(path, baud)
        self.cpu_ns: list[float] = []
        self.cycle_ns: list[int] = []
        self.failed = 0

    def run(self, counts: bool = True) -> None:
        stamps = [time.perf_counter_ns()]
        start_ns = time.thread_time_ns()
        for _ in range(CYCLES):
            try:
                self._cycle()
            except Exception:  # what a client raises when it found no answer, each its own kind
                self.failed += 1
            stamps.append(time.perf_counter_ns())
        if counts:
            self.cpu_ns.append((time.thread_time_ns() - start_ns) / CYCLES)
            # The first cycle finds a free wire, the others the goals of the one before.
            self.cycle_ns += np.diff(stamps)[1:].tolist()


def measure(baud: int | None, rounds: int, names: list[str]) -> dict[str, Runner | str]:
    """Each arm's times, or why it is not there."""
    found: dict[str, Runner | str] = {}
    with contextlib.ExitStack() as opened:
        for name in names:
            try:
                runner = Runner(ARMS[name], opened.enter_context(servos(baud)), baud or UNPACED)
            except ImportError as error:
                found[name] = str(error)
                continue
            opened.callback(runner.close)
            found[name] = runner
        runners = [runner for runner in found.values() if isinstance(runner, Runner)]
        for number in range(-2, rounds):
            for runner in runners if number % 2 else reversed(runners):
                runner.run(counts=number >= 0)
    return found


def report(rounds: int, paced: bool) -> dict[str, Any]:
    unpaced = measure(None, rounds, list(ARMS))
    there = [name for name, runner in unpaced.items() if isinstance(runner, Runner)]
    report: dict[str, Any] = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "cpu_us": {n: _median_us(r.cpu_ns) for n, r in unpaced.items() if isinstance(r, Runner)},
        "missing": {n: r for n, r in unpaced.items() if isinstance(r, str)},
        "failed_cycles": {n: r.failed for n, r in unpaced.items() if isinstance(r, Runner)},
        "paced_cpu_us": {},
        "paced_over_wire": {},
        "cycle_over_wire": {},
    }
    for baud in PACED_BAUDS if paced else ():
        runs = measure(baud, rounds, there)
        cpu = {n: _median_us(r.cpu_ns) for n, r in runs.items() if isinstance(r, Runner)}
        report["paced_cpu_us"][str(baud)] = cpu
        for name, runner in runs.items():
            if isinstance(runner, Runner):
                report["failed_cycles"][name] += runner.failed
        over = {n: _over_wire(n, r, baud) for n, r in runs.items() if isinstance(r, Runner)}
        report["cycle_over_wire"][str(baud)] = over
        report["paced_over_wire"][str(baud)] = over["ours"]
    return report


def _median_us(ns: list[float]) -> float:
    return round(float(np.median(ns)) / 1e3, 1)


def _over_wire(name: str, runner: Runner, baud: int) -> float:
    wire_ns = WIRE_BYTES[ARMS[name].wire] * BITS_PER_BYTE * 1e9 / baud
    return round(float(np.median(runner.cycle_ns)) / wire_ns, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--peers", type=Path, help="folder of peers, each installed in its own")
    parser.add_argument("--no-paced", action="store_true", help="CPU time only")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.peers:
        sys.path += [str(folder) for folder in arguments.peers.iterdir()]
    found = report(arguments.rounds, not arguments.no_paced)
    if arguments.json:
        print(json.dumps(found))
        return
    print(
        "arm                  CPU us" + "".join(f"{b:>12} baud" for b in found["cycle_over_wire"])
    )
    for name, cpu_us in found["cpu_us"].items():
        over = "".join(f"{runs[name]:17.3f}" for runs in found["cycle_over_wire"].values())
        failed = found["failed_cycles"][name]
        print(f"{name:<19}{cpu_us:8.1f}{failed:8}{over}")
    for name, reason in found["missing"].items():
        print(f"{name:<19} left out: {reason}")


if __name__ == "__main__":
    main()
