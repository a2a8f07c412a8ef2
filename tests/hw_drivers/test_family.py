"""What every servo family promises, and that a new family is one package and one row.

The toy family in tests/hw_drivers/toy speaks a protocol of its own. Here the ordinary code scans
its servos, reads them, sets them up and drives them. tests/runtime/control/test_dry_run.py has
the dry run.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator

import numpy as np
import pytest

from hw_drivers.bus.bus import Pong
from hw_drivers.family import FAMILIES, all_models, load_family
from hw_drivers.motors.find import Servo, look, places
from hw_drivers.motors.setup import carry_out, make_plan
from hw_drivers.robot.config import RobotConfig
from hw_drivers.robot.robot import Robot
from hw_drivers.virtual.loopback import LoopbackPort
from hw_drivers.virtual.pty import PtyServer
from tests.hw_drivers.motors.conftest import motors
from v2a.clock import FakeClock, MonotonicClock
from v2a.errors import BusError

ROW = {"toy": "tests.hw_drivers.toy.family"}
REQUIRED = (
    "id",
    "baud_rate",
    "return_delay_time",
    "min_position_limit",
    "max_position_limit",
    "torque_enable",
    "goal_position",
    "present_position",
    "hardware_error_status",
)
TOY = {"lower_rad": -2.0, "upper_rad": 2.0, "velocity_limit_rad_s": 0.5, "model": "toy-1"}
ROBOT = {
    "name": "toy-arm",
    "bus": {"protocol": "toy", "port": "/dev/none", "baud": 19_200},
    "joints": [{**TOY, "name": "yaw", "id": 1}, {**TOY, "name": "tip", "id": 2, "direction": -1}],
}


@pytest.fixture
def row(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one row that a new family needs."""
    for name, module in ROW.items():
        monkeypatch.setitem(FAMILIES, name, module)


@pytest.mark.parametrize("name", [*FAMILIES, *ROW])
def test_the_record_of_a_family_fits_its_models(row: None, name: str) -> None:
    family = load_family(name)
    for model in family.tables:
        assert {*REQUIRED, family.speed_register} <= model.items.keys()
        assert "present_position" in family.cycle_registers
        assert model.rad_per_tick > 0
        assert 0 < model.turn_ticks * model.rad_per_tick <= 2 * math.pi + 1e-9
        codes = model.items["baud_rate"].limits
        assert codes
        assert any(codes[0] <= code <= codes[1] for code in family.baud_codes)
        for setting in family.settings:
            if item := model.items.get(setting.register):
                assert item.limits
                assert item.limits[0] <= setting.wanted(item.initial) <= item.limits[1]
    assert all(all_models()[name] is model for name, model in family.models.items())


@pytest.mark.parametrize("name", [*FAMILIES, *ROW])
def test_the_virtual_servos_of_a_family_answer_its_bus(row: None, name: str) -> None:
    family = load_family(name)
    for model in family.models.values():
        ids = (1, 2)
        servos = family.virtual_bus(family.virtual_servo(model, servo_id) for servo_id in ids)
        bus = family.bus(LoopbackPort(servos), FakeClock(), dict.fromkeys(ids, model), 0.02)
        assert {i: pong.model_number for i, pong in bus.scan().items()} == dict.fromkeys(
            ids, model.number
        )
        servos.servos[2].rest_at(model.turn_ticks // 2 + 7)
        found = bus.cycle_reader(bus.block(family.cycle_registers[:1], ids))
        reading = found.read(bus.block(family.cycle_registers[:1], ids), 0.02)
        assert reading.raw("present_position").tolist() == [
            model.turn_ticks // 2,
            model.turn_ticks // 2 + 7,
        ]


@pytest.fixture
def port(row: None) -> Iterator[str]:
    """A serial port with two toy servos at 19 200 baud."""
    family = load_family("toy")
    model = family.models["toy-1"]
    bus = family.virtual_bus(family.virtual_servo(model, servo_id) for servo_id in (1, 2))
    with contextlib.closing(PtyServer(bus, 19_200, moves=True)) as server:
        yield server.path


@pytest.mark.real_time
def test_a_new_family_is_scanned_and_watched(port: str) -> None:
    result = motors("scan", "--port", port, "--baud", 19_200, "--json")
    assert result.exit_code == 0, result.stderr
    assert [(s["protocol"], s["id"], s["model"]) for s in json.loads(result.stdout)["servos"]] == [
        ("toy", 1, "toy-1"),
        ("toy", 2, "toy-1"),
    ]
    result = motors("monitor", "--port", port, "--baud", 19_200, "--seconds", 0, "--json")
    assert result.exit_code == 0, result.stderr
    servos = json.loads(result.stdout)["servos"]
    assert [(s["valid"], s["position_tick"], s["alarms"]) for s in servos] == [(True, 300, "")] * 2
    result = motors("doctor", "--port", port, "--baud", 19_200, "--hz", 1)
    assert "return delay: none" in result.stdout
    assert "settings: as v2a needs them" in result.stdout


@pytest.mark.real_time
def test_a_new_family_is_set_up(port: str) -> None:
    clock = MonotonicClock()
    (place,) = places(port, "toy", 19_200)
    first, _ = look(place, clock).servos
    plan = make_plan(first, new_id=5, new_baud=38_400, clock=clock)
    assert [change.name for change in plan.all_changes] == ["id", "baud_rate"]
    carry_out(plan, clock)
    (faster,) = places(port, "toy", 38_400)
    assert look(faster, clock).servos == (Servo(faster, 5, Pong(4711, 7)),)


def test_a_new_family_is_driven(row: None) -> None:
    config, clock = RobotConfig.model_validate(ROBOT), FakeClock()
    family = config.bus.family
    servos = [family.virtual_servo(joint.servo_model, joint.id) for joint in config.joints]
    bus = family.virtual_bus(servos)
    robot = Robot(config, clock, LoopbackPort(bus))
    robot.connect()
    robot.enable_torque()
    goal_rad = np.array([0.5, 1.0])
    robot.write_goal(goal_rad)
    bus.step(0.1)
    assert [servo.setpoint_rad for servo in servos] == pytest.approx([0.05, -0.05])  # 0.5 rad/s
    for _ in range(30):
        bus.step(0.1)
    np.testing.assert_allclose(robot.read_state().position_rad, goal_rad, atol=0.006)
    servos[1].overload()
    with pytest.raises(BusError, match=r"tip \(id 2\): overload"):
        robot.read_state()
    robot.disable_torque()
    assert not any(servo.torque_on for servo in servos)
