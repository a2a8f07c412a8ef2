"""Packets between the policy's process and the control process, and the socket for them.

Every packet fits one datagram of an AF_UNIX SOCK_SEQPACKET pair, so it arrives whole or not at all.
Neither side ever waits for the other, and the death of a peer shows as a hang-up. Both sides read
all packets that have arrived and keep the newest of each kind. Each beat repeats the last request
and each tick the last answer, so a lost packet costs one period and no more.

    to control     SETUP  JSON: what to run                 BEAT   heartbeat, epoch, request
                   CHUNK  joint targets
    from control   TICK   one cycle: counters, joint state  SPANS  rows of a `SpanRing`
                   NOTE   JSON: rare events
"""

from __future__ import annotations

import json
import select
import socket
import struct
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from typing import TypeVar

import numpy as np
from pydantic import BaseModel

from runtime.control.record import TickFacts
from runtime.mailbox import ChunkMsg, StateMsg

ModelT = TypeVar("ModelT", bound=BaseModel)

SETUP, BEAT, CHUNK, TICK, SPANS, NOTE = range(1, 7)
PACKET_MAX = 1 << 18  # a chunk of 256 steps and 100 joints fits, and so does any note

_BEAT = struct.Struct("=Bqqqb")
_CHUNK = struct.Struct("=Bqqqqqqqii")
_TICK = struct.Struct("=Bqqqqqqqqdqqqqq")


class Link:
    """One end of the pair. Only `wait` and `send_last` block, and both have timeouts."""

    def __init__(self, end: socket.socket) -> None:
        self.hung_up = False
        self._socket = end
        self._socket.setblocking(False)
        self._buffer = memoryview(bytearray(PACKET_MAX))

    def send(self, packet: bytes) -> bool:
        """Send a packet if the peer has room for it.

        Returns False if the peer is behind or has died; `packets` finds out which.
        """
        try:
            self._socket.send(packet)
        except OSError:
            return False
        return True

    def send_last(self, packet: bytes, timeout_s: float) -> bool:
        """Send a packet, and wait up to `timeout_s` for a peer that is behind."""
        select.select([], [self._socket], [], timeout_s)
        return self.send(packet)

    def wait(self, timeout_s: float) -> None:
        """Wait until a packet has arrived or the peer hung up, at most `timeout_s`."""
        select.select([self._socket], [], [], timeout_s)

    def packets(self) -> Iterator[bytes]:
        """The packets that have arrived, oldest first.

        Sets `hung_up` after the last packet of a peer that died.
        """
        while not self.hung_up:
            try:
                size = self._socket.recv_into(self._buffer)
            except BlockingIOError:
                return
            except ConnectionResetError:
                continue  # it died with our packets unread; its own packets are still here
            if size == 0:
                self.hung_up = True
                return
            yield bytes(self._buffer[:size])

    def close(self) -> None:
        self._socket.close()


def pack_json(kind: int, content: BaseModel) -> bytes:
    """A SETUP or a NOTE: see `runtime.control.notes`."""
    text = json.dumps(content.model_dump(mode="json"), ensure_ascii=False)
    return bytes([kind]) + text.encode(errors="replace")


def unpack_json(packet: bytes, kind: type[ModelT]) -> ModelT:
    """The model in a packet of `pack_json`."""
    return kind.model_validate(json.loads(packet[1:]))


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A sign of life: its time, the epoch, and the last request with its number."""

    t_ns: int
    epoch: int
    number: int
    verb: int  # index into `runtime.control.process.VERBS`

    def pack(self) -> bytes:
        return _BEAT.pack(BEAT, *astuple(self))

    @classmethod
    def unpack(cls, packet: bytes) -> Heartbeat:
        return cls(*_BEAT.unpack(packet)[1:])


def pack_chunk(chunk: ChunkMsg) -> bytes:
    """A CHUNK; `target_rad` float64 [K, J] in rad."""
    head = (chunk.seq, chunk.t_capture_ns, chunk.t_publish_ns, chunk.parent_seq, chunk.epoch)
    times = (chunk.step_ns, chunk.condition_age_ns)
    rows = np.ascontiguousarray(chunk.target_rad, np.float64)
    return _CHUNK.pack(CHUNK, *head, *times, *rows.shape) + rows.tobytes()


def unpack_chunk(packet: bytes) -> ChunkMsg:
    """The chunk in a packet of `pack_chunk`: `target_rad` float64 [K, J] in rad.

    Raises ValueError or struct.error if the packet is not whole.
    """
    _, seq, capture_ns, publish_ns, parent, epoch, step_ns, age_ns, rows, joints = (
        _CHUNK.unpack_from(packet)
    )
    target_rad = np.frombuffer(packet, np.float64, offset=_CHUNK.size).reshape(rows, joints)
    return ChunkMsg(seq, capture_ns, publish_ns, parent, epoch, target_rad, step_ns, age_ns)


@dataclass(frozen=True, slots=True)
class Tick:
    """One cycle of the loop: counters since the start, and the newest joint state."""

    ticks: int
    obeyed: int  # number of the last request that was obeyed
    missed: tuple[int, ...]  # the values of `ControlRecord.missed_ticks`, in their order
    facts: TickFacts
    state: StateMsg | None

    def pack(self) -> bytes:
        counters = (self.ticks, self.obeyed, *self.missed)
        facts, state = self.facts, self.state
        ages = (facts.late_ns, facts.chunk_age_ns, facts.frame_to_motor_ns, facts.seam_jump_rad)
        if state is None:
            return _TICK.pack(TICK, *counters, *ages, 0, 0, 0, 0, 0)
        head = (state.seq, state.t_capture_ns, state.t_publish_ns, state.parent_seq, state.epoch)
        angles = np.concatenate([state.position_rad, state.command_rad])
        return _TICK.pack(TICK, *counters, *ages, *head) + angles.tobytes()

    @classmethod
    def unpack(cls, packet: bytes) -> Tick:
        _, ticks, obeyed, *rest = _TICK.unpack_from(packet)
        facts, state = TickFacts(*rest[3:7]), None
        if len(packet) > _TICK.size:
            seq, capture_ns, publish_ns, parent, epoch = rest[7:]
            position_rad, command_rad = np.frombuffer(packet, offset=_TICK.size).reshape(2, -1)
            state = StateMsg(seq, capture_ns, publish_ns, parent, epoch, position_rad, command_rad)
        return cls(ticks, obeyed, tuple(rest[:3]), facts, state)
