"""Measures what a long recording costs to read, to export and to profile.

python benchmarks/long_recording.py [--minutes 45] [--only lerobot,rrd] [--keep FOLDER] [--json]

The recorder's own sinks write the recording, at the demo's rates: states at 100 Hz, pictures of
192 x 192 pixels at 20 Hz, chunks at 10 Hz, conditions at 5 Hz, and the spans of all of them. Each
command then runs in a process of its own. `share` is its time by the length of the recording,
`cpu_s` its processor time, which other programs hardly change, and `resident_mb` the largest
resident set of the process. With `--keep`, the recording stays in FOLDER,
and a later call measures it again. Exits with 1 if a limit is exceeded.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from runtime.config.robot_yaml import RunConfig
from runtime.mailbox import ChunkMsg, ConditionMsg, FrameMsg, Image, StateMsg
from runtime.recording.header import Header
from runtime.recording.messages import Spans
from runtime.recording.sinks import End, Setup, SinkGroup
from v2a.config import load_yaml
from v2a.names import Rate, stages_of

ROBOT: Final = Path(__file__).parent.parent / "demo" / "robot.yaml"
MS: Final = 1_000_000
BATCH_MS: Final = 50  # between two drains of the recorder
SIDE: Final = 192
PICTURES: Final = 200  # different ones; they repeat
NOISY, STEP = 0.1, 0.1  # the share of noisy rows, and the size of a step of brightness
# Spans of a batch: thread -> stages, and how often in 50 ms.
SPANS: Final = {
    "control": (("tick", "bus_read", "bus_write"), 5),
    "camera": (("capture", "preprocess", "publish"), 1),
    "system1": (("frame_encode", "observe", "denoise", "publish"), 0.5),
    "system2": (("vae_spatial", "vae_motion", "vdm_spatial", "condition", "publish"), 0.25),
}
RATES: Final[dict[str, Rate]] = {
    **dict.fromkeys(SPANS["system2"][0][:-1], "system2"),
    **dict(zip(SPANS["system1"][0], ("frame", "observe", "denoise"), strict=False)),
}
STAGES: Final = stages_of(RATES)
COMMANDS: Final = {
    "record_info": ("record", "info", "{run}"),
    "lerobot": ("record", "export", "{run}", "--to", "lerobot", "-o", "{out}"),
    "rrd": ("record", "export", "{run}", "--to", "rrd", "-o", "{out}"),
    "profile": ("profile", "--run", "{run}", "-o", "{out}"),
}
# The most that a command may take, by the length of the recording.
LIMITS: Final = {"record_info": 1 / 60, "lerobot": 1 / 5, "rrd": 1 / 5, "profile": 1 / 30}


def write(folder: Path, minutes: float) -> None:
    """Record `minutes` of a run into the new `folder`."""
    start_ns = 10**12
    header = Header(
        start_ns=start_ns,
        start_utc_ns=1_700_000_000 * 10**9,
        config=load_yaml(ROBOT, RunConfig),
        policy="noise",
        bundle="none",
        bundle_sha256="0" * 64,
        provenance={},
        stages=STAGES,
        rates=RATES,
        seed=0,
        versions={},
    )
    group = SinkGroup(Setup(folder, header))
    for number in range(round(minutes * 60_000 / BATCH_MS)):
        t_ns = start_ns + number * BATCH_MS * MS
        group.take(list(batch(number, t_ns, len(header.config.robot.joints))))
    group.close(End(None))


def batch(number: int, t_ns: int, joints: int) -> Iterator[object]:
    """The messages of one drain."""
    yield FrameMsg(number + 1, t_ns, t_ns + 2 * MS, 0, 0, picture(number % PICTURES), ())
    for tick in range(5):
        seq, at_ns = 5 * number + tick + 1, t_ns + 10 * tick * MS
        angles_rad = np.sin(0.003 * seq + np.arange(joints))
        yield StateMsg(seq, at_ns, at_ns + MS, 0, 0, angles_rad, angles_rad + 0.01)
    if number % 2 == 0:
        seq = number // 2 + 1
        targets_rad = np.sin(0.03 * seq + np.arange(16 * joints)).reshape(16, joints)
        ages = (80 * MS, number // 4 + 1, 5 * number + 1)
        yield ChunkMsg(seq, t_ns, t_ns + 20 * MS, number + 1, 0, targets_rad, 50 * MS, *ages)
    if number % 4 == 0:
        yield ConditionMsg(number // 4 + 1, t_ns, t_ns + 40 * MS, number + 1, 0, {}, t_ns)
    for thread, (stages, often) in SPANS.items():
        if rows := list(span_rows(stages, often, number, t_ns)):
            yield Spans(thread, np.array(rows, np.int64))


def span_rows(
    stages: tuple[str, ...], often: float, number: int, t_ns: int
) -> Iterator[tuple[int, int, int, int]]:
    if often < 1 and number % round(1 / often):
        return
    count = max(round(often), 1)
    rng = np.random.default_rng(number)
    for turn in range(count):
        at_ns = t_ns + turn * BATCH_MS * MS // count
        for stage in stages:
            took_ns = round(abs(rng.normal(1.0, 0.1)) * MS)
            yield STAGES.index(stage), at_ns, at_ns + took_ns, round(number * often) + 1
            at_ns += took_ns


@cache
def picture(number: int) -> Image:
    """A smooth picture with a camera's noise in a part of it; as PNG it has about 17 kB."""
    rng = np.random.default_rng(number)
    rows, columns = (place[..., None] / SIDE for place in np.mgrid[:SIDE, :SIDE])
    wave = np.sin(6 * rows + 5 * columns + np.arange(3) + number / 30)
    noise = rng.integers(0, 3, (SIDE, SIDE, 1)) * (rows < NOISY)
    shown: Image = (128 + 90 * np.round(wave / STEP) * STEP + noise).astype(np.uint8)
    return shown


def measured(command: str, run: Path, seconds: float) -> dict[str, Any]:
    """Run a command of v2a on the recording: its time, its memory and its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        words = [word.format(run=run, out=f"{folder}/out") for word in COMMANDS[command]]
        began_s = time.monotonic()
        null = os.open(os.devnull, os.O_WRONLY)
        process = os.posix_spawn(
            sys.executable, [sys.executable, "-m", "v2a", *words], os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, null, 1)],
        )  # fmt: skip
        os.close(null)
        _, status, usage = os.wait4(process, 0)
        took_s = time.monotonic() - began_s
    return {
        "seconds": took_s,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "share": took_s / seconds,
        "limit": LIMITS[command],
        "resident_mb": usage.ru_maxrss / 1024,
        "exit_code": os.waitstatus_to_exitcode(status),
    }


def all_measured(folder: Path, minutes: float, commands: list[str]) -> dict[str, Any]:
    run = folder / "run"
    began_s = time.monotonic()
    if not run.exists():
        run.mkdir(parents=True)
        write(run, minutes)
    wrote_s = time.monotonic() - began_s
    size_mb = sum(file.stat().st_size for file in run.glob("*.mcap")) / 1e6
    found = {name: measured(name, run, minutes * 60) for name in commands}
    ok = all(row["exit_code"] == 0 and row["share"] <= row["limit"] for row in found.values())
    return {"minutes": minutes, "mb": size_mb, "wrote_s": wrote_s, "commands": found, "ok": ok}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=45.0)
    parser.add_argument("--only", default=",".join(COMMANDS), help="commands, with commas between")
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        found = all_measured(
            folder, arguments.minutes, list(filter(None, arguments.only.split(",")))
        )
    if arguments.json:
        print(json.dumps(found))
    else:
        print(
            f"{found['minutes']:g} min, {found['mb']:.0f} MB, written in {found['wrote_s']:.0f} s"
        )
        print(f"{'':<14}{'s':>8}{'CPU s':>8}{'share':>9}{'limit':>9}{'resident MB':>13}")
        for name, row in found["commands"].items():
            times = (
                f"{row['seconds']:8.1f}{row['cpu_s']:8.1f}{row['share']:9.4f}{row['limit']:9.4f}"
            )
            print(f"{name:<14}{times}{row['resident_mb']:13.0f}")
    sys.exit(0 if found["ok"] else 1)


if __name__ == "__main__":
    main()
