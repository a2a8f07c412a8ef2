"""The robot: its file, what it finds at connect, radians both ways, torque, the watchdog."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_drivers.dynamixel.models import MODELS, RAD_PER_TICK
from hw_drivers.dynamixel.packet import make_write
from hw_drivers.dynamixel.virtual_bus import VirtualDynamixelBus
from hw_drivers.dynamixel.virtual_servo import VirtualDynamixel
from hw_drivers.feetech.models import MODELS as FEETECH
from hw_drivers.feetech.virtual_bus import VirtualFeetechBus
from hw_drivers.feetech.virtual_servo import VirtualFeetech
from hw_drivers.robot.robot import Robot, RobotConfig
from hw_drivers.virtual.loopback import LoopbackPort
from hw_drivers.virtual.pty import PtyServer
from v2a.clock import FakeClock, MonotonicClock
from v2a.config import load_yaml
from v2a.errors import BusError, ConfigError, PortError, SafetyFault
from v2a.own_command import own_command

pytestmark = pytest.mark.real_time

ROBOT_YAML = """\
name: arm
bus: {protocol: dynamixel2, port: /dev/ttyUSB0, baud: 1000000, watchdog_s: 0.1}
joints:
  - {name: yaw, id: 1, model: xl430-w250, lower_rad: -1.5, upper_rad: 1.5, velocity_limit_rad_s: 2}
  - {name: elbow, id: 2, model: xl430-w250, direction: -1, zero_tick: 1024, lower_rad: -1.5,
     upper_rad: 1.5, velocity_limit_rad_s: 2.0}
  - {name: wrist, id: 3, model: xl330-m288, lower_rad: -1.0, upper_rad: 1.0,
     velocity_limit_rad_s: 2.0}
"""


@pytest.fixture
def config(tmp_path: Path) -> RobotConfig:
    path = tmp_path / "robot.yaml"
    path.write_text(ROBOT_YAML)
    return load_yaml(path, RobotConfig)


def servos_of(config: RobotConfig) -> list[VirtualDynamixel]:
    return [VirtualDynamixel(MODELS[joint.model], joint.id) for joint in config.joints]


@pytest.fixture
def chain(config: RobotConfig) -> VirtualDynamixelBus:
    return VirtualDynamixelBus(servos_of(config))


@pytest.fixture
def robot(config: RobotConfig, chain: VirtualDynamixelBus, clock: FakeClock) -> Robot:
    robot = Robot(config, clock, LoopbackPort(chain))
    robot.connect()
    return robot


def fault_of(tmp_path: Path, edit: Callable[[str], str]) -> str:
    path = tmp_path / "robot.yaml"
    path.write_text(edit(ROBOT_YAML))
    with pytest.raises(ConfigError) as caught:
        load_yaml(path, RobotConfig)
    return str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("id: 1", "id: 300", "joints.0.id: Input should be less than or equal to 252 (got 300)"),
        ("xl330-m288", "xl330", "unknown servo model, known are: xl430-w250, xc430-w150, xm430"),
        ("id: 2", "id: 1", "joints.1.id: 1 is also the id of joints.0; joints must differ"),
        ("lower_rad: -1.0", "lower_rad: 2.0", "lower_rad must be below upper_rad"),
        ("lower_rad: -1.0", "lower_rad: -3.3", "the limit -3.3 rad is tick -103, outside the"),
        ("baud: 1000000", "baud: 123", "bus.baud: dynamixel2 servos know 9600, 57600"),
        ("watchdog_s: 0.1", "watchdog_s: 9", "bus.watchdog_s: must be 0.02 to 2.54"),
        ("direction: -1", "direction: 0", "joints.1.direction: Input should be 1 or -1"),
    ],
)
def test_a_fault_in_the_file_is_named(tmp_path: Path, old: str, new: str, fault: str) -> None:
    assert fault in fault_of(tmp_path, lambda text: text.replace(old, new))


def test_connect_leaves_torque_off(robot: Robot, chain: VirtualDynamixelBus) -> None:
    assert not any(servo.torque_on for servo in chain.servos.values())


def test_connect_lists_everything_that_is_wrong(config: RobotConfig, clock: FakeClock) -> None:
    yaw, elbow, _wrist = servos_of(config)
    swapped = VirtualDynamixel(MODELS["xm430-w350"], elbow.id)
    stray = VirtualDynamixel(MODELS["xl330-m288"], 42)
    assert yaw.write(11, b"\x01") == 0  # velocity mode
    assert yaw.write(10, b"\x04") == 0  # profile by time
    yaw.latch_hardware_error(1 << 5)
    robot = Robot(config, clock, LoopbackPort(VirtualDynamixelBus([yaw, swapped, stray])))
    with pytest.raises(BusError) as caught:
        robot.connect()
    at = "--port /dev/ttyUSB0 --protocol dynamixel2"
    setup = (
        f"{own_command()} motors setup {at} --from-baud 1000000 --from-id 1 --baud 1000000 --id 1"
    )
    assert str(caught.value).splitlines() == [
        "arm on /dev/ttyUSB0 is not as configured:",
        "  yaw (id 1): hardware error: overload; free the joint, or lighten its load; then run "
        f"{own_command()} motors reboot {at} --baud 1000000 --id 1",
        f"  yaw (id 1): operating_mode 1, expected 3 (position mode; a joint in mode 5 needs a "
        f"`current_limit_a`); run {setup}",
        "  yaw (id 1): drive_mode 4, expected 0 (speed as a velocity, torque by command); "
        f"run {setup}",
        "  elbow (id 2): is xm430-w350, expected xl430-w250; correct `model`, or swap it",
        "  wrist (id 3): no answer, expected xl330-m288; check its cable, power and id",
        "  found on the bus: id 1: xl430-w250, id 2: xm430-w350, id 42: xl330-m288",
    ]
    with pytest.raises(BusError, match="not connected"):
        robot.read_state()


def test_limits_that_a_servo_would_refuse_keep_torque_off(
    config: RobotConfig, chain: VirtualDynamixelBus, clock: FakeClock
) -> None:
    robot = Robot(config, clock, LoopbackPort(chain))
    for servo_id, low in ((1, 2000), (3, 1900)):
        address = chain.servos[servo_id].model.items["min_position_limit"].address
        assert chain.servos[servo_id].write(address, low.to_bytes(4, "little")) == 0
    robot.connect()
    with pytest.raises(BusError) as caught:
        robot.enable_torque()
    assert str(caught.value).splitlines() == [
        "arm: torque stays off:",
        "  yaw: lower_rad -1.5 is tick 1070, outside servo 1's own limits 2000..4095; "
        "narrow the limit, or correct zero_tick",
        "  wrist: lower_rad -1.0 is tick 1396, outside servo 3's own limits 1900..4095; "
        "narrow the limit, or correct zero_tick",
    ]
    assert not any(servo.torque_on for servo in chain.servos.values())


def test_an_empty_bus_says_so(config: RobotConfig, clock: FakeClock) -> None:
    with pytest.raises(BusError, match="found on the bus: nothing"):
        Robot(config, clock, LoopbackPort(VirtualDynamixelBus([]))).connect()


def test_positions_are_in_radians_of_the_joint(robot: Robot, chain: VirtualDynamixelBus) -> None:
    for servo in chain.servos.values():
        servo.set_present_rad(0.1)
    state = robot.read_state()
    # elbow: turned round, and its zero a quarter turn below the servo's centre
    np.testing.assert_allclose(
        state.position_rad, [0.1, -(0.1 + np.pi / 2), 0.1], atol=RAD_PER_TICK / 2
    )
    assert state.valid.all()


def test_a_silent_joint_is_nan_and_the_others_are_not(
    robot: Robot, chain: VirtualDynamixelBus
) -> None:
    del chain.servos[2]
    state = robot.read_state()
    assert state.valid.tolist() == [True, False, True]
    assert np.isnan(state.position_rad).tolist() == [False, True, False]


def test_goals_come_back_as_positions(robot: Robot, chain: VirtualDynamixelBus) -> None:
    @settings(max_examples=50)
    @given(st.lists(st.floats(-1.0, 1.0), min_size=3, max_size=3))
    def round_trip(goal: list[float]) -> None:
        robot.write_goal(np.array(goal))
        chain.step(10.0)
        read_rad = robot.read_state().position_rad
        np.testing.assert_allclose(read_rad, goal, atol=RAD_PER_TICK / 2 + 1e-9)

    for servo_id in (1, 2, 3):  # without Robot's watchdog, which ten silent seconds would trip
        robot.bus.write(servo_id, "torque_enable", 1)
    round_trip()


def test_goals_are_held_within_the_limits(robot: Robot, chain: VirtualDynamixelBus) -> None:
    robot.write_goal(np.array([9.0, -9.0, 9.0]))
    goals = [servo["goal_position"] for servo in chain.servos.values()]
    ticks_1_5, ticks_1_0 = round(1.5 / RAD_PER_TICK), round(1.0 / RAD_PER_TICK)
    assert goals == [2048 + ticks_1_5, 1024 + ticks_1_5, 2048 + ticks_1_0]


def test_a_goal_that_is_no_number_is_a_safety_fault(
    robot: Robot, chain: VirtualDynamixelBus
) -> None:
    with pytest.raises(SafetyFault, match="a goal is not a number"):
        robot.write_goal(np.array([0.0, np.nan, 0.0]))
    assert all(servo["goal_position"] == 2048 for servo in chain.servos.values())


def test_enabling_torque_does_not_move_the_arm(robot: Robot, chain: VirtualDynamixelBus) -> None:
    robot.write_goal(np.array([1.0, 1.0, 1.0]))  # an old goal, far from where the arm lies
    for servo in chain.servos.values():
        servo.set_present_rad(-0.5)
        servo.step(0.01)
    robot.enable_torque()
    chain.step(0.05)
    for servo in chain.servos.values():
        assert servo.torque_on
        assert servo.setpoint_rad == pytest.approx(-0.5, abs=RAD_PER_TICK / 2)


def test_a_failed_enable_leaves_no_joint_stiff(robot: Robot, chain: VirtualDynamixelBus) -> None:
    chain.servos[3].latch_hardware_error(1 << 2)
    with pytest.raises(BusError, match="servo 3: refused to write torque_enable = 1: result fail"):
        robot.enable_torque()
    assert not any(servo.torque_on for servo in chain.servos.values())


def test_an_enable_that_can_not_be_undone_says_why_it_failed_first(
    robot: Robot, chain: VirtualDynamixelBus
) -> None:
    sync_write = robot.bus.sync_write

    def unplugged(name: str, ids: tuple[int, ...], raw: Sequence[int]) -> None:
        sync_write(name, ids, raw)
        if (name, raw[0]) == ("torque_enable", 1):
            chain.servos.clear()

    robot.bus.sync_write = unplugged  # type: ignore[method-assign]
    with pytest.raises(BusError, match=r"^servo 1: no answer to write .+; torque may still be on"):
        robot.enable_torque()


def test_disabling_tries_every_joint(robot: Robot, chain: VirtualDynamixelBus) -> None:
    robot.enable_torque()
    gone = chain.servos.pop(1)
    with pytest.raises(BusError, match=r"torque may still be on: yaw: servo 1: no answer"):
        robot.disable_torque()
    assert gone.torque_on
    assert not any(servo.torque_on for servo in chain.servos.values())


def test_a_hardware_error_is_named(robot: Robot, chain: VirtualDynamixelBus) -> None:
    robot.enable_torque()
    chain.servos[2].latch_hardware_error(0b100100)
    for _ in range(2):  # it stays until the servo is rebooted
        with pytest.raises(BusError, match=r"elbow \(id 2\): overheating, overload; let it cool"):
            robot.read_state()


def test_a_dead_controller_stops_the_arm(
    robot: Robot, chain: VirtualDynamixelBus, clock: FakeClock
) -> None:
    robot.enable_torque()
    robot.write_goal(np.array([1.0, 1.0, 1.0]))
    for _ in range(100):  # a second in which nobody talks to the servos
        clock.advance_ns(10_000_000)
        chain.step(0.01)
    stopped_at = [servo.setpoint_rad for servo in chain.servos.values()]
    for _ in range(2):  # the fault stays until torque is enabled again
        with pytest.raises(BusError, match=r"the servos stopped themselves, 1\.00 s without"):
            robot.read_state()
    chain.step(1.0)
    assert [servo.setpoint_rad for servo in chain.servos.values()] == stopped_at
    robot.enable_torque()
    assert robot.read_state().valid.all()


def test_a_slow_controller_that_was_in_time_goes_on(
    robot: Robot, chain: VirtualDynamixelBus, clock: FakeClock
) -> None:
    robot.enable_torque()
    for _ in range(5):
        clock.advance_ns(80_000_000)
        chain.step(0.08)
        assert robot.read_state().valid.all()


def test_over_a_terminal_until_it_is_unplugged(
    config: RobotConfig, chain: VirtualDynamixelBus
) -> None:
    server = PtyServer(chain)
    bus = config.bus.model_copy(update={"port": server.path})
    robot = Robot(config.model_copy(update={"bus": bus}), MonotonicClock())
    robot.connect()
    state = robot.read_state()
    assert state.position_rad[state.valid][0] == 0.0
    server.hang_up()
    with pytest.raises(PortError, match="vanished"):
        robot.read_state()
    with pytest.raises(BusError, match=r"torque may still be on: yaw: .+; elbow: .+; wrist: .+"):
        robot.disable_torque()
    robot.close()
    robot.close()
    server.close()


def test_another_baud_rate_is_said_and_nothing_moves(
    config: RobotConfig, chain: VirtualDynamixelBus
) -> None:
    server = PtyServer(chain, 57_600)
    bus = config.bus.model_copy(update={"port": server.path})
    robot = Robot(config.model_copy(update={"bus": bus}), MonotonicClock())
    with pytest.raises(BusError) as caught:
        robot.connect()
    server.close()
    *_, last = str(caught.value).splitlines()
    assert last == (
        f"  found on the bus: nothing at 1000000 baud; `{own_command()} motors scan "
        f"--port {server.path}` asks at every rate"
    )
    assert not any(servo.torque_on for servo in chain.servos.values())


def test_a_joint_that_comes_free_is_no_faster_than_its_limit(
    robot: Robot, chain: VirtualDynamixelBus
) -> None:
    """Held back for a while, the servo is far from its goal: nobody but itself limits its speed."""
    robot.enable_torque()
    robot.write_goal(np.array([1.0, 1.0, 1.0]))
    chain.step(0.1)
    for servo in chain.servos.values():
        limit_rad = 0.1 * 2.0  # velocity_limit_rad_s of every joint
        assert abs(servo.setpoint_rad) == pytest.approx(limit_rad, rel=0.02)


def test_a_limit_above_the_servos_own_is_the_servos_own(
    config: RobotConfig, chain: VirtualDynamixelBus, clock: FakeClock
) -> None:
    assert chain.servos[1].write(44, (20).to_bytes(4, "little")) == 0  # velocity_limit
    robot = Robot(config, clock, LoopbackPort(chain))
    robot.connect()
    robot.enable_torque()
    assert robot.bus.read(1, "profile_velocity") == 20


def test_torque_goes_off_though_the_line_loses_answers_and_requests(
    config: RobotConfig, chain: VirtualDynamixelBus, clock: FakeClock
) -> None:
    class Noisy(LoopbackPort):
        """Loses the request, then the answer, of each torque-off; the third one passes."""

        def __init__(self) -> None:
            super().__init__(chain)
            self.lost: Counter[bytes] = Counter()

        def write(self, data: bytes) -> None:
            off = data == make_write(data[4], 64, b"\x00")
            self.lost[data] += off
            if off and self.lost[data] == 1:
                return
            super().write(data)
            if off and self.lost[data] == 2:
                self.reset_input()

    robot = Robot(config, clock, Noisy())
    robot.connect()
    robot.enable_torque()
    robot.disable_torque()
    assert not any(servo.torque_on for servo in chain.servos.values())


def test_there_is_nothing_to_let_go_of_before_connecting(
    config: RobotConfig, chain: VirtualDynamixelBus, clock: FakeClock
) -> None:
    sent: list[bytes] = []

    class Noting(LoopbackPort):
        def write(self, data: bytes) -> None:
            sent.append(data)
            super().write(data)

    robot = Robot(config, clock, Noting(chain))
    robot.disable_torque()
    assert sent == []
    robot.connect()
    assert sent != []


def test_a_servo_that_gave_up_and_was_not_heard_is_asked_again(
    robot: Robot, chain: VirtualDynamixelBus, clock: FakeClock
) -> None:
    robot.enable_torque()
    clock.advance_ns(1_000_000_000)
    chain.step(1.0)
    elbow = chain.servos.pop(2)  # its answer is lost, once
    for servo in chain.servos.values():
        servo.write(98, b"\x00")  # and the others were in time
    assert robot.read_state().valid.tolist() == [True, False, True]
    chain.servos[2] = elbow
    with pytest.raises(BusError, match="the servos stopped themselves"):
        robot.read_state()


def test_health_comes_along_with_the_positions(robot: Robot, chain: VirtualDynamixelBus) -> None:
    assert robot.health() is None
    chain.servos[3].sense("present_current", 250)  # the others measure none
    chain.servos[1].sense("present_temperature", 41)
    robot.read_state()
    health = robot.health()
    assert health
    assert health.voltage_v
    assert health.temperature_c
    assert health.current_a
    np.testing.assert_allclose(health.voltage_v.value, [12.0, 12.0, 5.0])
    assert health.temperature_c.value.tolist() == [41.0, 25.0, 25.0]
    assert health.current_a.valid.tolist() == [False, False, True]
    assert health.current_a.value[2] == 0.25
    assert health.alarms == ("", "", "")


def test_health_grows_old_and_says_so(
    robot: Robot, chain: VirtualDynamixelBus, clock: FakeClock
) -> None:
    robot.read_state()
    for servo in chain.servos.values():
        servo.sense("present_temperature", 50)
    clock.advance_ns(1000)
    robot.read_state()
    health = robot.health()
    assert health
    assert health.temperature_c
    assert health.temperature_c.age_ns.tolist() == [1000] * 3
    for _ in range(9):
        robot.read_state()
    health = robot.health()
    assert health
    assert health.temperature_c
    assert health.temperature_c.value.tolist() == [50.0] * 3
    assert health.temperature_c.age_ns.tolist() == [0] * 3


def test_an_alarm_is_in_the_health_until_it_is_gone(
    robot: Robot, chain: VirtualDynamixelBus
) -> None:
    chain.servos[2].latch_hardware_error(1 << 5)
    with pytest.raises(BusError, match="overload"):
        robot.read_state()
    health = robot.health()
    assert health
    assert health.alarms == ("", "overload", "")
    chain.servos[2].reboot()
    robot.read_state()
    health = robot.health()
    assert health
    assert health.alarms == ("", "", "")


def test_a_replug_does_not_bring_torque_back(
    config: RobotConfig, chain: VirtualDynamixelBus, tmp_path: Path
) -> None:
    server = PtyServer(chain, link=tmp_path / "arm")
    bus = config.bus.model_copy(update={"port": server.path, "budget_s": 1.0})
    robot = Robot(config.model_copy(update={"bus": bus}), MonotonicClock())
    robot.connect()
    robot.enable_torque()
    server.hang_up()
    with pytest.raises(PortError):
        robot.read_state()
    with pytest.raises(PortError, match="no such serial port"):
        robot.connect()
    for servo in chain.servos.values():
        servo.reboot()  # the cable carried their power, too
    server.replug()
    robot.connect()
    assert robot.read_state().valid.all()
    assert not any(servo.torque_on for servo in chain.servos.values())
    robot.close()
    server.close()


FEETECH_YAML = """\
name: arm
bus: {protocol: feetech, port: /dev/ttyACM0, baud: 1000000}
joints:
  - {name: yaw, id: 1, model: sts3215, lower_rad: -1.5, upper_rad: 1.5, velocity_limit_rad_s: 2}
  - {name: elbow, id: 2, model: sts3250, direction: -1, zero_tick: 1024, lower_rad: -1.5,
     upper_rad: 1.5, velocity_limit_rad_s: 2.0}
"""
SCS_JOINT = """\
  - {name: finger, id: 3, model: scs0009, zero_tick: 512, lower_rad: -1.0, upper_rad: 1.0,
     velocity_limit_rad_s: 2.0}
"""
SCS_YAML = "".join(FEETECH_YAML.splitlines(keepends=True)[:3]) + SCS_JOINT


def feetech_robot(
    tmp_path: Path, text: str, clock: FakeClock
) -> tuple[Robot, list[VirtualFeetech], VirtualFeetechBus]:
    path = tmp_path / "robot.yaml"
    path.write_text(text)
    config = load_yaml(path, RobotConfig)
    servos = [VirtualFeetech(FEETECH[joint.model], joint.id) for joint in config.joints]
    chain = VirtualFeetechBus(servos)
    return Robot(config, clock, LoopbackPort(chain)), servos, chain


@pytest.mark.parametrize(
    ("text", "goal_rad"), [(FEETECH_YAML, [0.5, 1.0]), (SCS_YAML, [-0.5])], ids=["sts", "scs"]
)
def test_a_feetech_robot(
    tmp_path: Path, clock: FakeClock, text: str, goal_rad: list[float]
) -> None:
    robot, servos, chain = feetech_robot(tmp_path, text, clock)
    robot.connect()
    robot.enable_torque()
    assert all(servo.torque_on for servo in servos)
    robot.write_goal(np.array(goal_rad))
    chain.step(0.1)
    assert abs(servos[0].setpoint_rad) == pytest.approx(0.1 * 2.0, rel=0.02)  # at its limit
    for _ in range(30):
        chain.step(0.1)
    np.testing.assert_allclose(robot.read_state().position_rad, goal_rad, atol=0.006)
    health = robot.health()
    assert health
    assert health.voltage_v
    assert health.voltage_v.valid.all()
    robot.disable_torque()
    assert not any(servo.torque_on for servo in servos)


def test_servos_of_two_byte_orders_do_not_share_a_bus(tmp_path: Path, clock: FakeClock) -> None:
    robot, _, _ = feetech_robot(tmp_path, FEETECH_YAML + SCS_JOINT, clock)
    with pytest.raises(BusError, match="servo 3: its present_position is big endian, that of"):
        robot.connect()


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("sts3215", "xl330-m288", "bus.protocol is feetech, which yaw (xl330-m288) can't speak"),
        (
            "model: sts3215",
            "model: scs0009, zero_tick: 2048",
            "zero_tick 2048 is outside the servo's turn 0..1023; set it to the tick at 0 rad",
        ),
        ("protocol: feetech", "protocol: ttl", "Input should be 'dynamixel2' or 'feetech'"),
        ("baud: 1000000", "baud: 4000000", "bus.baud: feetech servos know 1000000, 500000"),
    ],
)
def test_a_fault_in_a_feetech_file(tmp_path: Path, old: str, new: str, fault: str) -> None:
    assert fault in fault_of(tmp_path, lambda _: FEETECH_YAML.replace(old, new))
