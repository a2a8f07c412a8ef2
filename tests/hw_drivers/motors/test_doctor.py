"""`v2a motors doctor`: it finds what is wrong, and the line that it prints mends it."""

from __future__ import annotations

import json
import shlex
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_drivers.dynamixel.models import MODELS as DYNAMIXELS
from hw_drivers.dynamixel.virtual_bus import VirtualDynamixelBus
from hw_drivers.dynamixel.virtual_servo import VirtualDynamixel
from hw_drivers.feetech.models import MODELS as FEETECHS
from hw_drivers.feetech.virtual_bus import VirtualFeetechBus
from hw_drivers.feetech.virtual_servo import VirtualFeetech
from hw_drivers.motors.cycle_time import Cycles, bars, histogram
from hw_drivers.motors.doctor import check_answers, check_headroom
from hw_drivers.motors.doctor_checks import (
    Finding,
    check_latency_timer,
    check_name,
    check_places,
    judge_servos,
)
from hw_drivers.motors.find import Place, Servo
from hw_drivers.virtual.faults import PlantedFault
from tests.hw_drivers.motors.conftest import XL330, Serve, motors, settings_of

pytestmark = pytest.mark.real_time

AT_1M = ("--protocol", "dynamixel2", "--baud", "1000000")


def examined(path: str, *options: str) -> tuple[int, dict[str, Any]]:
    # At 2 Hz a busy machine passes, too: how fast this one is, is no part of the test.
    result = motors("doctor", "--port", path, "--json", "--hz", "2", *options)
    report: dict[str, Any] = json.loads(result.stdout)
    assert report["ok"] == (result.exit_code == 0)
    return result.exit_code, report


def bad(report: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The findings that are not ok, by check."""
    wrong = [finding for finding in report["findings"] if not finding["ok"]]
    return {f["check"]: [g for g in wrong if g["check"] == f["check"]] for f in wrong}


def test_a_good_bus_has_no_faults_and_is_left_as_it_is(
    serve: Serve, chain: VirtualDynamixelBus
) -> None:
    path = serve(chain).path
    before = settings_of(chain)
    exit_code, report = examined(path, *AT_1M)
    assert (exit_code, bad(report)) == (0, {})
    assert {finding["check"] for finding in report["findings"]} == {
        "port", "port name", "latency timer", "rate", "model", "firmware", "return delay",
        "settings", "hardware error", "watchdog", "voltage", "temperature", "answers", "headroom",
    }  # fmt: skip
    cycle = report["cycle"]
    assert sum(count for _, _, count in cycle["histogram"]) == cycle["cycles"]
    assert (cycle["lost"], cycle["wire_ms"] > 0.5) == (0, True)
    assert settings_of(chain) == before


def test_the_fix_it_prints_mends_the_servo(serve: Serve) -> None:
    chain = VirtualDynamixelBus([VirtualDynamixel(XL330, 5)])
    path = serve(chain).path
    assert chain.servos[5].write(11, b"\x04") == 0
    exit_code, report = examined(path, *AT_1M)
    assert exit_code == 6
    assert {*bad(report)} == {"return delay", "settings"}
    (delay,) = bad(report)["return delay"]
    assert delay["found"] == "id 5: 500 us before each answer"
    assert bad(report)["settings"][0]["found"] == "id 5: operating_mode 4, expected 3"
    _, command, *words = shlex.split(delay["fix"])
    assert motors(*words, "--yes").exit_code == 0, (command, words)
    assert examined(path, *AT_1M)[0] == 0


def test_each_finding_is_a_line_with_its_fix_and_a_histogram_follows(
    serve: Serve, chain: VirtualDynamixelBus
) -> None:
    chain.servos[2].overload()
    chain.servos[3].sense("present_input_voltage", 90)
    result = motors("doctor", "--port", serve(chain).path, *AT_1M)
    assert result.exit_code == 6
    assert "BAD  hardware error: id 2: overload\n     fix: remove its cause" in result.stdout
    assert "BAD  voltage: id 3: 9.0 V, allowed are 3.5 to 7.0" in result.stdout
    assert "ok   return delay: none" in result.stdout
    assert "reading all servos, 200 times:" in result.stdout
    assert "#" in result.stdout
    assert "checks failed: hardware error" in result.stderr


def test_a_lossy_line_shows_in_the_answers(serve: Serve, chain: VirtualDynamixelBus) -> None:
    server = serve(chain, fault=PlantedFault("drop", every=50))
    exit_code, report = examined(server.path, *AT_1M)
    assert exit_code == 6
    assert "answers" in bad(report)
    assert report["cycle"]["repeated"] >= 3


def test_servos_of_two_rates() -> None:
    fast, slow = Place("/dev/arm", "dynamixel2", 1_000_000), Place("/dev/arm", "dynamixel2", 57_600)
    servos = [Servo(fast, 1, 1200, 52), Servo(slow, 2, 1200, 52), Servo(fast, 3, 1200, 52)]
    found = check_places(servos)
    assert not found.ok
    assert "dynamixel2 at 1000000 baud: id 1, 3; dynamixel2 at 57600 baud: id 2" in found.found
    assert "v2a motors setup" in found.fix
    assert check_places(servos[::2]).ok


def test_no_port_no_servo(serve: Serve) -> None:
    exit_code, report = examined("/dev/ttyNONE")
    assert exit_code == 6
    assert [finding["check"] for finding in report["findings"]] == ["port"]
    assert "no such serial port" in report["findings"][0]["found"]
    exit_code, report = examined(serve(VirtualDynamixelBus([])).path, *AT_1M)
    assert exit_code == 6
    assert "no servo answers" in bad(report)["servos"][0]["found"]


def test_feetech_servos_have_no_watchdog_and_that_is_said(serve: Serve) -> None:
    line = VirtualFeetechBus([VirtualFeetech(FEETECHS["sts3215"], 1)])
    exit_code, report = examined(serve(line).path, "--protocol", "feetech", "--baud", "1000000")
    assert exit_code == 0, bad(report)
    (watchdog,) = [f for f in report["findings"] if f["check"] == "watchdog"]
    assert "have none" in watchdog["found"]


def one(servo: Servo, **registers: int) -> dict[str, Finding]:
    return {finding.check: finding for finding in judge_servos([(servo, registers)])}


def test_what_is_judged_from_registers() -> None:
    place = Place("/dev/arm", "dynamixel2", 1_000_000)
    servo = Servo(place, 1, XL330.number, 52)
    tripped = one(servo, bus_watchdog=255)["watchdog"]
    assert (tripped.ok, tripped.found) == (False, "id 1: tripped: goals are ignored")
    assert one(servo, present_temperature=62, temperature_limit=70)["temperature"].ok is False
    assert one(servo, present_temperature=40, temperature_limit=70)["temperature"].ok
    old = Servo(place, 1, DYNAMIXELS["xl430-w250"].number, 37)
    assert "37 has no bus watchdog" in one(old)["firmware"].found
    strange = one(Servo(place, 1, 9999, 1))["model"]
    assert "model number 9999 is not known; known are xl430-w250" in strange.found


def test_a_slow_adapter_gets_its_udev_rule() -> None:
    slow = check_latency_timer(16)
    assert not slow.ok
    assert (
        'ACTION=="add", SUBSYSTEM=="usb-serial", DRIVER=="ftdi_sio", ATTR{latency_timer}="1"'
        in slow.fix
    )
    assert check_latency_timer(1).ok
    assert check_latency_timer(None).ok


@pytest.mark.parametrize(
    ("path", "stable", "ok", "fix"),
    [
        ("/dev/serial/by-id/usb-FTDI", "/dev/serial/by-id/usb-FTDI", True, ""),
        ("/dev/ttyUSB0", "/dev/serial/by-id/usb-FTDI", False, "port: /dev/serial/by-id/usb-FTDI"),
        ("/dev/ttyACM0", None, False, 'SYMLINK+="arm"'),
        ("/dev/ttyTHS1", None, True, ""),
    ],
)
def test_a_port_should_keep_its_name(path: str, stable: str | None, ok: bool, fix: str) -> None:
    found = check_name(path, stable)
    assert found.ok is ok
    assert fix in found.fix


def test_headroom_and_answers() -> None:
    cycles = Cycles(np.full(200, 9.0), repeated=0, lost=0, wire_ms=1.2, goal_ms=0.5)
    assert check_headroom(cycles, 1_000_000, 100.0).ok
    tight = check_headroom(cycles, 1_000_000, 110.0)
    assert not tight.ok
    assert "a cycle takes 9.50 ms of 9.1 ms at 110 Hz (1.70 ms of it on the wire" in tight.found
    assert check_answers(cycles).ok
    assert not check_answers(Cycles(cycles.ms, 1, 0, 1.2, 0.5)).ok


@given(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=300))
def test_the_histogram_counts_everyone_once(ms: list[float]) -> None:
    bins = histogram(np.array(ms))
    assert sum(count for _, _, count in bins) == len(ms)
    assert bins[0][0] <= min(ms)
    assert bins[-1][1] >= max(ms)
    assert len(bars(bins)) == len(bins)
