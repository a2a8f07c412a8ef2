"""Makes the summary of a run, its text for a terminal, and the header of its recording."""

from __future__ import annotations

import hashlib
import platform
import resource
from collections.abc import Iterable, Mapping
from importlib import metadata

import numpy as np

from runtime.recording.header import Header
from runtime.recording.recorder import Recorder
from runtime.summary_model import (
    CpuTime,
    Dropped,
    Moment,
    RunSummary,
    Spread,
    StateChange,
    utc_text,
)
from runtime.workers import Workers
from v2a.bounds import looser_than_default
from v2a.clock import Clock
from v2a.measured import Times, times_table
from v2a.spans import COLUMNS
from v2a.terminal import wide_enough

PACKAGES = ("v2a", "numpy", "onnxruntime", "pyserial", "opencv-python-headless", "mcap")


def summarise(workers: Workers, recorder: Recorder, start: Moment) -> RunSummary:
    """Return the summary of the run since `start`, without the times of its threads."""
    control = workers.control
    end, since_ns = now(workers.clock), start.monotonic_ns
    return RunSummary(
        started_utc=utc_text(start.utc_ns),
        start=start,
        end=end,
        robot=workers.config.robot.name,
        policy=workers.bundle.manifest.policy,
        dry_run=control.dry_run,
        seconds=(end.monotonic_ns - since_ns) / 1e9,
        stages=times_table(recorder.stage_table(workers.bundle.manifest.stages)),
        gpu_stages=times_table(workers.tracer.gpu_table(workers.bundle.manifest.stages)),
        ages={
            "condition_age": Times.of(workers.system1.condition_age),
            "chunk_age": Times.of(control.chunk_age),
            "frame_to_motor": Times.of(control.frame_to_motor),
        },
        ticks=control.ticks,
        missed_ticks=dict(control.missed_ticks),
        late=Times.of(control.late),
        realtime=control.realtime,
        seam_jumps_rad=_spread(control.seam_jumps_rad),
        counts=workers.counts(),
        dropped=Dropped(
            messages_of_an_older_epoch=workers.mailboxes.dropped_stale(),
            spans=workers.tracer.dropped,
            recorded_messages=recorder.dropped,
        ),
        safety=tuple(
            # The first state is older than the run.
            StateChange(t_s=max(c.t_ns - since_ns, 0) / 1e9, state=c.state.value, reason=c.reason)
            for c in list(control.safety.changes)
        ),
        torque=dict(control.torque),
        loose_limits=tuple(looser_than_default(workers.config)),
        torque_fault=control.torque_fault,
        stop_latch=control.stop_latch,
        recording_fault=recorder.fault,
        camera=workers.camera.facts(),
        cpu=_cpu(),
        versions=versions(),
    )


def now(clock: Clock) -> Moment:
    """Return this moment on both clocks."""
    return Moment(utc_ns=clock.utc_ns(), monotonic_ns=clock.now_ns())


def describe(workers: Workers, start: Moment) -> Header:
    """Return the header of a recording of these workers, which start at `start`."""
    manifest = workers.bundle.manifest
    return Header(
        start_ns=start.monotonic_ns,
        start_utc_ns=start.utc_ns,
        dry_run=workers.control.dry_run,
        config=workers.config,
        policy=manifest.policy,
        bundle=str(workers.bundle.path),
        bundle_sha256=hashlib.sha256(manifest.model_dump_json().encode()).hexdigest(),
        provenance=manifest.provenance,
        stages=manifest.stages,
        rates={graph.name: graph.rate for graph in manifest.graphs},
        seed=workers.seed,
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed `PACKAGES`, and the machine's type."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def missed_text(missed_ticks: Mapping[str, int]) -> str:
    """The causes and numbers in a line, such as "late 1, no chunk 3"."""
    return ", ".join(f"{cause.replace('_', ' ')} {n}" for cause, n in missed_ticks.items())


def as_text(summary: RunSummary) -> str:
    """Format the summary for a terminal: a table of times, then ticks, seams and scheduling."""
    rows = {**summary.stages, **summary.ages, "late": summary.late}
    first = wide_enough(rows, 16)
    heads = "".join(f"{column.removesuffix('_ms'):>9}" for column in COLUMNS)
    lines = [f"{'stage, ms':<{first}}{heads}"]
    lines += [_row(f"{name:<{first}}", times) for name, times in rows.items() if times.n]
    if any(times.few for times in rows.values()):
        lines.append("~ too few samples for this quantile: it is about the longest")
    missed = missed_text(summary.missed_ticks)
    jumps = summary.seam_jumps_rad
    realtime = ", ".join(f"{what} {given}" for what, given in summary.realtime.items())
    lines += [
        f"{'dry run, ' if summary.dry_run else ''}"
        f"{summary.seconds:.1f} s, {summary.ticks} ticks; missed: {missed}",
        f"seams: {jumps.n}, jump p50 {jumps.p50:.4f} rad, max {jumps.max:.4f} rad"
        if jumps.n
        else "no seams: no chunk took over from another",
        f"control: {realtime or 'a thread of this process'}",
    ]
    if summary.camera:
        lines.append("camera: " + ", ".join(f"{k} {v}" for k, v in summary.camera.items()))
    return "\n".join(lines)


def _row(head: str, times: Times) -> str:
    figures = "".join(
        f"{'~' if column in times.few else ''}{getattr(times, column):.3f}".rjust(9)
        for column in COLUMNS[1:]
    )
    return f"{head}{times.n:>9d}{figures}"


def _spread(values: Iterable[float]) -> Spread:
    array = np.array(list(values) or [np.nan])
    p50, p99 = np.quantile(array, [0.5, 0.99])
    return Spread(
        n=int(np.isfinite(array).sum()),
        mean=float(array.mean()),
        p50=float(p50),
        p99=float(p99),
        max=float(array.max()),
    )


def _cpu() -> CpuTime:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return CpuTime(user_s=usage.ru_utime, system_s=usage.ru_stime)
