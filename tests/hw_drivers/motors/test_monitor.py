"""`v2a motors monitor`: a table for people, lines for programs, and no zeros for the silent."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from typing import Any

import pytest

from hw_drivers.dynamixel.models import MODELS as DYNAMIXELS
from hw_drivers.dynamixel.models import RAD_PER_TICK
from hw_drivers.dynamixel.virtual_bus import VirtualDynamixelBus
from hw_drivers.dynamixel.virtual_servo import VirtualDynamixel
from hw_drivers.feetech.models import MODELS as FEETECHS
from hw_drivers.feetech.virtual_bus import VirtualFeetechBus
from hw_drivers.feetech.virtual_servo import VirtualFeetech
from tests.hw_drivers.motors.conftest import Serve, motors, process, settings_of

pytestmark = pytest.mark.real_time

AT_1M = ("--protocol", "dynamixel2", "--baud", "1000000")


def test_a_table_of_servos_with_and_without_a_current_sensor(serve: Serve) -> None:
    chain = VirtualDynamixelBus(
        [
            VirtualDynamixel(DYNAMIXELS["xl430-w250"], 1),
            VirtualDynamixel(DYNAMIXELS["xl330-m288"], 2),
        ]
    )
    chain.servos[1].set_present_rad(100 * RAD_PER_TICK)
    chain.servos[1].sense("present_load", -250)
    chain.servos[2].sense("present_current", -120)
    chain.servos[2].sense("present_temperature", 41)
    path = serve(chain).path
    before = settings_of(chain)
    result = motors("monitor", "--port", path, "--seconds", 0, *AT_1M)
    assert result.exit_code == 0, result.stderr
    header, first, second = result.stdout.splitlines()
    assert " ".join(header.split()) == "id model tick rad rad/s A load V deg C age ms alarms"
    assert first.split()[:5] == ["1", "xl430-w250", "2148", "3.295", "0.00"]
    assert first.split()[5:8] == ["-0.250", "12.0", "25"]
    assert second.split()[5:8] == ["-0.120", "5.0", "41"]
    assert settings_of(chain) == before


def states(line: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(line)["servos"]
    return found


def test_a_servo_that_falls_silent_or_alarms_is_not_a_zero(
    serve: Serve, chain: VirtualDynamixelBus
) -> None:
    server = serve(chain)
    with process("monitor", "--port", server.path, "--json", *AT_1M) as running:
        assert running.stdout
        one, _, three = states(running.stdout.readline())
        assert (one["valid"], one["position_tick"], one["alarms"]) == (True, 2048, "")
        assert one["position_rad"] == pytest.approx(2048 * RAD_PER_TICK, abs=1e-6)
        with chain.lock:
            del chain.servos[1]
            chain.servos[3].overload()
        for line in running.stdout:
            one, two, three = states(line)
            if not one["valid"] and three["alarms"]:
                break
        assert one["position_rad"] is one["temperature_c"] is one["position_tick"] is None
        assert one["age_ms"] > 0
        assert two["valid"]
        assert three["alarms"] == "overload"
        assert three["position_tick"] == 2048
        server.hang_up()
        assert running.wait(30) == 6
        assert running.stderr
        assert "vanished or was closed" in running.stderr.read()


def test_feetech_servos_of_either_byte_order(serve: Serve) -> None:
    line = VirtualFeetechBus(
        [VirtualFeetech(FEETECHS["sts3215"], 1), VirtualFeetech(FEETECHS["scs0009"], 2)]
    )
    result = motors(
        "monitor", "--port", serve(line).path, "--seconds", 0, "--json", "--protocol", "feetech",
        "--baud", "1000000",
    )  # fmt: skip
    one, two = states(result.stdout)
    assert (one["position_tick"], two["position_tick"]) == (2048, 512)
    assert (one["current_a"], two.get("current_a")) == (0.0, None)


def test_on_a_terminal_the_table_stays_in_place(serve: Serve, chain: VirtualDynamixelBus) -> None:
    mine, its = pty.openpty()
    command = ["motors", "monitor", "--port", serve(chain).path, "--seconds", "0.3", *AT_1M]
    done = subprocess.run([sys.executable, "-m", "v2a", *command], stdout=its, timeout=60)
    os.close(its)
    shown = b""
    while b"\x1b[4A" not in shown:  # up four lines: the header and three servos
        shown += os.read(mine, 4096)
    os.close(mine)
    assert done.returncode == 0
