"""The result of a run as one plain dict, and as text."""

from __future__ import annotations

import hashlib
import platform
import resource
from collections.abc import Iterable
from importlib import metadata
from typing import Any

import numpy as np

from runtime.recording.recorder import Recorder
from runtime.workers import Workers
from v2a.spans import COLUMNS

PACKAGES = ("v2a", "numpy", "onnxruntime", "pyserial", "opencv-python-headless", "mcap")


def summarise(workers: Workers, recorder: Recorder, since_ns: int) -> dict[str, Any]:
    """What happened since `since_ns`. Times in ms unless named otherwise, angles in rad."""
    control, system1 = workers.control, workers.system1
    ages = {
        "condition_age": system1.condition_age,
        "chunk_age": control.chunk_age,
        "frame_to_motor": control.frame_to_motor,
    }
    seconds = (workers.clock.now_ns() - since_ns) / 1e9
    return {
        "robot": workers.config.robot.name,
        "policy": workers.bundle.manifest.policy,
        "seconds": seconds,
        "stages": recorder.stage_table(),
        "gpu_stages": workers.tracer.gpu_table(),
        "ages": {name: histogram.summary_ms() for name, histogram in ages.items()},
        "ticks": control.ticks,
        "missed_ticks": dict(control.missed_ticks),
        "late": control.late.summary_ms(),
        "realtime": control.realtime,
        "seam_jumps_rad": _spread(control.seam_jumps_rad),
        "counts": workers.counts(),
        "dropped": {
            "messages_of_an_older_epoch": workers.mailboxes.dropped_stale(),
            "spans": workers.tracer.dropped,
            "recorded_messages": recorder.dropped,
        },
        "safety": [
            {"t_s": (c.t_ns - since_ns) / 1e9, "state": c.state.value, "reason": c.reason}
            for c in list(control.safety.changes)
        ],
        "torque_fault": control.torque_fault,
        "recording_fault": recorder.fault,
        "cpu": _cpu(),
        "versions": versions(),
    }


def describe(workers: Workers, start_ns: int) -> dict[str, Any]:
    """The header of a recording: what ran, from which everything that it did follows."""
    manifest = workers.bundle.manifest
    return {
        "start_ns": start_ns,
        "config": workers.config.model_dump(mode="json"),
        "policy": manifest.policy,
        "bundle": str(workers.bundle.path),
        "bundle_sha256": hashlib.sha256(manifest.model_dump_json().encode()).hexdigest(),
        "provenance": manifest.provenance,
        "seed": workers.seed,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Python and those of `PACKAGES` that are installed."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def as_text(summary: dict[str, Any]) -> str:
    """The stage table and the lines that an operator looks for."""
    rows = {**summary["stages"], **summary["ages"], "late": summary["late"]}
    lines = [f"{'stage':<16}" + "".join(f"{column:>10}" for column in COLUMNS)]
    lines += [
        f"{name:<16}" + f"{row['n']:>10d}" + "".join(f"{row[c]:>10.3f}" for c in COLUMNS[1:])
        for name, row in rows.items()
        if row["n"]
    ]
    missed = ", ".join(f"{cause} {n}" for cause, n in summary["missed_ticks"].items())
    jumps = summary["seam_jumps_rad"]
    realtime = ", ".join(f"{what} {given}" for what, given in summary["realtime"].items())
    lines += [
        f"{summary['seconds']:.1f} s, {summary['ticks']} ticks; missed: {missed}",
        f"seams: {jumps['n']}, jump p50 {jumps['p50']:.4f} rad, max {jumps['max']:.4f} rad",
        f"control: {realtime or 'a thread of this process'}",
    ]
    return "\n".join(lines)


def _spread(values: Iterable[float]) -> dict[str, float]:
    array = np.array(list(values) or [np.nan])
    p50, p99 = np.quantile(array, [0.5, 0.99])
    return {
        "n": int(np.isfinite(array).sum()),
        "mean": float(array.mean()),
        "p50": float(p50),
        "p99": float(p99),
        "max": float(array.max()),
    }


def _cpu() -> dict[str, float]:
    """CPU seconds of this process since it began."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {"user_s": usage.ru_utime, "system_s": usage.ru_stime}
