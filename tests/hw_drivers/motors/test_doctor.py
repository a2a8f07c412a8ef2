"""`v2a motors doctor`: it finds what is wrong, and the line that it prints mends it."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_drivers.bus.bus import Pong
from hw_drivers.dynamixel.models import MODELS as DYNAMIXELS
from hw_drivers.dynamixel.virtual_bus import VirtualDynamixelBus
from hw_drivers.dynamixel.virtual_servo import VirtualDynamixel
from hw_drivers.feetech.models import MODELS as FEETECHS
from hw_drivers.feetech.virtual_bus import VirtualFeetechBus
from hw_drivers.feetech.virtual_servo import VirtualFeetech
from hw_drivers.motors.cycle_time import Cycles, bars, histogram
from hw_drivers.motors.doctor_checks import (
    Adapter,
    Finding,
    check_latency_timer,
    check_name,
    check_places,
    judge_servos,
    registers_to_read,
)
from hw_drivers.motors.doctor_timing import check_answers, check_headroom, check_timing
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
        "settings", "hardware error", "watchdog", "voltage", "temperature", "answers", "timing",
        "headroom",
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
    assert (
        "BAD  hardware error: id 2: overload\n     fix: free the joint, or lighten its load; then "
        in result.stdout
    )
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


def test_servos_of_two_rates_each_get_their_line() -> None:
    fast, slow = Place("/dev/arm", "dynamixel2", 1_000_000), Place("/dev/arm", "dynamixel2", 57_600)
    other = Place("/dev/arm", "feetech", 1_000_000)
    pong = Pong(XL330.number, 52)
    servos = [Servo(fast, 1, pong), Servo(slow, 1, pong), Servo(fast, 3, pong)]
    (found,) = check_places(servos)
    assert not found.ok
    assert found.found == ("id 1: dynamixel2 at 57600 baud, most are at dynamixel2 at 1000000 baud")
    # Its id is taken at the other rate: it gets the lowest free one.
    assert found.fix.endswith(
        "motors setup --port /dev/arm --protocol dynamixel2 --from-baud 57600 --from-id 1 "
        "--baud 1000000 --id 2"
    )
    (mixed,) = check_places([*servos[::2], Servo(other, 4, Pong(777, 3, 10))])
    assert mixed.fix.startswith("put it on a bus of its own")
    assert [finding.ok for finding in check_places(servos[::2])] == [True]


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


def test_what_was_not_read_is_not_vouched_for() -> None:
    place = Place("/dev/arm", "dynamixel2", 1_000_000)
    known = Servo(place, 1, Pong(XL330.number, 52))
    strange, silent = Servo(place, 2, Pong(9999, 1)), Servo(place, 3, Pong(XL330.number, 52))
    registers = {name: XL330.items[name].initial for name in registers_to_read(place.family)}
    found = {f.check: f for f in judge_servos([(known, registers), (strange, {}), (silent, {})])}
    for check in ("settings", "hardware error", "watchdog", "voltage", "temperature"):
        assert found[check].ok is None, check
        assert found[check].found.endswith("id 2, 3: not read"), check
    assert found["voltage"].found.startswith("5.0 V")
    assert found["watchdog"].found.startswith("id 1: have one")
    alone = {f.check: f for f in judge_servos([(strange, {})])}
    assert {f.found for f in alone.values() if f.ok is None} == {"id 2: not read"}
    assert not [f for f in alone.values() if f.ok and f.check not in ("firmware",)]


@pytest.mark.real_time
def test_a_servo_that_refuses_a_register_takes_nothing_from_the_others(serve: Serve) -> None:
    class Deaf(VirtualDynamixel):
        """Answers no read of its temperature."""

        def read(self, address: int, size: int) -> tuple[int, bytes]:
            refuses = address == XL330.items["present_temperature"].address
            return (7, b"") if refuses else super().read(address, size)

    chain = VirtualDynamixelBus([VirtualDynamixel(XL330, 1), Deaf(XL330, 2)])
    exit_code, report = examined(serve(chain).path, *AT_1M)
    assert exit_code == 6
    (unread,) = bad(report)["registers"]
    assert unread["found"].startswith("id 2: servo 2: refused to read present_temperature")
    shown = {f["check"]: f for f in report["findings"]}
    assert shown["temperature"]["found"] == "25 C at most; id 2: not read"
    assert (shown["temperature"]["ok"], shown["voltage"]["ok"]) == (None, True)
    assert report["cycle"]["cycles"] == 200


def test_each_of_two_firmwares_is_named() -> None:
    place = Place("/dev/arm", "feetech", 1_000_000)
    servos = [Servo(place, i, Pong(777, 3, minor)) for i, minor in ((1, 10), (2, 9), (3, 9))]
    findings = {f.check: f for f in judge_servos([(servo, {}) for servo in servos])}
    assert findings["firmware"].found == "sts3215: 3.9, 3.10"


def test_what_is_judged_from_registers() -> None:
    place = Place("/dev/arm", "dynamixel2", 1_000_000)
    servo = Servo(place, 1, Pong(XL330.number, 52))
    tripped = one(servo, bus_watchdog=255)["watchdog"]
    assert (tripped.ok, tripped.found) == (False, "id 1: tripped: goals are ignored")
    assert one(servo, present_temperature=62, temperature_limit=70)["temperature"].ok is False
    assert one(servo, present_temperature=40, temperature_limit=70)["temperature"].ok
    old = Servo(place, 1, Pong(DYNAMIXELS["xl430-w250"].number, 37))
    assert "37 has no bus watchdog" in one(old)["firmware"].found
    strange = one(Servo(place, 1, Pong(9999, 1)))["model"]
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


FTDI = Adapter("0403", "6014", "FT7XYZ", "1-2.3")


@pytest.mark.parametrize(
    ("path", "stable", "adapter", "ok", "fix"),
    [
        ("/dev/serial/by-id/usb-FTDI", "/dev/serial/by-id/usb-FTDI", FTDI, True, ""),
        ("/dev/ttyUSB0", "/dev/serial/by-id/usb-F", FTDI, False, "port: /dev/serial/by-id/usb-F"),
        (
            "/dev/ttyACM0", None, FTDI, False,
            'ATTRS{idVendor}=="0403", ATTRS{idProduct}=="6014", ATTRS{serial}=="FT7XYZ", SYMLINK',
        ),
        (
            "/dev/ttyUSB0", None, FTDI._replace(serial=""), False,
            'ATTRS{idProduct}=="6014", KERNELS=="1-2.3", SYMLINK+="arm"',
        ),
        ("/dev/ttyTHS1", None, None, True, ""),
    ],
)  # fmt: skip
def test_a_port_should_keep_its_name(
    path: str, stable: str | None, adapter: Adapter | None, ok: bool, fix: str
) -> None:
    found = check_name(path, stable, adapter)
    assert found.ok is ok
    assert fix in found.fix
    assert not re.search(
        r"\b[A-Z]{3,}\b(?!-)",
        found.fix.replace("ATTRS", "")
        .replace("SUBSYSTEM", "")
        .replace("KERNELS", "")
        .replace("SYMLINK", ""),
    )  # no placeholder


PLACE = Place("/dev/arm", "dynamixel2", 57_600)


def test_headroom_and_answers() -> None:
    cycles = Cycles(np.full(200, 9.0), np.zeros(200), repeated=0, lost=0, wire_ms=1.2, goal_ms=0.5)
    assert check_headroom(cycles, PLACE, (1, 2), 100.0).ok
    tight = check_headroom(cycles, PLACE, (1, 2), 110.0)
    assert not tight.ok
    assert "a cycle takes 9.50 ms of 9.1 ms at 110 Hz (1.70 ms of it on the wire" in tight.found
    assert tight.fix == "fix the findings above, or set control.rate_hz to 105 at most"
    wire = check_headroom(dataclasses.replace(cycles, wire_ms=8.8), PLACE, (1, 2), 110.0)
    assert len(re.findall("--from-baud 57600 --from-id [12] --baud 1000000", wire.fix)) == 2
    assert check_answers(cycles, PLACE).ok
    assert not check_answers(Cycles(cycles.ms, cycles.end_ms, 1, 0, 1.2, 0.5), PLACE).ok


def timed(end_ms: npt.NDArray[np.float64], wire_ms: float = 1.2) -> Cycles:
    return Cycles(np.diff(end_ms, prepend=0.0), end_ms, 0, 0, wire_ms, goal_ms=0.5)


@pytest.mark.parametrize("period_ms", [5, 8, 16])
@pytest.mark.parametrize("busy_ms", [0.3, 3.0])
def test_an_adapter_that_holds_answers_back_is_found_by_timing_alone(
    period_ms: int, busy_ms: float
) -> None:
    late_ms = np.random.default_rng(period_ms).exponential(busy_ms * period_ms / 16, 200)
    found = check_timing(timed(np.arange(1, 201) * period_ms + late_ms), "/dev/arm", None)
    assert not found.ok
    assert f"at the ticks of a timer of {period_ms} ms" in found.found
    assert "setserial /dev/arm low_latency" in found.fix


def test_what_is_slow_without_a_timer_is_not_taken_for_one() -> None:
    rng = np.random.default_rng(1)
    for typical_ms in (4.5, 8.0, 15.9):
        slow = timed(np.cumsum(typical_ms + rng.exponential(1.0, 200)))
        assert check_timing(slow, "/dev/arm", None).ok
    wire = timed(np.linspace(16.0, 3200.0, 200), wire_ms=15.5)  # the wire itself takes that long
    assert check_timing(wire, "/dev/arm", None).ok


@given(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=300))
def test_the_histogram_counts_everyone_once(ms: list[float]) -> None:
    bins = histogram(np.array(ms))
    assert sum(count for _, _, count in bins) == len(ms)
    assert bins[0][0] <= min(ms)
    assert bins[-1][1] >= max(ms)
    assert len(bars(bins)) == len(bins)


def test_a_virtual_port_is_called_one() -> None:
    ours, theirs = os.openpty()
    found = check_name(os.ttyname(theirs), None)
    os.close(ours)
    os.close(theirs)
    assert (found.ok, found.found) == (
        True,
        "a virtual port: its name lasts as long as its program",
    )
