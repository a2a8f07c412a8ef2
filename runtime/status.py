"""What a running robot shows: one line that is rewritten on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import sys

import click

from runtime.workers import Workers

PERIOD_S = 1.0
# One lost frame is nobody's business; a camera that is too slow repeats far more than this.
REPEATED_SHARE_MAX = 0.1

_ERASE_LINE = "\r\x1b[K"


class Status:
    """The line on stderr: time, safety state, chunks so far, joints. And a warning, once."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._start_ns = workers.clock.now_ns()
        self._live = sys.stderr.isatty()
        self._warned = False

    def show(self) -> None:
        self._warn_of_repeated_pictures()
        line = self._line()
        if self._live:
            columns = shutil.get_terminal_size().columns
            click.echo(_ERASE_LINE + line[: columns - 1], err=True, nl=False)
        else:
            click.echo(line, err=True)

    def say(self, text: str) -> None:
        """A line of its own, above the status."""
        click.echo(f"{_ERASE_LINE}{text}" if self._live else text, err=True)

    def close(self) -> None:
        """Leave the last status standing."""
        if self._live:
            click.echo(err=True)

    def _line(self) -> str:
        workers = self._workers
        state = workers.mailboxes.state.get()
        where = "no reading yet"
        if state is not None:
            joints = zip(workers.config.robot.joints, state.position_rad, strict=True)
            where = "  ".join(f"{joint.name} {rad:+.3f}" for joint, rad in joints) + " rad"
        seconds = (workers.clock.now_ns() - self._start_ns) / 1e9
        safety, chunks = workers.control.safety.state.value, workers.system1.counts["chunks"]
        return f"{seconds:6.0f} s  {safety:<9} chunks {chunks:<5} {where}"

    def _warn_of_repeated_pictures(self) -> None:
        counts = self._workers.system2.counts
        repeated, used = counts["repeated_pictures"], counts["pictures"]
        if self._warned or repeated <= REPEATED_SHARE_MAX * used:
            return
        self._warned = True
        interval_s = self._workers.bundle.manifest.cameras[0].interval_s
        self.say(
            f"warning: the policy looks at pictures {interval_s:g} s apart and the camera brings "
            "fewer: pictures are repeated (counts.system2.repeated_pictures in the summary); use a "
            f"camera of at least {1 / interval_s:g} fps"
        )
