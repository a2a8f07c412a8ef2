"""The reader of every cycle: its quick look against the parsers, late answers, silence, ages."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_drivers.bus.block import NEVER_NS, NO_RAW
from hw_drivers.bus.wire import Request
from hw_drivers.dynamixel.bus import DynamixelBus
from hw_drivers.dynamixel.cycle_requests import SyncWriter, fast_read_request, sync_read_request
from hw_drivers.dynamixel.models import MODELS, RAD_PER_TICK, TABLES
from hw_drivers.dynamixel.packet import make_sync_write
from hw_drivers.dynamixel.virtual_bus import VirtualDynamixelBus
from hw_drivers.dynamixel.virtual_servo import VirtualDynamixel
from hw_drivers.feetech.bus import FeetechBus
from hw_drivers.feetech.bus import sync_read_request as feetech_sync_read_request
from hw_drivers.feetech.models import MODELS as FEETECH
from hw_drivers.feetech.virtual_bus import VirtualFeetechBus
from hw_drivers.feetech.virtual_servo import VirtualFeetech
from hw_drivers.virtual.bus import VirtualBus
from hw_drivers.virtual.loopback import LoopbackPort
from tests.hw_drivers.conftest import TamperedPort
from v2a.clock import FakeClock
from v2a.errors import BusError

XL330 = MODELS["xl330-m288"]
IDS = (1, 2, 3)
BUDGET_S = 0.01


def chain_of(model: str = "xl330-m288") -> VirtualDynamixelBus:
    """Servo k at 2048 + k ticks."""
    chain = VirtualDynamixelBus(VirtualDynamixel(MODELS[model], servo_id) for servo_id in IDS)
    place(chain)
    return chain


def place(line: VirtualBus[Any]) -> None:
    for servo_id, servo in line.servos.items():
        servo.set_present_rad(servo_id * RAD_PER_TICK)


def bus_on(port: LoopbackPort, clock: FakeClock) -> DynamixelBus:
    return DynamixelBus(port, clock, dict.fromkeys(IDS, XL330))


Framing = Callable[[int, int, Sequence[int]], Request]
FRAMINGS: dict[str, tuple[Framing, Callable[[], VirtualBus[Any]]]] = {
    "sync": (sync_read_request, chain_of),
    "fast": (fast_read_request, chain_of),
    "feetech": (
        feetech_sync_read_request,
        lambda: VirtualFeetechBus(VirtualFeetech(FEETECH["sts3215"], i) for i in IDS),
    ),
}


@pytest.mark.parametrize("name", FRAMINGS)
def test_the_quick_look_says_what_the_parser_says(name: str) -> None:
    framing, make_line = FRAMINGS[name]

    @given(
        st.binary(max_size=12),
        st.integers(1, 255),
        st.integers(0, 10_000),
        st.integers(0, 14).map(lambda n: 2 * n),
    )
    def agree(noise: bytes, flip: int, at: int, size: int) -> None:
        line = make_line()
        place(line)
        request = framing(56, size + 2, IDS)
        answer = line.respond(request.packet)
        assert request.clean(answer)
        assert [s.params for s in heard(request, answer)] == [
            answer[start : start + request.size] for start in data_starts(request)
        ]
        damaged = bytearray(answer)
        damaged[at % len(answer)] ^= flip
        assert not request.clean(bytes(damaged)), "one wrong byte"
        assert not noise or not request.clean(noise + answer)
        assert not noise or not request.clean(answer + noise)

    agree()


def heard(request: Request, answer: bytes) -> list:  # type: ignore[type-arg]
    return [status for status in request.parser().feed(answer) if request.answers(status)]


def data_starts(request: Request) -> list[int]:
    first = request.head_bytes + request.data_at
    return [first + k * request.row_bytes for k in range(len(request.ids))]


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=3, max_size=3))
def test_a_quick_goal_packet_is_the_packet(raw: list[int]) -> None:
    item = XL330.items["goal_position"]
    blocks = {servo_id: item.pack(value) for servo_id, value in zip(IDS, raw, strict=True)}
    assert SyncWriter(item, IDS).packet(raw) == make_sync_write(item.address, item.size, blocks)


def test_a_goal_packet_with_what_must_be_stuffed() -> None:
    item = XL330.items["goal_position"]
    raw = [0x00FDFFFF, 0, 0]
    packet = SyncWriter(item, IDS).packet(raw)
    assert b"\xff\xff\xfd\xfd" in packet
    assert packet == make_sync_write(
        116, 4, {i: item.pack(v) for i, v in zip(IDS, raw, strict=True)}
    )


def test_a_goal_that_does_not_fit_is_refused() -> None:
    writer = SyncWriter(XL330.items["goal_position"], IDS)
    with pytest.raises(struct.error):
        writer.packet([2**31, 0, 0])
    with pytest.raises(ValueError, match="size"):
        writer.packet([0, 0])


def test_fast_read_is_used_where_it_is_understood(clock: FakeClock) -> None:
    chain = chain_of()
    bus = bus_on(LoopbackPort(chain), clock)
    block = bus.block(("present_position",), IDS)
    reader = bus.cycle_reader(block)
    assert reader.is_fast
    assert reader.read(block, BUDGET_S).raw("present_position").tolist() == [2049, 2050, 2051]
    old = next(table for table in TABLES if table.name == "xl430-w250" and table.firmware[0] == 0)
    chain.servos[2] = VirtualDynamixel(old, 2)
    assert not bus.cycle_reader(block).is_fast


def test_fast_read_is_tried_before_it_is_trusted(clock: FakeClock) -> None:
    """Some adapters do not let it through (dynamixel_hardware_interface#79)."""
    port = TamperedPort(chain_of(), lambda request, answer: b"" if request[7] == 0x8A else answer)
    bus = bus_on(port, clock)
    block = bus.block(("present_position",), IDS)
    reader = bus.cycle_reader(block)
    assert not reader.is_fast
    assert reader.read(block, BUDGET_S).valid.all()


def test_fast_read_is_given_up_where_it_fails_again_and_again(clock: FakeClock) -> None:
    broken = False

    def cut(request: bytes, answer: bytes) -> bytes:
        return answer[:-1] if broken and request[7] == 0x8A else answer

    bus = bus_on(TamperedPort(chain_of(), cut), clock)
    block = bus.block(("present_position",), IDS)
    reader = bus.cycle_reader(block)
    assert reader.is_fast
    broken = True
    for _ in range(3):
        assert reader.is_fast
        assert reader.read(block, BUDGET_S).valid.all(), "asked again by sync read"
    assert not reader.is_fast


def test_a_dead_servo_does_not_end_a_fast_read(clock: FakeClock) -> None:
    chain = chain_of()
    bus = bus_on(LoopbackPort(chain), clock)
    block = bus.block(("present_position",), IDS)
    reader = bus.cycle_reader(block)
    del chain.servos[1]
    for _ in range(6):
        found = reader.read(block, BUDGET_S)
        assert found.valid.tolist() == [False, True, True]
        assert found.raw("present_position").tolist() == [NO_RAW, 2050, 2051]
    assert reader.is_fast
    chain.servos[1] = VirtualDynamixel(XL330, 1)
    assert [reader.read(block, BUDGET_S).valid.all() for _ in range(2)] == [True, True]


def test_age_counts_from_the_last_answer(clock: FakeClock) -> None:
    chain = chain_of()
    bus = bus_on(LoopbackPort(chain), clock)
    block = bus.block(("present_position",), IDS)
    reader = bus.reader(IDS)
    servo = chain.servos.pop(3)
    assert reader.read(block, BUDGET_S).age_ns.tolist() == [0, 0, NEVER_NS]
    chain.servos[3] = servo
    clock.advance_ns(5)
    assert reader.read(block, BUDGET_S).age_ns.tolist() == [0, 0, 0]
    del chain.servos[3]
    clock.advance_ns(7)
    found = reader.read(block, BUDGET_S)
    assert found.age_ns.tolist() == [0, 0, 7]
    later = found.reading("present_position", clock.now_ns() + 100)
    assert later.age_ns.tolist() == [100, 100, 107]
    assert np.isnan(later.value).tolist() == [False, False, True]


class Backlog(LoopbackPort):
    """An adapter that holds back all answers while `stuck`, and then delivers them at once."""

    stuck = False

    def __init__(self, chain: VirtualDynamixelBus) -> None:
        super().__init__(chain)
        self.held = b""

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.stuck:
            self.held, self._received = self.held + self._received, b""
        else:
            self.held, self._received = b"", self.held + self._received


@pytest.mark.parametrize("stuck_cycles", range(1, 7))
def test_answers_of_earlier_cycles_are_not_taken_for_new_ones(
    clock: FakeClock, stuck_cycles: int
) -> None:
    chain = chain_of()
    port = Backlog(chain)
    bus = bus_on(port, clock)
    block = bus.block(("present_position",), IDS)
    reader = bus.reader(IDS)
    assert reader.read(block, BUDGET_S).valid.all()
    port.stuck = True
    for _ in range(stuck_cycles):
        assert not reader.read(block, BUDGET_S).valid.any()
    for servo in chain.servos.values():
        servo.set_present_rad(0.0)
    port.stuck = False
    chain.servos.pop(2)  # so that its old answer is the only one there is
    found = reader.read(block, BUDGET_S)
    assert found.raw("present_position").tolist() == [2048, NO_RAW, 2048]


def test_what_only_some_servos_measure_is_valid_in_those(clock: FakeClock) -> None:
    models = {1: MODELS["xl430-w250"], 2: XL330, 3: MODELS["xm430-w350"]}
    chain = VirtualDynamixelBus(VirtualDynamixel(model, i) for i, model in models.items())
    chain.servos[2].sense("present_current", 500)
    chain.servos[3].sense("present_current", 100)
    bus = DynamixelBus(LoopbackPort(chain), clock, models)
    block = bus.block(("present_position", "present_current"), IDS)
    current = bus.reader(IDS).read(block, BUDGET_S).reading("present_current", clock.now_ns())
    assert current.valid.tolist() == [False, True, True]
    np.testing.assert_allclose(current.value, [np.nan, 0.5, 0.269])


# Feetech


def feetech_bus(
    model: str, clock: FakeClock, tamper: Callable[[bytes, bytes], bytes] = lambda _, answer: answer
) -> tuple[FeetechBus, VirtualFeetechBus]:
    chain = VirtualFeetechBus(VirtualFeetech(FEETECH[model], servo_id) for servo_id in IDS)
    bus = FeetechBus(TamperedPort(chain, tamper), clock, dict.fromkeys(IDS, FEETECH[model]))
    return bus, chain


@pytest.mark.parametrize("model", FEETECH)
def test_feetech_servos_say_who_they_are(model: str, clock: FakeClock) -> None:
    bus, chain = feetech_bus(model, clock)
    pong = bus.ping(2)
    assert pong
    assert pong.model_number == FEETECH[model].number
    assert bus.ping(9) is None
    del chain.servos[1]
    assert [*bus.scan()] == [2, 3]


@pytest.mark.parametrize("model", FEETECH)
def test_feetech_goals_and_positions(model: str, clock: FakeClock) -> None:
    """SCS servos know no sync read: they are asked one by one."""
    bus, chain = feetech_bus(model, clock)
    bus.sync_write("goal_position", IDS, [500, 600, 700])
    assert bus.sync_read("goal_position", IDS).raw.tolist() == [500, 600, 700]
    bus.write(2, "torque_enable", 1)
    assert bus.read(2, "torque_enable") == 1
    del chain.servos[2]
    found = bus.sync_read("goal_position", IDS)
    assert found.raw.tolist() == [500, NO_RAW, 700]
    with pytest.raises(BusError, match="servo 2: no answer to read lock within 20 ms"):
        bus.read(2, "lock")


@pytest.mark.parametrize("model", FEETECH)
def test_an_adapter_that_echoes(model: str, clock: FakeClock) -> None:
    """The echo of a read of two bytes has the size of its answer and would be one."""
    bus, _ = feetech_bus(model, clock, lambda request, answer: request + answer)
    assert bus.read(2, "present_position") == FEETECH[model].items["goal_position"].initial
    centre = bus.read(1, "present_position")
    assert bus.sync_read("present_position", IDS).raw.tolist() == [centre] * 3
    assert not bus.sync_read("present_position", IDS).error.any()


def test_a_negative_feetech_value(clock: FakeClock) -> None:
    bus, chain = feetech_bus("sts3215", clock)
    chain.servos[1]._set("present_velocity", -300)
    chain.servos[1]._stale = False
    assert bus.sync_read("present_velocity", IDS).raw.tolist() == [-300, 0, 0]


def test_a_feetech_alarm_comes_with_the_value(clock: FakeClock) -> None:
    bus, chain = feetech_bus("sts3215", clock)
    chain.servos[3].overload()
    found = bus.sync_read("present_position", IDS)
    assert found.valid.all()
    assert found.error.tolist() == [0, 0, 1 << 5]


class LaggingPort(LoopbackPort):
    """Hands out each answer only `lag` requests later, as a stalled adapter may."""

    def __init__(self, chain: VirtualBus[Any], lag: int) -> None:
        super().__init__(chain)
        self._waiting = [b""] * lag

    def write(self, data: bytes) -> None:
        self._waiting.append(self.bus.respond(data))
        self._received += self._waiting.pop(0)


@pytest.mark.parametrize("lag", range(1, 8))
@pytest.mark.parametrize("turns", [(0,), (0, 1), (0, 1, 2), (0, 0, 1, 0, 2), (0, 3, 1, 2)])
def test_a_late_answer_to_a_reading_of_another_block_is_not_taken_for_this_one(
    lag: int, turns: tuple[int, ...]
) -> None:
    names = ("present_position", "torque_enable", "bus_watchdog", "present_temperature")
    for servo_id, servo in (chain := chain_of()).servos.items():
        servo.rest_at(3000 + servo_id)
        servo._set("torque_enable", 1)
        servo._set("bus_watchdog", 25)
        servo.sense("present_temperature", 40)
    right = {"torque_enable": 1, "bus_watchdog": 25, "present_temperature": 40}
    bus = DynamixelBus(LaggingPort(chain, lag), FakeClock(), dict.fromkeys(IDS, XL330))
    readers = [bus.reader(IDS), bus.reader(IDS)]
    blocks = [bus.block((names[0], name) if name == names[3] else (name,), IDS)
              for name in names]  # fmt: skip
    for k in range(60):
        turn = turns[k % len(turns)]
        found = readers[k % 2].read(blocks[turn], 0.0)
        for servo_id, raw in zip(IDS, found.raw(names[turn]).tolist(), strict=True):
            assert raw in (NO_RAW, right.get(names[turn], 3000 + servo_id))
