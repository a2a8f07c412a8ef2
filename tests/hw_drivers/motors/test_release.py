"""`v2a motors release` and `reboot`: torque goes off, alarms end, each joint is read."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hw_drivers.dynamixel.virtual_bus import VirtualDynamixelBus
from hw_drivers.dynamixel.virtual_servo import VirtualDynamixel
from hw_drivers.family import FAMILIES, load_family
from hw_drivers.feetech.models import MODELS as FEETECHS
from hw_drivers.feetech.virtual_bus import VirtualFeetechBus
from hw_drivers.feetech.virtual_servo import VirtualFeetech
from hw_drivers.robot.alarm_advice import CAUSES, Volts, advice
from tests.hw_drivers.motors.conftest import XL330, Serve, motors, process

pytestmark = pytest.mark.real_time

AT_1M = ("--protocol", "dynamixel2", "--baud", "1000000")
NAMES = ("base", "elbow", "tip")


def robot_yaml(
    folder: Path, port: str, protocol: str = "dynamixel2", model: str = "xl330-m288"
) -> Path:
    limits = {"lower_rad": -1.0, "upper_rad": 1.0, "velocity_limit_rad_s": 1.0, "model": model}
    joints = [{"name": name, "id": i, **limits} for i, name in enumerate(NAMES, 1)]
    joints[1]["direction"] = -1
    bus = {"protocol": protocol, "port": port, "baud": 1_000_000}
    path = folder / "robot.yaml"
    path.write_text(yaml.safe_dump({"robot": {"name": "arm", "bus": bus, "joints": joints}}))
    return path


def stiffen(chain: VirtualDynamixelBus) -> None:
    for servo in chain.servos.values():
        assert servo.write(64, b"\1") == 0


def test_release_switches_torque_off_and_confirms_each_joint(
    serve: Serve, chain: VirtualDynamixelBus, tmp_path: Path
) -> None:
    stiffen(chain)
    result = motors("release", robot_yaml(tmp_path, serve(chain).path))
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [
        "Torque goes off in base (id 1), elbow (id 2), tip (id 3): "
        "what these joints hold up may fall.",
        "base (id 1): torque is off",
        "elbow (id 2): torque is off",
        "tip (id 3): torque is off",
    ]
    assert not any(servo.torque_on for servo in chain.servos.values())


def test_release_works_where_a_run_would_be_refused(
    serve: Serve, chain: VirtualDynamixelBus, tmp_path: Path
) -> None:
    assert chain.servos[1].write(11, b"\1") == 0  # velocity mode
    assert chain.servos[2].write(68, b"\1") == 0  # answers no writes
    chain.servos[3].overload()
    stiffen(VirtualDynamixelBus([chain.servos[1], chain.servos[2]]))
    result = motors("release", robot_yaml(tmp_path, serve(chain).path))
    assert result.exit_code == 0, result.stderr
    assert not any(servo.torque_on for servo in chain.servos.values())


class Stubborn(VirtualDynamixel):
    """Keeps torque on whatever is written."""

    def write(self, address: int, data: bytes) -> int:
        return 0 if address == 64 and data == b"\0" else super().write(address, data)


def test_release_names_what_it_could_not_confirm(
    serve: Serve, chain: VirtualDynamixelBus, tmp_path: Path
) -> None:
    chain.servos[2] = Stubborn(XL330, 2)
    stiffen(chain)
    del chain.servos[3]
    result = motors("release", robot_yaml(tmp_path, serve(chain).path))
    assert result.exit_code == 6
    lines = result.stdout.splitlines()
    assert "base (id 1): torque is off" in lines
    assert "elbow (id 2): NOT CONFIRMED: the servo keeps torque on" in lines
    assert any(line.startswith("tip (id 3): NOT CONFIRMED: servo 3: no answer") for line in lines)
    assert "torque may still be on in elbow (id 2), tip (id 3): cut the motors' power" in (
        result.stderr
    )
    assert not chain.servos[1].torque_on


def test_release_by_the_port_takes_every_servo_that_answers(
    serve: Serve, chain: VirtualDynamixelBus
) -> None:
    stiffen(chain)
    chain.servos[2].sense("model_number", 9999)
    path = serve(chain).path
    result = motors("release", "--port", path, *AT_1M)
    assert result.exit_code == 6  # where an unknown model keeps its torque is not known
    assert "id 2: NOT CONFIRMED: model number 9999 is not known" in result.stdout
    assert [servo.torque_on for servo in chain.servos.values()] == [False, True, False]
    assert motors("release", "--port", path, "--id", 3, *AT_1M).exit_code == 0


def test_release_of_a_port_that_is_not_there(tmp_path: Path) -> None:
    result = motors("release", robot_yaml(tmp_path, "/dev/ttyNONE"))
    assert result.exit_code == 6
    assert "no such serial port" in result.stderr


@pytest.mark.parametrize("words", [(), ("robot.yaml", "--port", "/dev/arm")])
def test_one_bus_has_to_be_named(words: tuple[str, ...], tmp_path: Path) -> None:
    result = motors("release", *words)
    assert result.exit_code == 2
    assert "ROBOT.YAML" in result.stderr or "both name a bus" in result.stderr


def test_reboot_ends_an_overload_of_a_dynamixel(
    serve: Serve, chain: VirtualDynamixelBus, tmp_path: Path
) -> None:
    stiffen(chain)
    chain.servos[2].overload()
    path = robot_yaml(tmp_path, serve(chain).path)
    result = motors("reboot", path, "elbow", "--yes")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [
        "elbow (id 2): overload",
        "A restart switches torque off: what these joints hold up may fall.",
        "elbow (id 2): restarted, no alarm; torque is off",
    ]
    assert chain.servos[2]["hardware_error_status"] == 0
    assert chain.servos[1].torque_on  # the others are left alone


def test_reboot_asks_first(serve: Serve, chain: VirtualDynamixelBus) -> None:
    chain.servos[2].overload()
    path = serve(chain).path
    result = motors("reboot", "--port", path, "--id", 2, *AT_1M, keys="n\n")
    assert result.exit_code == 1
    assert chain.servos[2]["hardware_error_status"]
    assert motors("reboot", "--port", path, "--id", 2, *AT_1M, keys="y\n").exit_code == 0
    assert not chain.servos[2]["hardware_error_status"]


def test_reboot_without_a_name_takes_the_servos_with_an_alarm(
    serve: Serve, chain: VirtualDynamixelBus, tmp_path: Path
) -> None:
    path = robot_yaml(tmp_path, serve(chain).path)
    assert "no servo reports an alarm" in motors("reboot", path, "--yes").stdout
    stiffen(chain)
    chain.servos[3].overload()
    result = motors("reboot", path, "--yes")
    assert result.exit_code == 0, result.stderr
    assert [servo.torque_on for servo in chain.servos.values()] == [True, True, False]
    assert not chain.servos[3]["hardware_error_status"]


def test_an_alarm_whose_cause_is_still_there_stays(
    serve: Serve, chain: VirtualDynamixelBus
) -> None:
    chain.servos[1].sense("present_input_voltage", 90)
    path = serve(chain).path
    result = motors("reboot", "--port", path, "--id", 1, "--id", 9, "--yes", *AT_1M)
    assert result.exit_code == 6
    assert "id 9: no answer; check its cable, power and id" in result.stderr
    assert "id 1: still input voltage; 9.0 V is above the servo's limit: unplug" in result.stderr
    assert "use one of 3.5 to 7.0 V" in result.stderr


def test_reboot_ends_an_overload_of_a_feetech_servo(serve: Serve) -> None:
    line = VirtualFeetechBus([VirtualFeetech(FEETECHS["sts3215"], 6)])
    line.servos[6].overload()
    at = ("--protocol", "feetech", "--baud", "1000000")
    result = motors("reboot", "--port", serve(line).path, "--id", 6, "--yes", *at)
    assert result.exit_code == 0, result.stderr
    assert line.servos[6]["hardware_error_status"] == 0


def test_the_line_that_a_refusal_prints_ends_the_alarm(
    serve: Serve, chain: VirtualDynamixelBus, tmp_path: Path
) -> None:
    chain.servos[2].overload()
    path = serve(chain).path
    result = motors("jog", robot_yaml(tmp_path, path), "elbow")
    assert result.exit_code == 6
    line = result.stderr.rpartition("; then run ")[2]
    words = line.partition(" motors ")[2].split()
    assert motors(*words, "--yes").exit_code == 0
    assert motors("jog", robot_yaml(tmp_path, path), "elbow").exit_code == 0


def test_a_joint_that_is_not_there_gets_a_suggestion(
    serve: Serve, chain: VirtualDynamixelBus, tmp_path: Path
) -> None:
    path = robot_yaml(tmp_path, serve(chain).path)
    result = motors("reboot", path, "elbo", "--yes")
    assert result.exit_code == 2
    assert "no joint 'elbo'; did you mean 'elbow'?" in result.stderr


def test_monitor_and_jog_speak_of_joints(
    serve: Serve, chain: VirtualDynamixelBus, tmp_path: Path
) -> None:
    chain.servos[2].rest_at(2048 - 652)  # -1 rad for the servo: +1 rad for a turned joint
    del chain.servos[3]
    path = robot_yaml(tmp_path, serve(chain).path)
    result = motors("monitor", path, "--seconds", 0)
    assert result.exit_code == 0, result.stderr
    header, base, elbow = result.stdout.splitlines()
    assert header.split()[:4] == ["joint", "id", "model", "tick"]
    assert base.split()[:5] == ["base", "1", "xl330-m288", "2048", "0.000"]
    assert elbow.split()[:5] == ["elbow", "2", "xl330-m288", "1396", "1.000"]
    assert "note: tip (id 3): no answer" in result.stderr
    result = motors("jog", path, "elbow")
    assert "tick 1396, +1.000 rad, range 1396 to 2700" in result.stdout
    result = motors("doctor", path, "--hz", 2)
    assert result.exit_code == 6
    assert "BAD  joints: tip (id 3): no answer" in result.stdout


def test_jog_moves_a_joint_in_its_own_direction(
    serve: Serve, chain: VirtualDynamixelBus, tmp_path: Path
) -> None:
    path = robot_yaml(tmp_path, serve(chain, moves=True).path)
    result = motors("jog", path, "elbow", "--arm", keys="+q")
    assert result.exit_code == 0, result.stderr
    assert chain.servos[2]["present_position"] == pytest.approx(2048 - 33, abs=9)
    assert not chain.servos[2].torque_on


def test_a_running_command_keeps_the_port(
    serve: Serve, chain: VirtualDynamixelBus, tmp_path: Path
) -> None:
    path = robot_yaml(tmp_path, serve(chain).path)
    with process("monitor", path, "--json") as running:
        assert running.stdout
        running.stdout.readline()
        result = motors("release", path)
    assert result.exit_code == 6
    assert "in use by another program" in result.stderr


def test_every_alarm_has_advice_and_a_voltage_gets_its_figures() -> None:
    for name in FAMILIES:
        for bit in range(8):
            for alarm in load_family(name).describe_alarms(1 << bit).split(", "):
                assert alarm in CAUSES or alarm.startswith("unknown bit")
    low = Volts(9.1, 9.5, 16.0)
    text = advice("input voltage, overload", "run it", low)
    assert "9.1 V is below the servo's limit: use a supply of 9.5 to 16.0 V" in text
    assert text.endswith("free the joint, or lighten its load; then run it")
    assert Volts(12.0, 9.5, 16.0).fault == Volts(12.0, 9.5, 16.0).advice == ""


def test_the_servos_that_share_a_bus_keep_their_tables(serve: Serve, tmp_path: Path) -> None:
    """A bus with an STS and an SCS servo has registers of two byte orders."""
    line = VirtualFeetechBus(
        [VirtualFeetech(FEETECHS["sts3215"], 1), VirtualFeetech(FEETECHS["scs0009"], 2)]
    )
    for servo in line.servos.values():
        servo.write(40, b"\1")
    at = ("--protocol", "feetech", "--baud", "1000000")
    assert motors("release", "--port", serve(line).path, *at).exit_code == 0
    assert not any(servo.torque_on for servo in line.servos.values())


def test_a_shadow_and_a_gripper_are_set_up_examined_moved_and_released(
    serve: Serve, tmp_path: Path
) -> None:
    chain = VirtualDynamixelBus([VirtualDynamixel(XL330, i) for i in (1, 2, 3, 4)])
    server = serve(chain, moves=True)
    path = robot_yaml(tmp_path, server.path)
    robot = yaml.safe_load(path.read_text())
    robot["robot"]["joints"][0]["shadow_id"] = 4
    robot["robot"]["joints"][2]["current_limit_a"] = 0.3
    path.write_text(yaml.safe_dump(robot))
    result = motors("doctor", path, "--hz", 2)
    assert "id 4: secondary_id 255, expected 1" in result.stdout
    assert "id 3: operating_mode 3, expected 5" in result.stdout
    fixes = [line.partition(" motors ")[2] for line in result.stdout.splitlines() if "fix:" in line]
    assert any(line.endswith("--shadow-of 1") for line in fixes)
    assert any(line.endswith("--current-limited") for line in fixes)
    for line in dict.fromkeys(fixes):
        assert motors(*line.split(), "--yes").exit_code == 0, line
    result = motors("doctor", path, "--hz", 2)
    assert result.exit_code == 0, result.stdout
    result = motors("jog", path, "base", "--arm", keys="+q")
    assert result.exit_code == 0, result.stderr
    for servo_id in (1, 4):
        assert chain.servos[servo_id]["present_position"] == pytest.approx(2048 + 33, abs=9)
    result = motors("jog", path, "tip", "--arm", keys="+q")
    assert result.exit_code == 0, result.stderr
    assert chain.servos[3]["goal_current"] == 300
    stiffen(chain)
    result = motors("release", path)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "base's shadow (id 4): torque is off"
    assert not any(servo.torque_on for servo in chain.servos.values())
