"""`v2a motors jog`: small steps, within limits, slowly; and torque off whatever happens."""

from __future__ import annotations

import os
import pty
import signal
import termios
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from hw_drivers.bus.bus import Pong
from hw_drivers.dynamixel.bus import DynamixelBus
from hw_drivers.dynamixel.models import RAD_PER_TICK
from hw_drivers.dynamixel.packet import SYNC_WRITE, WRITE
from hw_drivers.dynamixel.virtual_bus import VirtualDynamixelBus
from hw_drivers.feetech.models import MODELS as FEETECHS
from hw_drivers.feetech.virtual_bus import VirtualFeetechBus
from hw_drivers.feetech.virtual_servo import VirtualFeetech
from hw_drivers.motors.find import Place, Servo
from hw_drivers.motors.jog import Keys, Mover, torque
from hw_drivers.motors.recording import RecordingPort
from hw_drivers.virtual.loopback import LoopbackPort
from tests.hw_drivers.motors.conftest import XL330, Serve, motors, settings_of
from v2a.clock import FakeClock
from v2a.errors import BusError
from v2a.signals import ENDS, one_signal_ends_it

pytestmark = pytest.mark.real_time

AT_1M = ("--protocol", "dynamixel2", "--baud", "1000000")
GOAL = XL330.items["goal_position"].address.to_bytes(2, "little")


class SteppingClock(FakeClock):
    """Time passes for the servos when it passes here."""

    def __init__(self, chain: VirtualDynamixelBus) -> None:
        super().__init__()
        self._chain = chain

    def sleep_until_ns(self, t_ns: int) -> None:
        dt_s = max(t_ns - self.now_ns(), 0) * 1e-9
        super().sleep_until_ns(t_ns)
        self._chain.step(dt_s)


@pytest.fixture
def port(chain: VirtualDynamixelBus) -> RecordingPort:
    return RecordingPort(LoopbackPort(chain))


@pytest.fixture
def mover(chain: VirtualDynamixelBus, port: RecordingPort) -> Mover:
    clock = SteppingClock(chain)
    bus = DynamixelBus(port, clock, {2: XL330})
    place = Place("/dev/arm", "dynamixel2", 1_000_000)
    return Mover.find(bus, Servo(place, 2, Pong(1200, 52)), clock)


def test_without_arm_nothing_is_written(serve: Serve, chain: VirtualDynamixelBus) -> None:
    path = serve(chain).path
    before = settings_of(chain)
    result = motors("jog", "--port", path, "--id", 2, *AT_1M, keys="++q")
    assert result.exit_code == 0
    assert "baud; tick 2048, range 0 to 4095" in result.stdout
    assert "torque is off and stays so; --arm to move it" in result.stdout
    assert settings_of(chain) == before


def test_keys_move_it_and_torque_is_off_after(serve: Serve, chain: VirtualDynamixelBus) -> None:
    path = serve(chain, moves=True).path
    result = motors("jog", "--port", path, "--id", 2, "--arm", *AT_1M, keys="++x-q")
    assert result.exit_code == 0, result.stderr
    ticks = [int(line.split()[1]) for line in result.stdout.splitlines() if line.startswith("tick")]
    step = 0.05 / RAD_PER_TICK
    assert ticks == pytest.approx([2048 + step, 2048 + 2 * step, 2048 + step], abs=9)
    assert result.stdout.splitlines()[-1] == "torque is off"
    assert not any(servo.torque_on for servo in chain.servos.values())


def test_a_feetech_servo_moves_too(serve: Serve) -> None:
    line = VirtualFeetechBus([VirtualFeetech(FEETECHS["sts3215"], 1)])
    result = motors(
        "jog", "--port", serve(line, moves=True).path, "--id", 1, "--arm", "--protocol", "feetech",
        "--baud", "1000000", keys="-q",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert line.servos[1]["present_position"] == pytest.approx(2048 - 0.05 / RAD_PER_TICK, abs=9)
    assert not line.servos[1].torque_on


def goals(port: RecordingPort) -> list[int]:
    """What was written to the goal, in order."""
    packets = [exchange.sent for exchange in port.exchanges]
    data_at = {WRITE: 10, SYNC_WRITE: 13}
    return [
        int.from_bytes(packet[data_at[packet[7]] :][:4], "little", signed=True)
        for packet in packets
        if packet[7] in data_at and packet[8:10] == GOAL
    ]


def test_it_starts_where_it_is_and_goes_no_faster_than_it_may(
    chain: VirtualDynamixelBus, port: RecordingPort, mover: Mover
) -> None:
    present = chain.servos[2]["present_position"]
    mover.bus.write(2, "goal_position", present + 900)  # of an earlier run
    port.exchanges.clear()
    with torque(mover):
        assert chain.servos[2].torque_on
        mover.step(130)
    sent = goals(port)
    assert sent[0] == present  # before torque: no leap to an old goal
    paces = [after - before for before, after in pairwise(sent)]
    # 0.5 rad/s for 20 ms: 6.5 ticks
    assert max(map(abs, paces)) <= 7
    assert present + 130 in sent


def test_it_stays_within_its_limits(chain: VirtualDynamixelBus, mover: Mover) -> None:
    for name, raw in {"min_position_limit": 2000, "max_position_limit": 2100}.items():
        mover.bus.write(2, name, raw)
    mover = Mover.find(mover.bus, mover.servo, mover.clock)
    with torque(mover):
        for ticks, end in ((500, 2100), (-500, 2000)):
            wanted, reached = mover.step(ticks)
            assert wanted == end
            assert reached == pytest.approx(end, abs=8)
    chain.servos[2].set_present_rad(1.0)
    with pytest.raises(BusError, match="is at tick 2700, its limits are 2000 to 2100"):
        Mover.find(mover.bus, mover.servo, mover.clock)


def test_what_is_blocked_is_not_pushed_on(chain: VirtualDynamixelBus, mover: Mover) -> None:
    chain.servos[2].set_present_rad(0.0)  # from now on it does not follow
    with torque(mover):
        wanted, reached = mover.step(100)
        assert (wanted, reached) == (2148, 2048)
        assert chain.servos[2]["goal_position"] == 2048


@pytest.mark.parametrize("end", [BusError, KeyboardInterrupt, SystemExit])
def test_torque_goes_off_whatever_happens(
    chain: VirtualDynamixelBus, mover: Mover, end: type[BaseException]
) -> None:
    def fail() -> None:
        with torque(mover):
            assert chain.servos[2].torque_on
            raise end

    with pytest.raises(end):
        fail()
    assert not chain.servos[2].torque_on


def test_an_alarm_ends_it(chain: VirtualDynamixelBus, mover: Mover) -> None:
    with pytest.raises(BusError, match="hardware error: overload"), torque(mover):
        overload_and_step(chain, mover)
    assert not chain.servos[2].torque_on
    with pytest.raises(BusError, match=r"hardware error: overload; free the .* motors reboot "):
        Mover.find(mover.bus, mover.servo, mover.clock)


def overload_and_step(chain: VirtualDynamixelBus, mover: Mover) -> Any:
    chain.servos[2].overload()
    return mover.step(10)


def test_a_servo_that_is_gone_is_said_to_be_stiff(chain: VirtualDynamixelBus, mover: Mover) -> None:
    with pytest.raises(BusError, match="torque may still be on: servo 2: no answer"), torque(mover):
        chain.servos.clear()


@pytest.fixture
def handlers() -> Iterator[None]:
    """Puts the signals' handlers back: after one has come, the others are ignored."""
    before = {number: signal.getsignal(number) for number in ENDS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", sorted(ENDS))
def test_a_signal_ends_it_in_order(
    handlers: None, chain: VirtualDynamixelBus, mover: Mover, number: int
) -> None:
    def killed() -> None:
        with one_signal_ends_it(), torque(mover):
            os.kill(os.getpid(), number)
            raise AssertionError("it goes on")

    with pytest.raises(SystemExit) as caught:
        killed()
    assert caught.value.code == 128 + number
    assert not chain.servos[2].torque_on


@pytest.fixture
def keyboard() -> Iterator[tuple[int, Keys]]:
    """A terminal: where a person types, and what jog reads."""
    typed, read = pty.openpty()
    with Keys(read) as keys:
        yield typed, keys
    os.close(typed)
    os.close(read)


def test_a_held_key_moves_no_further_than_a_step_after_its_release(
    mover: Mover, keyboard: tuple[int, Keys]
) -> None:
    typed, keys = keyboard
    with torque(mover):
        os.write(typed, b"+" * 60)  # two seconds of a held key, all waiting at once
        assert keys.next() == "+"
        assert not keys.waiting()
        before = mover.goal
        wanted, reached = mover.step(33, keys.waiting)
        assert (mover.goal, wanted) == (before + 33, before + 33)
        assert reached == pytest.approx(wanted, abs=8)
        assert not keys.waiting()


def test_the_newest_key_wins_at_once(mover: Mover, keyboard: tuple[int, Keys]) -> None:
    typed, keys = keyboard
    with torque(mover):
        before = mover.goal
        os.write(typed, b"-")
        mover.step(130, keys.waiting)  # another key has been pressed since
        assert mover.goal - before <= 7  # one period of 20 ms
        assert keys.next() == "-"
        os.write(typed, b"++-+q+++")
        assert keys.next() == "q"  # the end is never lost among others


def test_the_terminal_is_left_as_it_was() -> None:
    typed, read = pty.openpty()
    before = termios.tcgetattr(read)
    with Keys(read):
        assert termios.tcgetattr(read) != before
    assert termios.tcgetattr(read) == before
    os.close(typed)
    os.close(read)


def test_a_servo_that_keeps_torque_on_is_said(chain: VirtualDynamixelBus, mover: Mover) -> None:
    said = "torque may still be on: the servo keeps torque on"
    with pytest.raises(BusError, match=said), torque(mover):
        chain.servos[2].write = lambda address, data: 0  # type: ignore[method-assign]


def test_another_mode_or_id_is_refused(serve: Serve, chain: VirtualDynamixelBus) -> None:
    path = serve(chain).path
    assert chain.servos[2].write(11, b"\x01") == 0
    result = motors("jog", "--port", path, "--id", 2, "--arm", *AT_1M, keys="q")
    assert result.exit_code == 6
    assert "operating_mode 1, expected 3; run " in result.stderr
    result = motors("jog", "--port", path, "--id", 9, "--arm", *AT_1M)
    assert result.exit_code == 6
    assert "expected id 9, found:\n  id 1: xl330-m288, dynamixel2 at 1000000" in result.stderr
