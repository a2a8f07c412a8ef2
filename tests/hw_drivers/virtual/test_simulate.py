"""`v2a motors simulate` as a user has it: a process, a path, and the vendor's program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dynamixel_sdk as sdk
import pytest
import serial
from click.testing import CliRunner, Result

from hw_drivers.feetech import packet as feetech_packet
from tests.hw_drivers.virtual.conftest import PatientPort
from v2a.cli import cli

pytestmark = pytest.mark.real_time

XL330 = ("--model", "xl330-m288", "--ids", "1,2,3")


@contextmanager
def simulator(link: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "v2a", "motors", "simulate", "--link", str(link), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline()


def simulate(*options: str) -> Result:
    return CliRunner().invoke(cli, ["motors", "simulate", *options])


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_servos_that_move_until_ctrl_c(tmp_path: Path, end: signal.Signals) -> None:
    link = tmp_path / "arm"
    with simulator(link, *XL330) as process:
        assert first_line(process) == (
            f"listening at {link}: xl330-m288 with ids 1, 2, 3 at 1000000 baud; Ctrl-C ends it\n"
        )
        port, handler = PatientPort(str(link)), sdk.PacketHandler(2.0)
        assert port.openPort()
        assert [handler.ping(port, k)[0] for k in (1, 2, 3)] == [1200, 1200, 1200]
        assert handler.write1ByteTxRx(port, 2, 64, 1) == (sdk.COMM_SUCCESS, 0)
        assert handler.write4ByteTxRx(port, 2, 116, 2100) == (sdk.COMM_SUCCESS, 0)
        while handler.read4ByteTxRx(port, 2, 132)[0] != 2100:
            pass  # the test's own time limit ends this
        port.closePort()
        process.send_signal(end)
        assert process.wait(30) == 0
        assert process.stderr
        assert process.stderr.read() == ""
    assert not os.path.lexists(link)


def test_feetech_servos(tmp_path: Path) -> None:
    link = tmp_path / "arm"
    with simulator(link, "--protocol", "feetech", "--model", "sts3215", "--ids", "1-2") as process:
        assert "sts3215 with ids 1, 2 at 1000000 baud" in first_line(process)
        with serial.Serial(str(link), 1_000_000, timeout=10.0) as port:
            port.write(feetech_packet.make_sync_read(3, 2, (1, 2)))
            statuses = feetech_packet.StatusParser(2).feed(port.read(2 * 8))
    assert [(status.id, status.params) for status in statuses] == [
        (1, (777).to_bytes(2, "little")),
        (2, (777).to_bytes(2, "little")),
    ]


def test_servos_of_two_models_share_a_bus(tmp_path: Path) -> None:
    link = tmp_path / "koch"
    options = ("--model", "xl430-w250", "--ids", "1,2", "--model", "xl330-m288", "--ids", "3-6")
    with simulator(link, *options) as process:
        assert "xl430-w250 with ids 1, 2 and xl330-m288 with ids 3, 4, 5, 6" in first_line(process)
        port, handler = PatientPort(str(link)), sdk.PacketHandler(2.0)
        assert port.openPort()
        assert [handler.ping(port, k)[0] for k in range(1, 7)] == [1060] * 2 + [1200] * 4
        port.closePort()


def test_a_planted_fault_is_met_at_once(tmp_path: Path) -> None:
    link = tmp_path / "arm"
    with simulator(link, *XL330, "--fault", "crc", "--every", "1") as process:
        assert ", crc every 1 answered requests;" in first_line(process)
        port = PatientPort(str(link))
        assert port.openPort()
        assert sdk.PacketHandler(2.0).ping(port, 1)[1] == sdk.COMM_RX_CORRUPT
        port.closePort()


def test_the_link_of_a_killed_simulator_is_made_anew(tmp_path: Path) -> None:
    link = tmp_path / "arm"
    link.symlink_to("/dev/pts/999999")
    with simulator(link, *XL330) as process:
        assert first_line(process).startswith(f"listening at {link}: ")
        assert os.readlink(link) != "/dev/pts/999999"


def refused(link: Path, reason: str) -> None:
    result = simulate("--link", str(link), *XL330)
    assert result.exit_code == 6
    assert result.stderr == f"error: {link}: {reason}\n"


def test_a_path_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    taken = tmp_path / "notes"
    taken.write_text("mine")
    refused(taken, "exists and is no link; remove it, or choose another path")
    assert taken.read_text() == "mine"
    link = tmp_path / "link"
    link.symlink_to(taken)
    refused(
        link,
        f"leads to {taken}; end the simulator that made it, or remove it, or choose another path",
    )
    refused(
        tmp_path / "no" / "arm",
        "no link can be made there: No such file or directory; choose another path",
    )


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (
            ("--model", "sts3215", "--ids", "1"),
            "no dynamixel2 servo 'sts3215'; add --protocol",
        ),
        (("--model", "xl330", "--ids", "1"), "no dynamixel2 servo 'xl330'; known are xl430-w250"),
        (("--model", "xl330-m288", "--ids", "1,1"), "1,1: name each id once"),
        (("--model", "xl330-m288", "--ids", "3-1"), "3-1: name each id once, the lower one first"),
        (("--model", "xl330-m288", "--ids", "one"), "'one' is no id; write them as 1,2,3 or 1-7"),
        (("--model", "xl330-m288", "--ids", "253"), "dynamixel2 ids go from 0 to 252, got [253]"),
        (("--model", "xl330-m288", "--ids", "1", "--fault", "bad"), "'bad' is not one of 'drop'"),
        (
            ("--model", "xl330-m288", "--ids", "1", "--model", "xl430-w250"),
            "each --model needs its --ids: got 2 of one and 1 of the other",
        ),
        (
            ("--model", "xl330-m288", "--ids", "1-3", "--model", "xl430-w250", "--ids", "3"),
            "name each id once, not [3] twice",
        ),
        (
            ("--model", "xl330-m288", "--ids", "1", "--model", "sts3215", "--ids", "2"),
            "it speaks feetech, and a bus has one protocol",
        ),
    ],
)
def test_a_wrong_option_says_what_is_right(
    tmp_path: Path, options: tuple[str, ...], advice: str
) -> None:
    result = simulate("--link", str(tmp_path / "arm"), *options)
    assert result.exit_code == 2
    assert advice in " ".join(result.stderr.split())


def test_a_rate_that_the_servo_does_not_know_is_refused(tmp_path: Path) -> None:
    result = simulate("--link", str(tmp_path / "arm"), *XL330, "--baud", "4500000")
    assert result.exit_code == 6
    assert "xl330-m288 knows no 4500000 baud; choose from [9600, 57600" in result.stderr
