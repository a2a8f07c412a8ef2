"""`v2a motors setup`: a servo gets its id and its rate, and nobody else is touched."""

from __future__ import annotations

import dynamixel_sdk as sdk
import pytest

from hw_drivers.dynamixel.models import MODELS as DYNAMIXELS
from hw_drivers.dynamixel.virtual_bus import VirtualDynamixelBus
from hw_drivers.dynamixel.virtual_servo import VirtualDynamixel
from hw_drivers.family import FAMILIES, load_family
from hw_drivers.feetech.models import MODELS as FEETECHS
from hw_drivers.feetech.models import MULTI_TURN_PHASE_BIT
from hw_drivers.feetech.virtual_bus import VirtualFeetechBus
from hw_drivers.feetech.virtual_servo import VirtualFeetech
from hw_drivers.robot.robot import Robot, RobotConfig
from hw_drivers.virtual.wire_timing import Reply
from tests.hw_drivers.motors.conftest import XL330, Serve, motors, settings_of
from tests.hw_drivers.virtual.conftest import PatientPort
from v2a.clock import MonotonicClock
from v2a.errors import BusError

pytestmark = pytest.mark.real_time

AT_57600 = ("--protocol", "dynamixel2", "--from-baud", "57600")
AT_1M = ("--protocol", "dynamixel2", "--from-baud", "1000000")


def test_a_servo_as_it_was_born_becomes_one_of_ours(serve: Serve) -> None:
    chain = VirtualDynamixelBus([VirtualDynamixel(XL330, 1)])
    server = serve(chain, baud=57_600)
    assert chain.servos[1].write(10, b"\x05") == 0  # turned round, and a profile by time
    result = motors("setup", "--port", server.path, "--id", 7, "--yes", *AT_57600)
    assert result.exit_code == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["return_delay_time", "250", "0"] in rows
    assert ["drive_mode", "5", "1"] in rows
    assert ["id", "1", "7"] in rows
    assert ["baud_rate", "57600", "1000000"] in rows
    assert result.stdout.splitlines()[-1] == "done: id 7 at 1000000 baud, read back"
    assert [*chain.servos] == [7]
    # The vendor's program agrees.
    port, handler = PatientPort(server.path), sdk.PacketHandler(2.0)
    assert port.openPort()
    assert port.setBaudRate(1_000_000)
    assert handler.ping(port, 7)[0] == XL330.number
    assert handler.read1ByteTxRx(port, 7, 9)[0] == 0
    assert handler.read1ByteTxRx(port, 7, 10)[0] == 1
    port.closePort()


def test_a_feetech_servo_is_locked_again(serve: Serve) -> None:
    line = VirtualFeetechBus([VirtualFeetech(FEETECHS["sts3215"], 1)])
    servo = line.servos[1]
    servo.write(55, b"\0")
    servo.write(18, bytes((12 | MULTI_TURN_PHASE_BIT,)))
    servo.write(7, b"\xfa")
    servo.write(55, b"\1")
    server = serve(line, baud=500_000)
    result = motors(
        "setup", "--port", server.path, "--id", 4, "--yes", "--protocol", "feetech",
        "--from-baud", "500000",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    servo = line.servos[4]
    assert (servo.baud, servo["lock"], servo["phase"], servo["return_delay_time"]) == (
        1_000_000,
        1,
        12,
        0,
    )


@pytest.mark.parametrize("answer", ["n\n", ""])
def test_without_a_yes_nothing_is_written(serve: Serve, answer: str) -> None:
    chain = VirtualDynamixelBus([VirtualDynamixel(XL330, 1)])
    server = serve(chain, baud=57_600)
    before = settings_of(chain)
    result = motors("setup", "--port", server.path, "--id", 7, *AT_57600, keys=answer)
    assert result.exit_code == 1
    assert "Write this?" in result.stdout
    assert settings_of(chain) == before


def test_torque_goes_off_by_plan(serve: Serve) -> None:
    chain = VirtualDynamixelBus([VirtualDynamixel(XL330, 1)])
    assert chain.servos[1].write(64, b"\1") == 0
    result = motors("setup", "--port", serve(chain).path, "--id", 2, "--yes", *AT_1M)
    assert ["torque_enable", "1", "0"] in [line.split() for line in result.stdout.splitlines()]
    assert result.exit_code == 0, result.stderr
    assert not chain.servos[2].torque_on


def test_a_second_time_there_is_nothing_to_do(serve: Serve, chain: VirtualDynamixelBus) -> None:
    path = serve(chain).path
    result = motors("setup", "--port", path, "--from-id", 2, "--id", 2, *AT_1M)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "is already as it should be"


def refused(serve: Serve, chain: VirtualDynamixelBus, *options: object) -> str:
    path = serve(chain).path
    before = settings_of(chain)
    result = motors("setup", "--port", path, "--yes", *options, *AT_1M)
    assert result.exit_code == 6
    assert settings_of(chain) == before
    return result.stderr


def test_one_of_several_has_to_be_named(serve: Serve, chain: VirtualDynamixelBus) -> None:
    message = refused(serve, chain, "--id", 7)
    assert "expected one servo, found 3; connect one alone, or name it by --from-id" in message
    assert "id 3: xl330-m288, dynamixel2 at 1000000 baud" in message
    assert "no servo has id 9; found:\n  id 1: xl330" in refused(
        serve, chain, "--id", 7, "--from-id", 9
    )


def test_an_id_that_is_taken(serve: Serve, chain: VirtualDynamixelBus) -> None:
    message = refused(serve, chain, "--from-id", 1, "--id", 3)
    assert "id 3 is taken by id 3: xl330-m288" in message
    assert "choose another than 2, 3" in message


def test_what_the_model_does_not_know(serve: Serve, chain: VirtualDynamixelBus) -> None:
    rate = refused(serve, chain, "--from-id", 1, "--id", 7, "--baud", 4_500_000)
    assert "a xl330-m288 knows no 4500000 baud; choose from [9600, 57600" in rate
    high = refused(serve, chain, "--from-id", 1, "--id", 253)
    assert "ids of a xl330-m288 go from 0 to 252, got 253" in high


def test_an_unknown_model_is_left_alone(serve: Serve) -> None:
    chain = VirtualDynamixelBus([VirtualDynamixel(DYNAMIXELS["xl430-w250"], 1)])
    chain.servos[1].sense("model_number", 9999)
    assert "unknown: id 1: model number 9999" in refused(serve, chain, "--id", 2)


@pytest.mark.parametrize("level", [0, 1])
def test_a_dynamixel_that_answers_no_writes_is_mended(serve: Serve, level: int) -> None:
    """At level 1 it answers pings and reads, at 0 only pings: no plan can be read before."""
    chain = VirtualDynamixelBus([VirtualDynamixel(XL330, 1)])
    assert chain.servos[1].write(68, bytes((level,))) == 0
    result = motors("setup", "--port", serve(chain).path, "--id", 4, "--yes", *AT_1M)
    assert result.exit_code == 0, result.stderr
    servo = chain.servos[4]
    assert (servo["status_return_level"], servo["return_delay_time"]) == (2, 0)
    assert ("answers pings, and no reads" in result.stdout) == (level == 0)


def test_without_a_yes_a_silent_servo_stays_silent(serve: Serve) -> None:
    chain = VirtualDynamixelBus([VirtualDynamixel(XL330, 1)])
    assert chain.servos[1].write(68, b"\0") == 0
    result = motors("setup", "--port", serve(chain).path, "--id", 4, *AT_1M, keys="n\n")
    assert result.exit_code == 1
    assert chain.servos[1]["status_return_level"] == 0


FEETECH = ("--protocol", "feetech", "--from-baud", "1000000")


def test_a_feetech_servo_that_answers_no_writes_is_mended_and_locked(serve: Serve) -> None:
    line = VirtualFeetechBus([VirtualFeetech(FEETECHS["sts3215"], 1)])
    servo = line.servos[1]
    for address, raw in ((55, 0), (8, 0), (33, 1), (55, 1), (40, 1)):
        servo.write(address, bytes((raw,)))
    result = motors("setup", "--port", serve(line).path, "--id", 6, "--yes", *FEETECH)
    assert result.exit_code == 0, result.stderr
    found = {name: servo[name] for name in ("id", "status_return_level", "operating_mode", "lock")}
    assert found == {"id": 6, "status_return_level": 1, "operating_mode": 0, "lock": 1}


def test_an_eeprom_that_was_left_open_is_locked(serve: Serve) -> None:
    line = VirtualFeetechBus([VirtualFeetech(FEETECHS["sts3215"], 1)])
    line.servos[1].write(55, b"\0")
    result = motors("setup", "--port", serve(line).path, "--id", 1, "--yes", *FEETECH)
    assert result.exit_code == 0, result.stderr
    assert ["lock", "0", "1"] in [row.split() for row in result.stdout.splitlines()]
    assert line.servos[1]["lock"] == 1


class Failing(VirtualFeetechBus):
    """Falls silent for `missing` requests, from the `after`-th on that comes once it is unlocked.

    It does not hear them either: as a servo whose plug lost contact.
    """

    def __init__(self, servo: VirtualFeetech, after: int, missing: int) -> None:
        super().__init__([servo])
        self.servo, self.after, self.missing = servo, after, missing
        self.heard = 0

    def replies(self, data: bytes, baud: int | None = None) -> list[Reply]:
        self.heard += self.heard > 0 or not self.servo["lock"]
        if self.after < self.heard <= self.after + self.missing:
            return []
        return super().replies(data, baud)


@pytest.mark.parametrize("after", range(0, 12))
@pytest.mark.parametrize("missing", [1, 8])
def test_the_eeprom_is_locked_however_setup_ends(serve: Serve, after: int, missing: int) -> None:
    servo = VirtualFeetech(FEETECHS["sts3215"], 1)
    for address, raw in ((55, 0), (7, 250), (33, 1), (55, 1)):
        servo.write(address, bytes((raw,)))
    line = Failing(servo, after, missing)
    result = motors("setup", "--port", serve(line).path, "--id", 6, "--yes", *FEETECH)
    assert servo["lock"] == 1 or "EEPROM of servo" in result.stderr, result.stderr
    if missing == 1:
        assert servo["lock"] == 1, result.stderr
    if result.exit_code == 0:
        assert (servo["id"], servo["operating_mode"], servo["return_delay_time"]) == (6, 0, 0)


def test_a_servo_that_is_gone_for_good_has_its_lock_named(serve: Serve) -> None:
    servo = VirtualFeetech(FEETECHS["sts3215"], 1)
    line = Failing(servo, 2, 10_000)
    result = motors("setup", "--port", serve(line).path, "--id", 6, "--yes", *FEETECH)
    assert result.exit_code == 6
    assert (
        "the EEPROM of servo 6 may still be unlocked; run the same command again" in result.stderr
    )


@pytest.mark.parametrize("command", ["setup", "jog"])
@pytest.mark.parametrize("servo_id", ["254", "-1"])
def test_ids_have_one_range_in_all_commands(command: str, servo_id: str) -> None:
    result = motors(command, "--port", "/dev/ttyNONE", "--id", servo_id)
    assert result.exit_code == 2
    assert "is not in the range 0<=x<=253" in result.stderr


def test_the_range_of_ids_is_that_of_the_family() -> None:
    for name in FAMILIES:
        family = load_family(name)
        for model in family.tables:
            assert model.items["id"].limits == (0, family.packets.max_id)
    result = motors("jog", "--port", "/dev/ttyNONE", "--id", 253, "--protocol", "dynamixel2")
    assert "ids of dynamixel2 servos go from 0 to 252, got 253" in result.stderr


def test_the_line_of_a_shadow_and_a_current_limit_makes_them_so(serve: Serve) -> None:
    """The line that connect prints is carried out as it stands."""
    model = DYNAMIXELS["xm430-w350"]
    chain = VirtualDynamixelBus([VirtualDynamixel(model, servo_id) for servo_id in (1, 2, 3)])
    path = serve(chain).path
    limits = {"lower_rad": -1.0, "upper_rad": 1.0, "velocity_limit_rad_s": 1.0}
    joint = {"model": model.name, **limits}
    config = RobotConfig.model_validate(
        {
            "name": "arm",
            "bus": {"protocol": "dynamixel2", "port": path, "baud": 1_000_000},
            "joints": [
                {**joint, "name": "shoulder", "id": 1, "shadow_id": 2},
                {**joint, "name": "gripper", "id": 3, "current_limit_a": 0.3},
            ],
        }
    )
    robot = Robot(config, MonotonicClock())
    with pytest.raises(BusError) as caught:
        robot.connect()
    lines = [line.partition("run v2a motors ")[2] for line in str(caught.value).splitlines()]
    commands = [line.split() for line in lines if line]
    assert len(commands) == 2
    for words in commands:
        result = motors(*words, "--yes")
        assert result.exit_code == 0, result.stderr
    assert (chain.servos[2]["secondary_id"], chain.servos[3]["operating_mode"]) == (1, 5)
    robot.connect()
    robot.close()


def test_a_role_that_the_model_can_not_have_is_refused(serve: Serve) -> None:
    chain = VirtualDynamixelBus([VirtualDynamixel(DYNAMIXELS["xl430-w250"], 1)])
    path = serve(chain).path
    result = motors("setup", "--port", path, "--id", 1, "--current-limited", "--yes", *AT_1M)
    assert result.exit_code == 6
    assert "a xl430-w250 has no goal_current" in result.stderr
