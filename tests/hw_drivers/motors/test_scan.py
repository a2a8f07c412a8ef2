"""`v2a motors scan`: who is there, at any rate; and who pretends to be one and is two."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from hw_drivers.bus.port import RateError, SerialPort
from hw_drivers.dynamixel.models import MODELS as DYNAMIXELS
from hw_drivers.dynamixel.virtual_bus import VirtualDynamixelBus
from hw_drivers.dynamixel.virtual_servo import VirtualDynamixel
from hw_drivers.family import load_family
from hw_drivers.feetech.models import MODELS as FEETECHS
from hw_drivers.feetech.virtual_bus import VirtualFeetechBus
from hw_drivers.feetech.virtual_servo import VirtualFeetech
from hw_drivers.motors import find
from hw_drivers.motors.cli import COMMANDS
from hw_drivers.virtual.faults import PlantedFault
from hw_drivers.virtual.wire_timing import Reply
from tests.hw_drivers.motors.conftest import Serve, motors, settings_of
from v2a.clock import Clock

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


def test_rates_that_the_adapter_refuses_take_nothing_from_the_others(
    serve: Serve, chain: VirtualDynamixelBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = serve(chain).path
    real = SerialPort.__init__

    def open_some(port: SerialPort, path: str, baud: int) -> None:
        if baud not in (1_000_000, 57_600):
            raise RateError(f"{path}: this adapter cannot do {baud} baud")
        real(port, path, baud)

    monkeypatch.setattr(SerialPort, "__init__", open_some)
    result = motors("scan", "--port", path, "--protocol", "dynamixel2")
    assert result.exit_code == 0, result.stderr
    assert len(result.stdout.splitlines()) == 4
    assert "note: " + path + ": this adapter cannot do 4500000 baud" in result.stderr
    found = scan_json(path, "--protocol", "dynamixel2")
    assert [s["id"] for s in found["servos"]] == [1, 2, 3]
    assert len(found["not_asked"]) == 6
    # The one rate that was asked for could not be asked.
    result = motors("scan", "--port", path, "--protocol", "dynamixel2", "--baud", 4_000_000)
    assert result.exit_code == 6
    assert "cannot do 4000000 baud" in result.stderr
    # What only needs the servos goes on without those rates.
    assert motors("monitor", "--port", path, "--seconds", 0).exit_code == 0
    result = motors("setup", "--port", path, "--from-id", 2, "--id", 2, "--yes")
    assert result.exit_code == 0, result.stderr
    result = motors("doctor", "--port", path, "--hz", 2, "--json")
    unasked = [f for f in json.loads(result.stdout)["findings"] if f["check"] == "not asked"]
    assert result.exit_code == 0, result.stdout
    assert unasked
    assert all(finding["ok"] is None for finding in unasked)


def test_what_was_found_before_the_port_vanished_is_listed(
    serve: Serve, chain: VirtualDynamixelBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(chain)
    real = find.look

    def look(place: find.Place, clock: Clock) -> find.Look:
        if place.baud == 57_600:
            server.hang_up()
        return real(place, clock)

    monkeypatch.setattr(find, "look", look)
    result = motors("scan", "--port", server.path, "--protocol", "dynamixel2", "--json")
    found = json.loads(result.stdout)
    assert [servo["id"] for servo in found["servos"]] == [1, 2, 3]
    assert len(found["not_asked"]) == 1  # the port, not each of its other rates
    assert result.exit_code == 6
    assert "no such serial port" in result.stderr


def test_two_servos_with_one_id_do_not_stop_work_on_another(
    serve: Serve, chain: VirtualDynamixelBus
) -> None:
    twin = VirtualDynamixel(DYNAMIXELS["xl330-m288"], 2)
    path = serve(Twins(chain, twin, in_turn)).path
    result = motors("jog", "--port", path, "--id", 1, *AT_1M)
    assert result.exit_code == 0, result.stderr
    result = motors("jog", "--port", path, "--id", 2, *AT_1M)
    assert result.exit_code == 6
    assert "two servos have this id" in result.stderr
    # The advised line is whole, and the id that it gives is free.
    assert "--from-baud 1000000 --from-id 2 --baud 1000000 --id 4" in result.stderr


def test_a_servo_that_answers_only_pings_is_no_collision(
    serve: Serve, chain: VirtualDynamixelBus
) -> None:
    assert chain.servos[2].write(68, b"\0") == 0
    path = serve(chain).path
    result = motors("scan", "--port", path, *AT_1M)
    assert result.exit_code == 0, result.stderr
    assert "id 2: xl330-m288, dynamixel2 at 1000000 baud: answers pings, and no reads; run" in (
        result.stderr
    )
    result = motors("monitor", "--port", path, "--seconds", 0, *AT_1M)
    assert result.exit_code == 0, result.stderr  # the others are shown
    assert [row.split()[0] for row in result.stdout.splitlines()[1:]] == ["1", "3"]


def test_a_feetech_servo_shows_its_minor_firmware(serve: Serve) -> None:
    line = VirtualFeetechBus([VirtualFeetech(FEETECHS["sts3215"], 1)])
    line.servos[1].sense("firmware_minor_version", 10)
    at = ("--protocol", "feetech", "--baud", "1000000")
    path = serve(line).path
    assert " 3.10 " in motors("scan", "--port", path, *at).stdout
    (servo,) = scan_json(path, *at)["servos"]
    assert (servo["firmware"], servo["firmware_minor"]) == (3, 10)


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
    assert result.exit_code == 2
    assert "knows 12345 baud; known are [9600, 57600" in result.stderr


def test_a_protocol_names_only_its_own_rates() -> None:
    at = ("--port", "/dev/ttyNONE", "--protocol", "feetech", "--from-baud", "12345")
    result = motors("setup", *at, "--id", "1")
    assert result.exit_code == 2
    rates = list(load_family("feetech").bauds)
    assert f"feetech knows 12345 baud; known are {sorted(rates)}" in result.stderr


def test_a_servo_of_an_unknown_model_is_listed_as_such(
    serve: Serve, chain: VirtualDynamixelBus
) -> None:
    chain.servos[2].sense("model_number", 9999)
    found = scan_json(serve(chain).path, *AT_1M)
    assert [(s["id"], s["model"], s["model_number"]) for s in found["servos"]][1] == (2, None, 9999)


def test_help_names_every_command() -> None:
    shown = motors("--help").stdout
    for name in COMMANDS:
        assert f"  {name} " in shown
        assert motors(name, "--help").exit_code == 0
    assert "Did you mean 'scan'?" in motors("scn").stderr
