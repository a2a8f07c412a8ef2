"""Shows the status of a run: a table that is redrawn on a terminal, else one line per second."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from typing import Final

from runtime.config.robot_yaml import RunConfig
from runtime.control.outcome import describe_torque, not_off
from runtime.workers import WORKERS, Workers
from v2a.spans import Histogram
from v2a.terminal import LiveLines

PERIOD_S = 1.0
# A few lost frames need no warning. A camera that is too slow repeats far more than this share.
REPEATED_SHARE_MAX = 0.1
RATE_SHARE_MIN = 0.75  # of camera.fps, and of the rate that the policy's history needs
SILENT_S = 0.5  # without a tick for this long, the state on the screen may be out of date

Row = Mapping[str, float]
_QUANTILES: Final = ("p50_ms", "p99_ms", "max_ms")
_CELL: Final = 40  # two columns of stages fit on any terminal
_HEAD: Final = f"{'ms':<15}" + "".join(f"{name[:-3]:>7}" for name in _QUANTILES)


class Status:
    """Writes the status to stderr. `stages` returns a `Tracer.stage_table` for the table."""

    def __init__(self, workers: Workers, stages: Callable[[], Mapping[str, Row]]) -> None:
        self._workers = workers
        self._stages = stages
        self._start_ns = self._last_ns = workers.clock.now_ns()
        self._last = counted(workers)
        self._screen = LiveLines(err=True)
        self._warned = False
        self._slow_warned = False
        self._remarks = 0  # of the camera's remarks, so many were shown

    def show(self) -> None:
        """Draw the newest status, and warn of a camera that is too slow or has a remark."""
        self._tell_remarks()
        self._warn_of_repeated_pictures()
        self._warn_of_slow_camera()
        if not self._screen.in_place:
            self._screen.show([f"{self._seconds:6.0f} s  {line(self._workers)}"])
            return
        columns, rows = shutil.get_terminal_size()
        shown = [f"{self._seconds:6.1f} s  {state(self._workers)}", *self._table()]
        self._screen.show([each[: columns - 1] for each in shown[: rows - 1]])

    @property
    def _seconds(self) -> float:
        return (self._workers.clock.now_ns() - self._start_ns) / 1e9

    def _table(self) -> Iterator[str]:
        workers = self._workers
        yield f"{'rates':<10}{rates(self._since_last(), workers.config)}"
        missed = "  ".join(f"{cause} {n}" for cause, n in workers.control.missed_ticks.items())
        yield f"{'missed':<10}{missed}  of {workers.control.ticks} ticks"
        yield f"{'joints':<10}{joints(workers)}"
        ages = {name: age.summary_ms() for name, age in ages_of(workers).items() if age.count}
        yield from side_by_side([cell(*row) for row in {**ages, **self._stages()}.items()])

    def _since_last(self) -> dict[str, float]:
        """The rate of each counter of `counted` since the last call, in Hz."""
        now_ns, now = self._workers.clock.now_ns(), counted(self._workers)
        seconds = max((now_ns - self._last_ns) / 1e9, 1e-9)
        found = {name: (now[name] - self._last[name]) / seconds for name in now}
        self._last_ns, self._last = now_ns, now
        return found

    def _warn_of_repeated_pictures(self) -> None:
        counts = self._workers.system2.counts
        repeated, used = counts["repeated_pictures"], counts["pictures"]
        if self._warned or repeated <= REPEATED_SHARE_MAX * used:
            return
        self._warned = True
        interval_s = self._workers.bundle.manifest.cameras[0].interval_s
        self._screen.say(
            f"warning: the policy needs a picture every {interval_s:g} s and the camera is slower, "
            "so pictures are repeated (counts.system2.repeated_pictures in the summary); use a "
            f"camera with at least {1 / interval_s:g} fps"
        )

    def _tell_remarks(self) -> None:
        remarks = self._workers.camera.report.remarks[self._remarks :]
        self._remarks += len(remarks)
        for _, text in remarks:
            self._screen.say(f"warning: {text}")

    def _warn_of_slow_camera(self) -> None:
        text = None if self._slow_warned else slow_camera(self._workers)
        if text is not None:
            self._slow_warned = True
            self._screen.say(f"warning: {text}")


def slow_camera(workers: Workers) -> str | None:
    """Say how slow the camera is and what that means, None if it is fast enough."""
    config, rate_hz = workers.config.camera, workers.camera.rate_hz()
    if rate_hz is None or rate_hz >= RATE_SHARE_MIN * config.fps:
        return None
    interval_s = workers.bundle.manifest.cameras[0].interval_s
    source = workers.camera.report.facts.get("source", config.source)  # without a password
    no_condition = workers.system2.counts["conditions"] == 0
    effect = "no condition, so the robot does not move" if no_condition else "pictures are repeated"
    return (
        f"{source} delivers {rate_hz:.1f} pictures a second, camera.fps asks for "
        f"{config.fps:g}, and the policy needs one every {interval_s:g} s: {effect}; try more "
        "light, camera.pixel_format: MJPG, a smaller camera.width and height, or another camera"
    )


def line(workers: Workers) -> str:
    """Format one line: safety state, chunks so far, joint positions."""
    safety, chunks = workers.control.safety.state.value, workers.system1.counts["chunks"]
    return f"{silence(workers) or safety:<9} chunks {chunks:<5} {joints(workers)}"


def state(workers: Workers) -> str:
    """Format the safety state, and the reason for its last change.

    Names the joints that did not confirm that torque is off, in a state where it should be.
    """
    control = workers.control
    last = control.safety.changes[-1]
    unsure = not_off(control.torque) and not control.safety.torque_on
    more = f"; {describe_torque(control.torque)}" if unsure else ""
    told = f"{last.state.value.upper()}  {last.reason}{more}"
    silent = silence(workers)
    return f"{silent.upper()}  before: {told}" if silent else told


def silence(workers: Workers) -> str:
    """Say that the control process sends no ticks; empty if it does."""
    told_ns = workers.control.told_ns
    silent_s = 0.0 if told_ns is None else (workers.clock.now_ns() - told_ns) / 1e9
    return f"no tick for {silent_s:.1f} s" if silent_s > SILENT_S else ""


def joints(workers: Workers) -> str:
    """Format the newest joint positions in rad, or say for how long there was no reading."""
    found = workers.mailboxes.state.get()
    if found is None:
        return "no reading yet"
    age_s = (workers.clock.now_ns() - found.t_capture_ns) / 1e9
    if age_s > workers.config.safety.state_age_max_s:
        return f"no reading for {age_s:.1f} s"
    named = zip(workers.config.robot.joints, found.position_rad, strict=True)
    return "  ".join(f"{joint.name} {rad:+.3f}" for joint, rad in named) + " rad"


def counted(workers: Workers) -> dict[str, int]:
    """Return the counters whose rates the table shows, by worker."""
    return {
        "camera": workers.camera.counts["frames"],
        "system2": workers.system2.counts["conditions"],
        "system1": workers.system1.counts["chunks"],
        "control": workers.control.ticks,
    }


def rates(by_name: Mapping[str, float], config: RunConfig) -> str:
    """Format each worker's rate beside the highest rate that the configuration allows."""
    highest = {row.name: row.rate_hz(config) for row in WORKERS}
    return "  ".join(f"{name} {hz:.1f}/{highest[name]:g}" for name, hz in by_name.items()) + " Hz"


def ages_of(workers: Workers) -> dict[str, Histogram]:
    """Return how old the data was when it was used, by name of the age."""
    control = workers.control
    return {
        "condition_age": workers.system1.condition_age,
        "chunk_age": control.chunk_age,
        "frame_to_motor": control.frame_to_motor,
    }


def cell(name: str, row: Row) -> str:
    """Format a cell of the table: name and quantiles in ms."""
    shown = name if len(name) < 15 else f"{name[:13]}~"  # a bundle may have longer names
    return f"{shown:<15}" + "".join(f"{row[q]:>7.{2 if row[q] < 10 else 0}f}" for q in _QUANTILES)


def side_by_side(cells: list[str]) -> Iterator[str]:
    """Yield lines with the cells in two columns under heads; the left column fills first."""
    yield f"{_HEAD:<{_CELL}}{_HEAD}"
    half = (len(cells) + 1) // 2
    for left, right in zip_longest(cells[:half], cells[half:], fillvalue=""):
        yield f"{left:<{_CELL}}{right}".rstrip()
