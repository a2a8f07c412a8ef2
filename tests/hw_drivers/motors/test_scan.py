"""`v2a motors scan`: who is there, at any rate; and who pretends to be one and is two."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from hw_drivers.bus.port import SerialPort
from hw_drivers.dynamixel.models import MODELS as DYNAMIXELS
from hw_drivers.dynamixel.virtual_bus import VirtualDynamixelBus
from hw_drivers.dynamixel.virtual_servo import VirtualDynamixel
from hw_drivers.feetech.models import MODELS as FEETECHS
from hw_drivers.feetech.virtual_bus import VirtualFeetechBus
from hw_drivers.feetech.virtual_servo import VirtualFeetech
from hw_drivers.virtual.faults import PlantedFault
from hw_drivers.virtual.wire_timing import Reply
from tests.hw_drivers.motors.conftest import Serve, motors, settings_of

pytestmark = pytest.mark.real_time

AT_1M = ("--protocol", "dynamixel2", "--baud", "1000000")


def scan_json(path: str, *options: str) -> dict[str, Any]:
    result = motors("scan", "--port", path, "--json", *options)
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_servos_of_two_rates_are_found_and_left_as_they_are(serve: Serve) -> None:
    chain = VirtualDynamixelBus(
        [
            VirtualDynamixel(DYNAMIXELS["xl430-w250"], 1),
            VirtualDynamixel(DYNAMIXELS["xc330-t288"], 252),
        ]
    )
    server = serve(chain)
    chain.servos[252].set_baud(57_600)
    before = settings_of(chain)
    result = motors("scan", "--port", server.path)
    assert result.exit_code == 0, result.stderr
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["id", "model", "firmware", "baud", "protocol", "port"],
        ["1", "xl430-w250", "46", "1000000", "dynamixel2", server.path],
        ["252", "xc330-t288", "52", "57600", "dynamixel2", server.path],
    ]
    assert "looking for servos" in result.stderr
    assert settings_of(chain) == before


def test_feetech_servos_with_and_without_broadcast_ping(serve: Serve) -> None:
    line = VirtualFeetechBus(
        [VirtualFeetech(FEETECHS["sts3215"], 1), VirtualFeetech(FEETECHS["scs0009"], 9)]
    )
    found = scan_json(serve(line).path, "--protocol", "feetech", "--baud", "1000000")
    assert [(s["id"], s["model"], s["model_number"]) for s in found["servos"]] == [
        (1, "sts3215", 777),
        (9, "scs0009", 1284),
    ]
    assert found["faults"] == []


@pytest.mark.parametrize("fault", ["drop", "crc", "truncate", "noise", "echo", "stale"])
def test_a_bad_line_hides_nobody(serve: Serve, chain: VirtualDynamixelBus, fault: str) -> None:
    server = serve(chain, fault=PlantedFault(fault, every=2))
    assert [s["id"] for s in scan_json(server.path, *AT_1M)["servos"]] == [1, 2, 3]


class Twins(VirtualDynamixelBus):
    """`twin` has the id of another servo: what becomes of the two answers is up to `collide`."""

    def __init__(
        self,
        chain: VirtualDynamixelBus,
        twin: VirtualDynamixel,
        collide: Callable[[Reply, Reply], list[Reply]],
    ) -> None:
        super().__init__(chain.servos.values())
        self._twin = VirtualDynamixelBus([twin])
        self._twin_id = twin.id
        self._collide = collide

    def replies(self, data: bytes, baud: int | None = None) -> list[Reply]:
        twins = self._twin.replies(data)
        found: list[Reply] = []
        for reply in super().replies(data, baud):
            meet = twins and reply.servo_id == self._twin_id
            found += self._collide(reply, twins[0]) if meet else [reply]
        return found


def in_turn(one: Reply, other: Reply) -> list[Reply]:
    return [one, other]


def at_once(one: Reply, other: Reply) -> list[Reply]:
    """Both drive the wire: where one pulls it low, it is low."""
    both = bytes(a & b for a, b in zip(one.packet, other.packet, strict=True))
    return [Reply(one.delay_s, both, one.servo_id)]


@pytest.mark.parametrize(
    ("model", "collide", "says"),
    [
        ("xl330-m288", in_turn, "id 2 answers twice: two servos have this id"),
        ("xl330-m077", at_once, "id 2 gives a broken answer: two servos have this id, or noise"),
        # The same model: the answers to a ping are the same bytes, but the horns stand elsewhere.
        ("xl330-m288", at_once, "id 2 gives a broken answer: two servos have this id, or noise"),
    ],
)
def test_two_servos_with_one_id_are_told_of(
    serve: Serve,
    chain: VirtualDynamixelBus,
    model: str,
    collide: Callable[[Reply, Reply], list[Reply]],
    says: str,
) -> None:
    twin = VirtualDynamixel(DYNAMIXELS[model], 2)
    twin.set_present_rad(1.0)
    result = motors("scan", "--port", serve(Twins(chain, twin, collide)).path, *AT_1M)
    assert result.exit_code == 6
    assert says in result.stderr
    assert "v2a motors setup" in result.stderr
    listed = [line.split()[0] for line in result.stdout.splitlines()[1:]]
    assert {"1", "3"} <= set(listed)


def test_nobody_there_says_what_was_asked(serve: Serve) -> None:
    result = motors("scan", "--port", serve(VirtualDynamixelBus([])).path, *AT_1M)
    assert result.exit_code == 6
    assert "no servo answers (asked: dynamixel2 at 1000000 baud); check its power" in result.stderr


def test_servos_at_another_rate_than_the_one_asked_are_not_heard(
    serve: Serve, chain: VirtualDynamixelBus
) -> None:
    result = motors(
        "scan", "--port", serve(chain).path, "--protocol", "dynamixel2", "--baud", "57600"
    )
    assert result.exit_code == 6
    assert "asked: dynamixel2 at 57600 baud" in result.stderr


def test_a_port_in_use_is_not_shared(serve: Serve, chain: VirtualDynamixelBus) -> None:
    server = serve(chain)
    other = SerialPort(server.path, 1_000_000)
    result = motors("scan", "--port", server.path, *AT_1M)
    other.close()
    assert result.exit_code == 6
    assert f"{server.path}: in use by another program" in result.stderr


def test_a_port_that_is_not_there() -> None:
    result = motors("scan", "--port", "/dev/ttyNONE")
    assert result.exit_code == 6
    assert result.stderr.splitlines()[-1].startswith("error: /dev/ttyNONE: no such serial port")


def test_a_rate_that_no_servo_knows() -> None:
    result = motors("scan", "--port", "/dev/ttyNONE", "--baud", "12345")
    assert result.exit_code == 6
    assert "knows 12345 baud; known are [9600, 57600" in result.stderr


def test_a_servo_of_an_unknown_model_is_listed_as_such(
    serve: Serve, chain: VirtualDynamixelBus
) -> None:
    chain.servos[2].sense("model_number", 9999)
    found = scan_json(serve(chain).path, *AT_1M)
    assert [(s["id"], s["model"], s["model_number"]) for s in found["servos"]][1] == (2, None, 9999)


def test_help_names_every_command() -> None:
    shown = motors("--help").stdout
    for name in ("scan", "setup", "calibrate", "monitor", "doctor", "jog", "simulate"):
        assert f"  {name} " in shown
        assert motors(name, "--help").exit_code == 0
    assert "Did you mean 'scan'?" in motors("scn").stderr
