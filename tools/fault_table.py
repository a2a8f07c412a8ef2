"""Shows how each client handles each fault of a bus: ours, the vendors' SDKs and rustypot.

    for p in dynamixel-sdk rustypot feetech-servo-sdk ftservo-python-sdk; do
        pip install --target PEERS/$p $p; done
    PYTHONPATH=. python tools/fault_table.py PEERS

Three virtual servos at different positions run in a process of their own. So does each client,
because two of the peers overwrite each other's package. A client reads once without the fault, once
with it, and then until a read is good again. A fault strikes once, except "dead": then one servo
never answers again. The column "wrong" lists ids whose value is not the servo's.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hw_drivers.robot.robot import Robot, RobotConfig
from hw_drivers.virtual.faults import FAULTS
from v2a.clock import MonotonicClock
from v2a.errors import BusError, PortError

IDS = (1, 2, 3)
TICKS = {1: 2100, 2: 2200, 3: 2300}
RAD_PER_TICK = 2 * 3.141592653589793 / 4096
MODEL_OF = {"dynamixel2": "xl330-m288", "feetech": "sts3215"}
NAMES = ("none", *FAULTS, "dead")
BAUD = 1_000_000
GIVE_UP_S = 2.0

Read = Callable[[], tuple[str, dict[int, int | None]]]  # -> (the client's report, ticks by id)


class Row(NamedTuple):
    """The result of the read with the fault.

    `valid` are the ids with the servo's own value, `wrong` those with another value.
    """

    client: str
    fault: str
    reported: str
    valid: list[int]
    wrong: list[int]
    took_ms: int
    good_again_ms: int | None  # None: not within GIVE_UP_S


SERVOS = """
import sys
from pathlib import Path
from hw_drivers.family import load_family
from hw_drivers.virtual.faults import PlantedFault
from hw_drivers.virtual.pty import PtyServer
from tools.fault_table import BAUD, MODEL_OF, TICKS
class Once(PlantedFault):
    def strike(self, request, replies, servos):
        server.fault = None if replies else self
        return super().strike(request, replies, servos)
protocol, link = sys.argv[1:]
def fresh():
    family = load_family(protocol)
    model = family.models[MODEL_OF[protocol]]
    line = family.virtual_bus(family.virtual_servo(model, i) for i in TICKS)
    for servo_id, servo in line.servos.items():
        servo.rest_at(TICKS[servo_id])
        servo.write(model.items["return_delay_time"].address, b"\\x00")
    return line, PtyServer(line, BAUD, link=Path(link))
line, server = fresh()
print("ready", flush=True)
for command in map(str.strip, sys.stdin):
    if command == "fresh":
        server.close()
        line, server = fresh()
    elif command == "dead":
        with line.lock:
            del line.servos[2]
    elif command != "none":
        server.fault = Once(command)
    print("done", flush=True)
server.close()
"""


@contextlib.contextmanager
def servos(protocol: str) -> Iterator[tuple[str, Callable[[str], None]]]:
    """Start three servos. Yield their path and a function that plants a fault in them."""
    with tempfile.TemporaryDirectory() as folder:
        link = str(Path(folder) / "bus")
        process = subprocess.Popen(
            [sys.executable, "-c", SERVOS, protocol, link],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "ready\n"

        def plant(name: str) -> None:
            assert process.stdin
            assert process.stdout
            print(name, file=process.stdin, flush=True)
            assert process.stdout.readline() == "done\n"

        with process:
            yield link, plant
            process.stdin.close()


class Ours:
    """Our `Robot`, which connects again after the port is lost."""

    def __init__(self, path: str, protocol: str, budget_s: float) -> None:
        model = MODEL_OF[protocol]
        limits = {"zero_tick": 0, "lower_rad": 0, "upper_rad": 6, "velocity_limit_rad_s": 5}
        joints = [{"name": f"joint{i}", "id": i, "model": model, **limits} for i in IDS]
        bus = {"protocol": protocol, "port": path, "baud": BAUD, "budget_s": budget_s}
        config = RobotConfig.model_validate({"name": "arm", "bus": bus, "joints": joints})
        self.robot = Robot(config, MonotonicClock())
        self.connected = False
        while not self.connected:  # a busy machine may need several tries
            self.connect()

    def connect(self) -> None:
        with contextlib.suppress(BusError):
            self.robot.connect()
            self.connected = True

    def read(self) -> tuple[str, dict[int, int | None]]:
        nothing: dict[int, int | None] = dict.fromkeys(IDS)
        if not self.connected:
            self.connect()
        try:
            state = self.robot.read_state()
        except PortError as gone:
            self.connected = False
            return str(gone).partition(": ")[2].partition(" (")[0], nothing
        except BusError as fault:
            return str(fault).partition(";")[0], nothing
        silent = [i for i, valid in zip(IDS, state.valid, strict=True) if not valid]
        ticks = [round(p / RAD_PER_TICK) if p == p else None for p in state.position_rad.tolist()]
        said = f"no answer from {', '.join(map(str, silent))}" if silent else "ok"
        return said, dict(zip(IDS, ticks, strict=True))


def ours(path: str, protocol: str) -> Read:
    return Ours(path, protocol, budget_s=0.02).read


def dynamixel_sdk(path: str, _protocol: str) -> Read:
    sdk = importlib.import_module("dynamixel_sdk")
    port, handler = sdk.PortHandler(path), sdk.PacketHandler(2.0)
    assert port.openPort()
    assert port.setBaudRate(BAUD)
    group = sdk.GroupSyncRead(port, handler, 132, 4)
    return _group_read(group, handler, 132, 4)


def feetech_servo_sdk(path: str, _protocol: str) -> Read:
    sdk = importlib.import_module("scservo_sdk")
    port, handler = sdk.PortHandler(path), sdk.PacketHandler(0)
    assert port.openPort()
    assert port.setBaudRate(BAUD)
    return _group_read(sdk.GroupSyncRead(port, handler, 56, 2), handler, 56, 2)


def ftservo_python_sdk(path: str, _protocol: str) -> Read:
    sdk = importlib.import_module("scservo_sdk")
    port = sdk.PortHandler(path)
    assert port.openPort()
    assert port.setBaudRate(BAUD)
    handler = sdk.sms_sts(port)
    return _group_read(sdk.GroupSyncRead(handler, 56, 2), handler, 56, 2)


def _group_read(group: Any, handler: Any, address: int, size: int) -> Read:
    for servo_id in IDS:
        group.addParam(servo_id)

    def read() -> tuple[str, dict[int, int | None]]:
        result = group.txRxPacket()
        said = "ok" if result == 0 else handler.getTxRxResult(result).removeprefix("[TxRxResult] ")
        return said, {i: group.getData(i, address, size) for i in IDS}

    return read


def rustypot(path: str, protocol: str) -> Read:
    module = importlib.import_module("rustypot")
    name = "Sts3215PyController" if protocol == "feetech" else "Xl330PyController"
    bus = getattr(module, name)(path, BAUD, 0.035)

    def read() -> tuple[str, dict[int, int | None]]:
        ticks = bus.sync_read_raw_present_position(list(IDS))
        return "ok", dict(zip(IDS, ticks, strict=True))

    return read


CLIENTS = {
    "dynamixel2": {"ours": ours, "dynamixel-sdk": dynamixel_sdk, "rustypot": rustypot},
    "feetech": {
        "ours": ours,
        "feetech-servo-sdk": feetech_servo_sdk,
        "ftservo-python-sdk": ftservo_python_sdk,
        "rustypot": rustypot,
    },
}


def suffer(
    client: str, fault: str, read: Read, plant: Callable[[str], None], give_up_s: float
) -> Row:
    """Read once with `fault`, then again until a read is good."""
    while (first := _try(read))[0] != "ok":  # a busy machine may need several tries
        print(first, file=sys.stderr)
    plant(fault)
    if fault == "alert":
        _try(read)  # all later answers report the alert
    start_s = time.monotonic()
    said, ticks = _try(read)
    took_s = time.monotonic() - start_s
    valid = [i for i in IDS if ticks[i] == TICKS[i]]
    wrong = [i for i in IDS if ticks[i] not in (None, TICKS[i])]
    good = said == "ok" and ticks == TICKS
    while not good and time.monotonic() < start_s + give_up_s:
        time.sleep(0.02)
        good = _try(read) == ("ok", TICKS)
    again_ms = round((time.monotonic() - start_s) * 1e3) if good else None
    return Row(client, fault, said, valid, wrong, round(took_s * 1e3), again_ms)


def _try(read: Read) -> tuple[str, dict[int, int | None]]:
    try:
        return read()
    except Exception as error:  # a peer may raise anything
        return f"{type(error).__name__}: {error}".splitlines()[0][:60], dict.fromkeys(IDS)


def rows(client: str, protocol: str) -> list[Row]:
    with servos(protocol) as (path, plant):
        found = []
        for fault in NAMES:
            plant("fresh")
            read = CLIENTS[protocol][client](path, protocol)
            found.append(suffer(client, fault, read, plant, GIVE_UP_S))
        return found


def main() -> None:
    if sys.argv[1] == "--client":
        print(json.dumps(rows(*sys.argv[2:4])))
        return
    for protocol, clients in CLIENTS.items():
        print(f"\n{protocol}\n{'fault':<9}{'client':<20}{'valid':<9}{'wrong':<9}", end="")
        print(f"{'ms':>5}{'good again':>12}  reported")
        for fault, *of_clients in zip(
            NAMES, *(_measured(c, protocol) for c in clients), strict=True
        ):
            for row in map(Row._make, of_clients):
                again = "-" if row.good_again_ms is None else f"{row.good_again_ms} ms"
                valid, wrong = (",".join(map(str, ids)) or "-" for ids in (row.valid, row.wrong))
                print(f"{fault:<9}{row.client:<20}{valid:<9}{wrong:<9}", end="")
                print(f"{row.took_ms:>5}{again:>12}  {row.reported}")


def _measured(client: str, protocol: str) -> list[Any]:
    """Run `rows` in a process that can import this peer and no other."""
    path = os.pathsep.join((os.environ.get("PYTHONPATH", "."), str(Path(sys.argv[1]) / client)))
    command = [sys.executable, __file__, "--client", client, protocol]
    ran = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True)
    if ran.returncode:
        last = ran.stderr.decode().strip().splitlines()[-1]
        return [Row(client, fault, f"left out: {last}", [], [], 0, None) for fault in NAMES]
    found: list[Any] = json.loads(ran.stdout)
    return found


if __name__ == "__main__":
    main()
