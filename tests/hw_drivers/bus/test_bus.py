"""The bus over a loopback: what it reads, and what becomes of each fault of a real bus."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_drivers.bus.block import NO_RAW
from hw_drivers.bus.bus import Pong
from hw_drivers.bus.registers import Item, Model
from hw_drivers.dynamixel.bus import DynamixelBus
from hw_drivers.dynamixel.models import MODELS
from hw_drivers.dynamixel.packet import (
    ALERT_BIT,
    HEADER,
    StatusParser,
    make_packet,
    make_status,
    make_sync_read,
)
from hw_drivers.dynamixel.virtual_bus import VirtualDynamixelBus
from hw_drivers.dynamixel.virtual_servo import VirtualDynamixel
from hw_drivers.virtual.loopback import LoopbackPort
from v2a.clock import FakeClock
from v2a.errors import BusError

IDS = (1, 2, 3, 4, 5)
PACKET_BYTES = 15  # a status packet with four bytes of data

TamperedBus = Callable[[Callable[[bytes, bytes], bytes]], DynamixelBus]


@pytest.fixture
def chain(chain: VirtualDynamixelBus) -> VirtualDynamixelBus:
    """Every servo at another position: servo k at 2048 + k ticks."""
    for servo_id, servo in chain.servos.items():
        servo.set_present_rad(servo_id * 2 * np.pi / 4096)
    return chain


def assert_only_servo_3_is_missing(bus: DynamixelBus) -> None:
    read = bus.sync_read("present_position", IDS)
    assert read.valid.tolist() == [True, True, False, True, True]
    assert read.raw.tolist() == [2049, 2050, NO_RAW, 2052, 2053]


def test_sync_read(bus: DynamixelBus) -> None:
    read = bus.sync_read("present_position", IDS)
    assert read.raw.tolist() == [2049, 2050, 2051, 2052, 2053]
    assert read.raw.dtype == np.int64
    assert read.error.dtype == np.uint8
    assert read.valid.all()
    assert not read.error.any()


def test_sync_write_reaches_every_servo(bus: DynamixelBus, chain: VirtualDynamixelBus) -> None:
    bus.sync_write("goal_position", (5, 2), [1000, 3000])
    assert [chain.servos[i]["goal_position"] for i in IDS] == [2048, 3000, 2048, 2048, 1000]


def test_ping_and_scan(bus: DynamixelBus, chain: VirtualDynamixelBus) -> None:
    assert bus.ping(1) == Pong(1060, 46)
    assert bus.ping(99) is None
    del chain.servos[2]
    assert list(bus.scan()) == [1, 3, 4, 5]


def test_read_and_write(bus: DynamixelBus) -> None:
    bus.write(4, "goal_position", 2222)
    assert bus.read(4, "goal_position") == 2222


def test_a_new_id_is_answered_to(bus: DynamixelBus) -> None:
    bus.write(3, "id", 2 + 7)
    assert bus.ping(3) is None
    assert bus.ping(9) == Pong(1060, 46)


def test_reboot_clears_a_hardware_error(bus: DynamixelBus, chain: VirtualDynamixelBus) -> None:
    chain.servos[1].latch_hardware_error(1)
    assert bus.sync_read("present_position", IDS).error.tolist() == [ALERT_BIT, 0, 0, 0, 0]
    bus.reboot(1)
    assert not bus.sync_read("present_position", IDS).error.any()


def test_an_alert_does_not_hide_the_position(bus: DynamixelBus, chain: VirtualDynamixelBus) -> None:
    chain.servos[3].latch_hardware_error(1 << 2)
    read = bus.sync_read("present_position", IDS)
    assert read.valid.all()
    assert bus.read(3, "hardware_error_status") == 1 << 2


@pytest.mark.parametrize(
    ("name", "raw", "reason"),
    [
        ("torque_enable", 2, "data range error"),
        ("goal_position", 5000, "data limit error"),
        ("present_position", 0, "access error"),
    ],
)
def test_a_refusal_says_why(bus: DynamixelBus, name: str, raw: int, reason: str) -> None:
    with pytest.raises(BusError, match=f"servo 2: refused to write {name} = {raw}: {reason}"):
        bus.write(2, name, raw)


def test_no_answer_says_what_to_check(bus: DynamixelBus, chain: VirtualDynamixelBus) -> None:
    del chain.servos[2]
    with pytest.raises(BusError, match=r"servo 2: no answer to read led within 20 ms; check"):
        bus.read(2, "led")


def test_a_register_that_the_model_lacks(bus: DynamixelBus) -> None:
    with pytest.raises(BusError, match="xl430-w250 has no register 'present_current'"):
        bus.read(1, "present_current")


def test_models_without_a_common_register_cannot_be_read_together(clock: FakeClock) -> None:
    other = Model("other", 1, {"led": Item(66, 1)})
    bus = DynamixelBus(
        LoopbackPort(VirtualDynamixelBus([])), clock, {1: MODELS["xl430-w250"], 2: other}
    )
    with pytest.raises(BusError, match="servo 2: led is at 66"):
        bus.sync_read("led", (1, 2))


def test_different_models_share_one_sync_read(clock: FakeClock) -> None:
    models = dict(enumerate(MODELS.values(), start=1))
    chain = VirtualDynamixelBus(
        [VirtualDynamixel(model, servo_id) for servo_id, model in models.items()]
    )
    bus = DynamixelBus(LoopbackPort(chain), clock, models)
    assert bus.sync_read("present_position", tuple(models)).raw.tolist() == [2048] * len(models)


def test_a_missing_servo_leaves_the_others_valid(
    bus: DynamixelBus, chain: VirtualDynamixelBus
) -> None:
    del chain.servos[3]
    assert_only_servo_3_is_missing(bus)


def servo_3(answer: bytes, tamper: Callable[[bytes], bytes]) -> bytes:
    """`answer` with the packet of servo 3 replaced, wherever it is."""
    start = answer.find(HEADER + b"\x03")
    end = start + PACKET_BYTES
    return answer[:start] + tamper(answer[start:end]) + answer[end:] if start >= 0 else answer


def flipped(packet: bytes) -> bytes:
    return packet[:9] + bytes((packet[9] ^ 1,)) + packet[10:]


@pytest.mark.parametrize("damage", [flipped, lambda packet: packet[:6], lambda _: b""])
def test_a_damaged_answer_leaves_the_others_valid(
    tampered_bus: TamperedBus, damage: Callable[[bytes], bytes]
) -> None:
    assert_only_servo_3_is_missing(tampered_bus(lambda _, answer: servo_3(answer, damage)))


def test_who_is_missing_is_asked_again_and_nobody_else(tampered_bus: TamperedBus) -> None:
    requests: list[bytes] = []

    def once(request: bytes, answer: bytes) -> bytes:
        requests.append(request)
        return answer if len(requests) > 1 else servo_3(answer, flipped)

    read = tampered_bus(once).sync_read("present_position", IDS)
    assert read.raw.tolist() == [2049, 2050, 2051, 2052, 2053]
    assert requests == [make_sync_read(132, 4, IDS), make_sync_read(132, 4, (3,))]


def test_a_servo_that_holds_up_the_others_is_asked_last(
    bus: DynamixelBus, tampered_bus: TamperedBus
) -> None:
    """As servos do that wait for the packet of the one before them."""
    requests: list[bytes] = []

    def cut(request: bytes, answer: bytes) -> bytes:
        requests.append(request)
        start = answer.find(HEADER + b"\x03")
        return answer[:start] if start >= 0 else answer

    bus = tampered_bus(cut)
    for _ in range(5):
        assert_only_servo_3_is_missing(bus)
    assert requests[1] == make_sync_read(132, 4, (4, 5, 3))
    assert requests[-1][-7:-2] == bytes((1, 2, 4, 5, 3))  # it counts as gone
    assert requests[-2][-7:-2] == bytes((1, 2, 4, 5, 3))  # and is not asked twice in a cycle


def test_an_answer_with_an_error_number_is_not_valid(tampered_bus: TamperedBus) -> None:
    bus = tampered_bus(lambda _, answer: servo_3(answer, lambda _: make_status(3, 7)))
    assert_only_servo_3_is_missing(bus)
    assert bus.sync_read("present_position", IDS).error.tolist() == [0, 0, 7, 0, 0]


@pytest.mark.parametrize(
    "tamper",
    [
        pytest.param(lambda request, answer: request + answer, id="local echo"),
        pytest.param(lambda _, answer: b"\x00\xff\xff\xfd" + answer, id="noise"),
        pytest.param(lambda _, answer: make_status(77, 0, b"\0\0\0\0") + answer, id="other servo"),
        pytest.param(
            lambda _, answer: b"\xff\xff\xfd\x00\x01\x08\x00\x55" + answer, id="half a packet"
        ),
    ],
)
def test_what_does_not_belong_is_skipped(
    tampered_bus: TamperedBus, tamper: Callable[[bytes, bytes], bytes]
) -> None:
    read = tampered_bus(tamper).sync_read("present_position", IDS)
    assert read.raw.tolist() == [2049, 2050, 2051, 2052, 2053]


class LateAnswers(LoopbackPort):
    """Answers to one request come only when the next one is about to be made."""

    late = True

    def read(self, timeout_s: float) -> bytes:
        return b"" if self.late else super().read(timeout_s)


def test_an_answer_that_came_too_late_is_not_taken_for_the_next(
    chain: VirtualDynamixelBus, clock: FakeClock
) -> None:
    port = LateAnswers(chain)
    bus = DynamixelBus(port, clock, dict.fromkeys(IDS, MODELS["xl430-w250"]))
    assert not bus.sync_read("present_position", IDS).valid.any()
    port.late = False
    chain.servos[1].set_present_rad(0.0)
    assert bus.sync_read("present_position", IDS).raw[0] == 2048


class StalledHost(LoopbackPort):
    """The host takes the first bytes, then stands still past the deadline; the rest waits."""

    def __init__(self, chain: VirtualDynamixelBus, clock: FakeClock) -> None:
        super().__init__(chain)
        self._clock = clock

    def read(self, timeout_s: float) -> bytes:
        self._clock.advance_ns(60_000_000)
        first, self._received = self._received[:PACKET_BYTES], self._received[PACKET_BYTES:]
        return first if timeout_s > 0 else first + super().read(timeout_s)


def test_a_stalled_host_still_finds_the_answers(
    chain: VirtualDynamixelBus, clock: FakeClock
) -> None:
    bus = DynamixelBus(StalledHost(chain, clock), clock, dict.fromkeys(IDS, MODELS["xl430-w250"]))
    assert bus.sync_read("present_position", IDS).valid.all()


class SteadyNoise(LoopbackPort):
    """A wire that always has another byte to offer, one every millisecond."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(VirtualDynamixelBus([]))
        self._clock = clock

    def read(self, timeout_s: float) -> bytes:
        self._clock.advance_ns(1_000_000)
        return b"\xff"


def test_the_deadline_holds_against_steady_noise(clock: FakeClock) -> None:
    bus = DynamixelBus(SteadyNoise(clock), clock, {1: MODELS["xl430-w250"]}, timeout_s=0.02)
    assert bus.ping(1) is None
    assert clock.now_ns() <= 5 * 21_000_000  # it is tried three times, with two waits between


class LateLine(LoopbackPort):
    """A wire on which the answer to request k takes `delays_ns[k]`, then no time."""

    def __init__(self, chain: VirtualDynamixelBus, clock: FakeClock, delays_ns: list[int]) -> None:
        super().__init__(chain)
        self._clock = clock
        self._delays_ns = delays_ns
        self._coming: list[tuple[int, bytes]] = []

    def write(self, data: bytes) -> None:
        delay_ns = self._delays_ns.pop(0) if self._delays_ns else 0
        self._coming.append((self._clock.now_ns() + delay_ns, self.bus.respond(data)))
        self._coming.sort()

    def read(self, timeout_s: float) -> bytes:
        until_ns = self._clock.now_ns() + round(timeout_s * 1e9)
        due_ns = min((at_ns for at_ns, _ in self._coming), default=until_ns)
        self._clock.sleep_until_ns(min(max(due_ns, self._clock.now_ns()), until_ns))
        return self._arrived()

    def reset_input(self) -> None:
        self._arrived()

    def _arrived(self) -> bytes:
        now_ns = self._clock.now_ns()
        arrived = b"".join(data for at_ns, data in self._coming if at_ns <= now_ns)
        self._coming = [(at_ns, data) for at_ns, data in self._coming if at_ns > now_ns]
        return arrived


@given(delays_ms=st.lists(st.integers(0, 39), max_size=6))
def test_a_late_answer_is_no_other_registers(delays_ms: list[int]) -> None:
    clock = FakeClock()
    chain = VirtualDynamixelBus([VirtualDynamixel(MODELS["xl430-w250"], 1)])
    port = LateLine(chain, clock, [ms * 1_000_000 for ms in delays_ms])
    bus = DynamixelBus(port, clock, {1: MODELS["xl430-w250"]}, timeout_s=0.02)
    for name in ("operating_mode", "drive_mode", "velocity_limit", "max_position_limit"):
        with suppress(BusError):  # "no answer" is true, another value is not
            assert bus.read(1, name) == chain.servos[1][name], name


def test_a_chain_answers_requests_that_come_in_pieces(chain: VirtualDynamixelBus) -> None:
    request = bytes.fromhex("FFFFFD00 01 0300 01 194E")
    answers = [chain.respond(request[k : k + 1]) for k in range(len(request))]
    assert b"".join(answers[:-1]) == b""
    assert answers[-1] == chain.respond(request)


def test_unknown_instructions_and_malformed_ones_are_refused(chain: VirtualDynamixelBus) -> None:
    def error_of(body: bytes) -> list[int]:
        return [s.error for s in StatusParser().feed(chain.respond(make_packet(1, body)))]

    assert error_of(b"\x92\x00") == [2]  # bulk read, to one servo
    assert error_of(b"\x02\x84") == [5]  # read without a size
    assert error_of(b"\x03\x74\x00") == [5]  # write without data
    assert chain.respond(make_packet(0xFE, b"\x83\x74")) == b""
    assert chain.respond(make_packet(0xFE, b"\x05")) == b""


def test_status_return_level_silences_writes(bus: DynamixelBus) -> None:
    bus.write(1, "status_return_level", 1)
    with pytest.raises(BusError, match="no answer to write led"):
        bus.write(1, "led", 1)
    assert bus.read(1, "led") == 1
