"""Writes a recording as a Perfetto trace, for ui.perfetto.dev or Perfetto's trace processor.

Each thread is a track, and each stage a slice on it. One kind of arrow leads from a picture through
System 1 and its chunk to the tick and the bus write that first played it. Another leads from a
picture through System 2 to its condition, and on to the chunks that used it. The ages are counters,
in ms.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import click
import numpy as np
import numpy.typing as npt

from runtime.convert.flows import Key, flows, key_of
from runtime.mailbox import ChunkMsg
from runtime.recording.reader import Recording
from runtime.span_ages import ages_of_spans
from v2a.files import new_folder, replacing
from v2a.spans import GPU

if TYPE_CHECKING:
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TracePacket
    from perfetto.trace_builder.proto_builder import StreamingTraceProtoBuilder

# In the order of the data flow. Slices that begin at the same instant (in lockstep, most do) keep
# this order in the trace.
THREADS: Final = ("main", "camera", "system2", "system1", "control")
PROCESS: Final = 1  # process id in the trace; the recording does not have the real one
SEQUENCE: Final = 1
SLICES_MAX: Final = 400_000  # a trace of about 40 MB, which the UI opens in seconds
REALTIME, MONOTONIC = 1, 3  # protos/perfetto/common/builtin_clock.proto


class Slice(NamedTuple):
    """A span, with the name of its stage and the flows that lead through it."""

    name: str
    t0_ns: int
    t1_ns: int
    seq: int = 0
    flows: tuple[int, ...] = ()


class Age(NamedTuple):
    """How old the data was at one time."""

    name: str
    t_ns: int
    age_ns: int


FILE: Final = "run.perfetto-trace"


def export(recordings: Sequence[Recording], folder: Path) -> None:
    """Write `run.perfetto-trace` of the only one of `recordings` into the new `folder`.

    Raises ConfigError if the folder exists or the disk refuses.
    """
    (recording,) = recordings
    with new_folder(folder, "export") as beside:
        write_trace(recording, beside / FILE)


def write_trace(recording: Recording, path: Path) -> None:
    """Write `path` (`.perfetto-trace`), over an existing file. Times are of CLOCK_MONOTONIC."""
    # Here: it takes 50 ms to import.
    from perfetto.trace_builder.proto_builder import StreamingTraceProtoBuilder

    header = recording.header
    chunks = {chunk.seq: chunk for chunk in recording.chunks()}
    through = flows(chunks.values(), recording.conditions(), header.rates)
    spans = _first_spans(recording)
    threads = {
        name: _slices(name, spans[name], header.stages, through, chunks)
        for name in sorted(spans, key=_place)
    }
    with replacing(path) as beside, beside.open("wb") as file:
        dry = " (dry run)" if header.dry_run else ""
        writer = _Writer(StreamingTraceProtoBuilder(file), f"v2a {header.policy}{dry}")
        writer.clocks(header.start_ns, header.log_ns(header.start_ns))
        for name, slices in threads.items():
            # A capture overlaps with the thread's work on the picture before.
            writer.track("capture", [s for s in slices if s.name == "capture"])
            writer.thread(name, [s for s in slices if s.name != "capture"])
        end_ns = max((s.t1_ns for slices in threads.values() for s in slices), default=0)
        writer.track("safety", _safety(recording, end_ns))
        writer.counters(_ages(spans.get("control"), chunks))


def _first_spans(recording: Recording) -> dict[str, npt.NDArray[np.int64]]:
    """The spans of the recording, of its first part only if there are more than `SLICES_MAX`."""
    spans = recording.spans()
    starts_ns = np.sort(
        np.concatenate([rows[:, 1] for rows in spans.values()] or [np.zeros(0, np.int64)])
    )
    if len(starts_ns) <= SLICES_MAX:
        return spans
    end_ns = int(starts_ns[SLICES_MAX])
    covered_s, all_s = ((t_ns - recording.t0_ns) / 1e9 for t_ns in (end_ns, starts_ns[-1]))
    click.echo(f"the trace covers the first {covered_s:.0f} of {all_s:.0f} s", err=True)
    return {name: rows[rows[:, 1] < end_ns] for name, rows in spans.items()}


def _place(thread: str) -> tuple[int, str]:
    return (THREADS.index(thread) if thread in THREADS else len(THREADS), thread)


def _slices(
    thread: str,
    rows: npt.NDArray[np.int64],
    stages: Sequence[str],
    through: dict[Key, list[int]],
    chunks: Mapping[int, ChunkMsg],
) -> list[Slice]:
    """The slices of a thread. Only the first slice of a flow's key gets the flow.

    Many ticks play one chunk, and the arrow leads to the first. `rows` is int64 [n, 4].
    """
    found = []
    for stage, t0_ns, t1_ns, seq in rows[rows[:, 1].argsort(kind="stable")].tolist():
        name = stages[stage]
        key = key_of(thread, name, seq)
        numbers = () if thread.startswith(GPU) else through.pop(key, ())
        if name == "tick" and numbers and t0_ns < chunks[seq].t_publish_ns:
            numbers = ()  # the chunk arrived after the tick began: no arrow leads back in time
        found.append(Slice(name, t0_ns, t1_ns, seq, tuple(numbers)))
    return found


def _safety(recording: Recording, end_ns: int) -> list[Slice]:
    """One slice per safety state, which lasts until the next state."""
    changes = recording.safety()
    ends_ns = [change.t_ns for change in changes[1:]] + [end_ns]
    return [
        Slice(f"{change.state}: {change.reason}", change.t_ns, max(t_ns, change.t_ns))
        for change, t_ns in zip(changes, ends_ns, strict=False)
    ]


def _ages(control: npt.NDArray[np.int64] | None, chunks: Mapping[int, ChunkMsg]) -> Iterator[Age]:
    """The ages as System 1 and the control loop measure them. `control` is int64 [n, 4]."""
    for chunk in chunks.values():
        yield Age("condition_age", chunk.t_publish_ns, chunk.condition_age_ns)
    if control is not None:
        for name, found in ages_of_spans(control, chunks).items():
            yield from (Age(name, t_ns, age_ns) for t_ns, age_ns in found.tolist())


def in_order(slices: Iterable[Slice]) -> list[Slice]:
    """Sorted by their start; of two with the same start, the longer first."""
    return sorted(slices, key=lambda one: (one.t0_ns, -one.t1_ns))


def lanes(slices: Iterable[Slice]) -> list[list[Slice]]:
    """Few rows of slices; any two slices of a row are nested or apart, as Perfetto demands."""
    found: list[tuple[list[Slice], list[int]]] = []
    for one in in_order(slices):
        lane = next((lane for lane in found if _fits(one, lane[1])), None)
        if lane is None:
            lane = ([], [])
            found.append(lane)
        lane[0].append(one)
        lane[1].append(one.t1_ns)
    return [lane for lane, _ in found]


def _fits(one: Slice, ends_ns: list[int]) -> bool:
    """Whether `one` lies inside the last open slice. Removes slices that ended before it."""
    while ends_ns and ends_ns[-1] <= one.t0_ns:
        ends_ns.pop()
    return not ends_ns or one.t1_ns <= ends_ns[-1]


class _Writer:
    """Writes Perfetto's track events (protos/perfetto/trace/track_event), one per packet."""

    def __init__(self, trace: StreamingTraceProtoBuilder, process: str) -> None:
        self._trace = trace
        self._uuid = 0
        packet = self._described()
        packet.track_descriptor.process.pid = PROCESS
        packet.track_descriptor.process.process_name = process
        self._trace.write_packet(packet)

    def clocks(self, monotonic_ns: int, utc_ns: int) -> None:
        """Write that all times are of CLOCK_MONOTONIC, and one moment on both clocks."""
        packet = self._trace.create_packet()
        packet.trusted_packet_sequence_id = SEQUENCE
        snapshot = packet.clock_snapshot
        snapshot.primary_trace_clock = MONOTONIC
        for clock_id, t_ns in ((MONOTONIC, monotonic_ns), (REALTIME, utc_ns)):
            snapshot.clocks.add(clock_id=clock_id, timestamp=t_ns)
        self._trace.write_packet(packet)

    def thread(self, name: str, slices: Iterable[Slice]) -> None:
        """Write a thread's track."""
        packet = self._described()
        thread = packet.track_descriptor.thread
        thread.pid, thread.tid, thread.thread_name = PROCESS, PROCESS + self._uuid, name
        self._trace.write_packet(packet)
        self._play(slices)

    def track(self, name: str, slices: Iterable[Slice]) -> None:
        """Write a track without a thread. Overlapping slices go to several tracks of one name."""
        for lane in lanes(slices):
            packet = self._described()
            packet.track_descriptor.name = name
            self._trace.write_packet(packet)
            self._play(lane)

    def counters(self, ages: Iterable[Age]) -> None:
        """Write one counter track per age, in ms."""
        uuids: dict[str, int] = {}
        for age in ages:
            if age.name not in uuids:
                packet = self._described()
                packet.track_descriptor.name = age.name
                packet.track_descriptor.counter.unit_name = "ms"
                self._trace.write_packet(packet)
                uuids[age.name] = self._uuid
            packet = self._event(age.t_ns, uuids[age.name])
            packet.track_event.type = packet.track_event.TYPE_COUNTER
            packet.track_event.double_counter_value = age.age_ns / 1e6
            self._trace.write_packet(packet)

    def _play(self, slices: Iterable[Slice]) -> None:
        """Write slices to the newest track; any two of them must be nested or apart."""
        ends_ns: list[int] = []
        for one in in_order(slices):
            while ends_ns and ends_ns[-1] <= one.t0_ns:
                self._end(ends_ns.pop())
            self._begin(one)
            ends_ns.append(one.t1_ns)
        for end_ns in reversed(ends_ns):
            self._end(end_ns)

    def _begin(self, one: Slice) -> None:
        packet = self._event(one.t0_ns, self._uuid)
        event = packet.track_event
        event.type = event.TYPE_SLICE_BEGIN
        event.name = one.name
        event.flow_ids.extend(one.flows)
        if one.seq:
            seq = event.debug_annotations.add()
            seq.name, seq.int_value = "seq", one.seq
        self._trace.write_packet(packet)

    def _end(self, t_ns: int) -> None:
        packet = self._event(t_ns, self._uuid)
        packet.track_event.type = packet.track_event.TYPE_SLICE_END
        self._trace.write_packet(packet)

    def _event(self, t_ns: int, uuid: int) -> TracePacket:
        packet = self._trace.create_packet()
        packet.timestamp = t_ns
        packet.timestamp_clock_id = MONOTONIC
        packet.trusted_packet_sequence_id = SEQUENCE
        packet.track_event.track_uuid = uuid
        return packet

    def _described(self) -> TracePacket:
        """A packet that describes a new track; the first is the process, parent of the others."""
        self._uuid += 1
        packet = self._trace.create_packet()
        packet.trusted_packet_sequence_id = SEQUENCE
        packet.track_descriptor.uuid = self._uuid
        if self._uuid > 1:
            packet.track_descriptor.parent_uuid = 1
        return packet
