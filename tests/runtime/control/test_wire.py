"""Packets survive the way; the link never waits, and tells of a peer that died."""

from __future__ import annotations

import math
import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from hw_drivers.bus.block import Reading
from hw_drivers.robot.robot import Health
from runtime.control.notes import LimitsRow, Note, Setup
from runtime.control.process import CHANGES_MAX, SPANS_MAX, ControlServer
from runtime.control.record import ControlRecord, TickFacts
from runtime.control.wire import (
    BEAT,
    CHUNK,
    NOTE,
    PACKET_MAX,
    SETUP,
    SPANS,
    TICK,
    Heartbeat,
    Link,
    Tick,
    pack_chunk,
    pack_json,
    unpack_chunk,
    unpack_json,
)
from runtime.fit import check_fit
from runtime.host.run_delay import ThreadTimes
from runtime.mailbox import ChunkMsg, Mailboxes, StateMsg, Vector
from runtime.safety.health import QUANTITIES, HealthRow
from runtime.safety.safety import REASON_MAX, Change, SafetyRecord, State
from tests.runtime.conftest import manifest, run_config
from v2a.clock import FakeClock
from v2a.spans import SpanRing

whole = st.integers(-(2**63), 2**63 - 1)
rows = arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=20))
weird = st.floats()


@given(st.tuples(whole, whole, whole, whole, whole), rows, whole, whole)
def test_a_chunk_arrives_as_it_was(
    head: tuple[int, int, int, int, int], target: Vector, a: int, b: int
) -> None:
    sent = ChunkMsg(*head, target, a, b)
    packet = pack_chunk(sent)
    found = unpack_chunk(packet)
    assert packet[0] == CHUNK
    np.testing.assert_array_equal(found.target_rad, target)
    assert (found.seq, found.t_capture_ns, found.t_publish_ns) == head[:3]
    assert (found.parent_seq, found.epoch, found.step_ns, found.condition_age_ns) == (
        *head[3:],
        a,
        b,
    )


@given(st.lists(whole, min_size=13, max_size=13), st.tuples(weird, weird, weird), weird)
def test_a_tick_arrives_as_it_was(n: list[int], angles: tuple[float, ...], jump: float) -> None:
    position, command = np.array(angles), -np.array(angles)
    facts = TickFacts(n[0], n[1], n[2], jump)
    state = StateMsg(n[8], n[9], n[10], n[11], n[12], position, command)
    packet = Tick(n[3], n[4], tuple(n[5:8]), facts, state).pack()
    found = Tick.unpack(packet)
    assert packet[0] == TICK
    assert (found.ticks, found.obeyed, found.missed) == (n[3], n[4], tuple(n[5:8]))
    assert found.facts == facts or math.isnan(jump)
    assert found.state is not None
    np.testing.assert_array_equal(found.state.position_rad, position)
    np.testing.assert_array_equal(found.state.command_rad, command)
    assert (found.state.seq, found.state.epoch) == (n[8], n[12])


def test_a_tick_without_a_reading_has_no_state() -> None:
    assert Tick.unpack(Tick(1, 2, (3, 4, 5), TickFacts(), None).pack()).state is None


@given(whole, whole, whole, st.integers(0, 2))
def test_a_beat_arrives_as_it_was(t_ns: int, epoch: int, number: int, verb: int) -> None:
    beat = Heartbeat(t_ns, epoch, number, verb)
    assert beat.pack()[0] == BEAT
    assert Heartbeat.unpack(beat.pack()) == beat


@pytest.fixture
def links() -> Iterator[tuple[Link, Link]]:
    pair = [Link(end) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)]
    yield pair[0], pair[1]
    for link in pair:
        link.close()


def test_a_reader_that_sleeps_does_not_stop_the_writer_and_then_finds_whole_packets(
    links: tuple[Link, Link],
) -> None:
    ours, theirs = links
    sent = 0
    while ours.send(bytes([NOTE]) + bytes(1000)):
        sent += 1
    assert not ours.hung_up
    assert sent > 20
    found = list(theirs.packets())
    assert [len(packet) for packet in found] == [1001] * sent
    assert ours.send(b"again")


def test_a_peer_that_dies_is_noticed_after_its_last_word(links: tuple[Link, Link]) -> None:
    ours, theirs = links
    ours.send(b"never read")
    theirs.send(pack_json(NOTE, Note(text="last words")))
    theirs.close()
    assert not ours.send(b"into the void")
    assert [unpack_json(packet, Note).text for packet in ours.packets()] == ["last words"]
    assert ours.hung_up


def test_the_largest_chunk_fits(links: tuple[Link, Link]) -> None:
    ours, theirs = links
    rows = np.zeros((256, 60))
    packet = pack_chunk(ChunkMsg(1, 2, 3, 4, 5, rows, 6, 7))
    assert len(packet) < PACKET_MAX
    assert ours.send(packet)
    assert [unpack_chunk(p).target_rad.shape for p in theirs.packets()] == [rows.shape]


def test_a_setup_arrives_as_it_was() -> None:
    config = run_config()
    limits = check_fit(config, manifest())
    sent = Setup(version="1", robot="virtual", limits=LimitsRow.of(limits), config=config)
    found = unpack_json(pack_json(SETUP, sent), Setup)
    assert found == sent
    np.testing.assert_array_equal(found.limits.limits().upper_rad, limits.upper_rad)
    assert found.limits.limits().names == limits.names


@given(st.lists(st.tuples(whole, st.sampled_from(State), st.text())), st.lists(weird, min_size=1))
def test_a_note_arrives_as_it_was(
    changes: list[tuple[int, State, str]], volts: list[float]
) -> None:
    voltage = Reading(np.array(volts), ~np.isnan(volts), np.arange(len(volts)))
    health = Health(5, voltage, None, None, tuple("" for _ in volts))
    sent = Note(changes=tuple(changes), health=HealthRow.of(health), thread=ThreadTimes(cpu_s=1.5))
    found = unpack_json(pack_json(NOTE, sent), Note)
    assert (found.changes, found.thread) == (sent.changes, sent.thread)
    assert found.health is not None
    back = found.health.health().voltage_v
    assert back is not None
    np.testing.assert_array_equal(back.value, voltage.value)
    np.testing.assert_array_equal(back.valid, voltage.valid)
    np.testing.assert_array_equal(back.age_ns, voltage.age_ns)


@pytest.mark.parametrize("text", ["a", "\x00", "\u20ac", "\U0001f916", "\ud800", '"'])
def test_the_fullest_note_fits_the_link(text: str) -> None:
    """Every part of a note that others fill is full: 253 servos, and reasons without an end."""
    control = full_control(text * 10_000)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        link, server = Link(ours), server_of(control, Link(theirs))
        server.tick(10**9, 0)
        kinds = [packet[0] for packet in link.packets()]
    assert kinds == [NOTE, TICK, SPANS]


def test_a_note_that_cannot_be_sent_keeps_no_tick_back(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        link, end = Link(ours), Link(theirs)
        whole_send = end.send
        monkeypatch.setattr(end, "send", lambda p: p[0] != NOTE and whole_send(p))
        server = server_of(full_control("a"), end)
        for k in range(5):
            server.tick(10**9 + k * 20_000_000, 0)
        assert [packet[0] for packet in link.packets()].count(TICK) == 5


def test_many_changes_come_in_several_notes_and_none_is_lost() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        link, server = Link(ours), server_of(full_control("why"), Link(theirs))
        told: list[tuple[int, State, str]] = []
        for k in range(110):
            server.tick(10**9 + k * 20_000_000, 0)
            for packet in link.packets():
                if packet[0] == NOTE:
                    note = unpack_json(packet, Note)
                    assert len(note.changes) <= CHANGES_MAX
                    told += note.changes
    assert [t_ns for t_ns, _, _ in told] == list(range(1, 1000))


def full_control(text: str) -> Any:
    """Stands for a `Control` whose record is as large as it can become."""
    safety = SafetyRecord()
    for k in range(1000):
        safety.counts.add(f"{k}{text}")
        state = State.ARMED if k % 2 else State.HOLD
        safety.changes.append(Change(k, state, text[:REASON_MAX]))
    number = np.full(253, -1.2345678901234567e-123)
    reading = Reading(number, np.ones(253, bool), np.full(253, 2**62))
    record: Any = ControlRecord(safety)
    record.period_ns, record.missed, record.close = 20_000_000, None, None
    record.health = Health(0, alarms=(text,) * 253, **dict.fromkeys(QUANTITIES, reading))
    record.torque_fault, record.page = text, None
    record.tick = lambda now_ns, late_ns: None
    record.facts = TickFacts()
    return record


def server_of(control: Any, link: Link) -> ControlServer:
    ring = SpanRing(SPANS_MAX)
    for k in range(SPANS_MAX):
        ring.add(0, k, k, k)
    server = ControlServer(control, link, Mailboxes(), FakeClock(), ring, lambda: None)
    server._told_change = control.safety.changes[0]
    return server
