"""The pace of the wire, without a clock; then a whole server on a clock that jumps."""

from __future__ import annotations

import os
import select
import termios
from itertools import pairwise

import pytest
import serial
from hypothesis import given
from hypothesis import strategies as st

from hw_drivers.dynamixel.packet import make_sync_read, make_sync_write
from hw_drivers.dynamixel.virtual_bus import VirtualDynamixelBus
from hw_drivers.virtual.pty import PtyServer
from hw_drivers.virtual.wire_timing import Arrival, Reply, Unplug, Wire, gathered
from v2a.clock import FakeClock

pytestmark = pytest.mark.real_time

IDS = (1, 2, 3, 4, 5)
NS_PER_BYTE = 10_000  # 1 Mbaud

arrivals_of_replies = st.lists(
    st.tuples(st.floats(0, 1e-3), st.binary(min_size=1, max_size=80)), max_size=8
)


def test_an_answer_takes_its_delay_and_ten_bits_a_byte() -> None:
    wire = Wire()
    wire.request(now_ns=1_000, n_bytes=10, ns_per_byte=NS_PER_BYTE)
    times = [at for at, _ in wire.answer([Reply(0.0005, bytes(14), 1)] * 2, NS_PER_BYTE)]
    assert times == [1_000 + 100_000 + 640_000, 1_000 + 100_000 + 2 * 640_000]


def test_requests_queue_while_the_wire_is_busy() -> None:
    wire = Wire()
    for _ in range(3):
        wire.request(now_ns=0, n_bytes=100, ns_per_byte=NS_PER_BYTE)
    assert wire.free_ns == 3_000_000


def test_nothing_arrives_after_the_cable_came_out() -> None:
    events: list[Reply | Unplug] = [Reply(0.0, b"a", 1), Unplug(1.0), Reply(0.0, b"b", 2)]
    assert [what for _, what in Wire().answer(events, 1)] == [b"a", Unplug(1.0)]
    held = list(gathered(Wire().answer(events, 1), 1, 16_000_000))
    assert held == [(1, Unplug(1.0))]  # what the adapter held went with it


def through_adapter(replies: list[tuple[float, bytes]], period_ns: int) -> list[Arrival]:
    arrivals = Wire().answer([Reply(*reply, 1) for reply in replies], NS_PER_BYTE)
    return list(gathered(arrivals, NS_PER_BYTE, period_ns))


def test_an_adapter_as_it_is_born_holds_an_answer_for_16_ms() -> None:
    assert through_adapter([(0.0, b"answer")], 16_000_000) == [(16_000_000, b"answer")]
    assert through_adapter([(0.0, b"answer")], 1_000_000) == [(1_000_000, b"answer")]


def test_a_full_packet_does_not_wait_for_the_timer() -> None:
    times = through_adapter([(0.0, bytes(70))], 16_000_000)
    assert times == [(62 * NS_PER_BYTE, bytes(62)), (16_000_000, bytes(8))]


@given(arrivals_of_replies, st.sampled_from([1_000_000, 16_000_000]))
def test_an_adapter_loses_nothing_and_is_never_early(
    replies: list[tuple[float, bytes]], period_ns: int
) -> None:
    direct = list(Wire().answer([Reply(*reply, 1) for reply in replies], NS_PER_BYTE))
    held = through_adapter(replies, period_ns)
    sent = b"".join(data for _, data in direct if isinstance(data, bytes))
    assert b"".join(data for _, data in held if isinstance(data, bytes)) == sent
    assert all(a <= b for (a, _), (b, _) in pairwise(held))
    n = 0
    for at_ns, data in held:
        assert isinstance(data, bytes)
        n += len(data)
        last_byte_ns = next(
            end_ns - (through - n) * NS_PER_BYTE
            for (end_ns, _), through in zip(direct, _running_total(direct), strict=True)
            if through >= n
        )
        assert last_byte_ns <= at_ns <= last_byte_ns + period_ns


def _running_total(arrivals: list[Arrival]) -> list[int]:
    sizes = [len(data) for _, data in arrivals if isinstance(data, bytes)]
    return [sum(sizes[: k + 1]) for k in range(len(sizes))]


@pytest.mark.parametrize("baud", [57_600, 1_000_000, 4_000_000])
def test_a_cycle_takes_what_the_wire_takes(chain: VirtualDynamixelBus, baud: int) -> None:
    clock = FakeClock()
    server = PtyServer(chain, baud, clock=clock)
    for servo in chain.servos.values():
        assert servo.write(9, b"\x00") == 0  # no return delay
    request = make_sync_write(116, 4, dict.fromkeys(IDS, bytes(4))) + make_sync_read(132, 4, IDS)
    with serial.Serial(server.path, baud, timeout=10.0) as port:
        port.write(request)
        answer = port.read(5 * 15)
    server.close()
    wire_ns = (len(request) + len(answer)) * 10 * 1_000_000_000 / baud
    assert clock.now_ns() / wire_ns == pytest.approx(1.0, rel=1e-3)


def test_unpaced_takes_no_time_at_any_rate(chain: VirtualDynamixelBus) -> None:
    clock = FakeClock()
    server = PtyServer(chain, None, clock=clock)
    for servo in chain.servos.values():
        assert servo.write(9, b"\x00") == 0
    with serial.Serial(server.path, 123_456, timeout=10.0) as port:
        port.write(make_sync_read(132, 4, IDS))
        assert len(port.read(5 * 15)) == 5 * 15
    server.close()
    assert clock.now_ns() == 0


def test_a_terminal_hands_over_raw_bytes(pty: PtyServer) -> None:
    """A program that sets up nothing but the rate must not have its bytes cooked."""
    fd = os.open(pty.path, os.O_RDWR | os.O_NOCTTY)
    settings = termios.tcgetattr(fd)
    settings[4] = settings[5] = termios.B1000000
    termios.tcsetattr(fd, termios.TCSANOW, settings)
    os.write(fd, make_sync_read(132, 4, (1,)))
    assert select.select([fd], [], [], 10.0)[0]
    os.close(fd)
