"""`v2a run`: run a policy bundle on a robot."""

from __future__ import annotations

import math
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click

from hw_drivers.cameras.camera import open_camera
from runtime.config.robot_yaml import RunConfig
from runtime.control.notes import RobotKind
from runtime.engines import BACKENDS, Engine, load
from runtime.fit import check_units
from runtime.recording.messages import to_json
from runtime.status import PERIOD_S, Status
from runtime.summary import as_text
from runtime.summary_model import RunSummary
from runtime.supervisor import Runtime
from runtime.web.guard import HERE
from runtime.web.start import page_address, web_sink, with_button
from runtime.workers import Workers, build_workers
from v2a.bounds import looser_than_default
from v2a.bundle import GraphSpec
from v2a.bundle_cli import load_with_bar
from v2a.clock import MonotonicClock
from v2a.config import load_yaml
from v2a.errors import CameraEnded
from v2a.option_types import FiniteRange
from v2a.spans import Tracer
from v2a.terminal import Bar

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command()
@click.argument("robot_yaml", type=click.Path(path_type=Path))
@click.option("--bundle", required=True, type=click.Path(path_type=Path), help="Policy bundle.")
@click.option("--arm", is_flag=True, help="Turn the torque on and let the policy move the robot.")
@click.option("--dry-run", is_flag=True, help="Move a virtual robot. Opens no serial port.")
@click.option("--camera", metavar="SOURCE", help="Replaces camera.source, e.g. file:clip.mp4.")
@click.option("--instruction", metavar="TEXT", help="Replaces instruction.")
@click.option(
    "--engine",
    type=click.Choice(list(BACKENDS)),
    default="ort",
    show_default=True,
    help="Engine back end; trt and rtx need `v2a build` first.",
)
@click.option(
    "--require-rt", is_flag=True, help="Refuse to run without real-time priority and locked memory."
)
@click.option("--seconds", type=FiniteRange(min=0.0), help="End the run after this time.")
@click.option(
    "--record",
    type=click.Path(path_type=Path),
    help="New folder for the recording.  [default: runs/NAME-1, -2, ...]",
)
@click.option(
    "--web", metavar="[HOST:PORT]", is_flag=False, flag_value=HERE,
    help=f"Serve the live page.  [default address: {HERE}]",
)  # fmt: skip
@click.option(
    "--web-remote",
    is_flag=True,
    help="Let other machines open the live page, with the token that the run prints.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on stdout.")
def run(
    robot_yaml: Path,
    bundle: Path,
    arm: bool,
    dry_run: bool,
    camera: str | None,
    instruction: str | None,
    engine: str,
    require_rt: bool,
    seconds: float | None,
    record: Path | None,
    web: str | None,
    web_remote: bool,
    as_json: bool,
) -> None:
    """Run a policy bundle on the robot of ROBOT_YAML until Ctrl-C.

    Without --arm nothing moves: the run reads the robot and the policy computes, with torque off.
    At every end the torque goes off first, and the recording is kept.

    \b
    Without a robot:   v2a run robot.yaml --bundle DIR --dry-run --camera file:clip.mp4
    With torque off:   v2a run robot.yaml --bundle DIR
    In motion:         v2a run robot.yaml --bundle DIR --arm
    """
    config = _configured(load_yaml(robot_yaml, RunConfig), camera, instruction, require_rt)
    if web_remote and web is None:
        raise click.UsageError("--web-remote needs the live page; add --web")
    page = None if web is None else page_address(web, web_remote)
    folder = record or _new_folder(config.robot.name)
    with _one_signal_ends_it(), with_button(config) if page else nullcontext(config) as config:
        workers = _workers(config, bundle, dry_run, engine)
        sinks = (web_sink(page, web_remote, workers),) if page else ()
        runtime, started = Runtime(workers, folder, sinks), False
        try:
            with runtime:
                started = True
                if arm or dry_run:
                    for loose in looser_than_default(config):
                        click.echo(f"warning: {loose}", err=True)
                    runtime.arm()
                else:
                    click.echo("torque is off; add --arm to let the policy move it", err=True)
                _watch(runtime, workers, seconds)
        except CameraEnded as ended:
            if not dry_run:
                raise
            click.echo(str(ended), err=True)
        finally:
            if started:
                _report(runtime.summary(), folder, as_json)


@contextmanager
def _one_signal_ends_it() -> Iterator[None]:
    """End the run at the first signal, which may be the hang-up of a closing terminal.

    Later signals are ignored, because they could interrupt the torque-off.
    """

    def end(number: int, _frame: object) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        sys.exit(128 + number)  # the convention of shells

    # A signal that is already ignored stays ignored: nohup relies on that.
    heard = [each for each in _SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
    before = {each: signal.signal(each, end) for each in heard}
    try:
        yield
    finally:
        for each, handler in before.items():
            if signal.getsignal(each) is end:  # no signal came: the process goes on
                signal.signal(each, handler)


def _configured(
    config: RunConfig, camera: str | None, instruction: str | None, require_rt: bool
) -> RunConfig:
    changed: dict[str, Any] = {}
    if require_rt:
        changed["control"] = config.control.model_copy(update={"require_rt": True})
    if camera is not None:
        changed["camera"] = config.camera.model_copy(update={"source": camera})
    if instruction is not None:
        changed["instruction"] = instruction
    return config.model_copy(update=changed)


def _workers(config: RunConfig, bundle: Path, dry_run: bool, engine: str) -> Workers:
    clock = MonotonicClock()
    robot: RobotKind = "virtual" if dry_run else "real"
    loaded = load_with_bar(bundle)
    check_units(loaded.manifest)  # also of a dry run: it rehearses the real one
    size = (config.camera.width, config.camera.height)
    camera = open_camera(config.camera.source, size, config.camera.fps, clock)
    try:
        with Bar("loading engines", len(loaded.manifest.graphs)) as bar:

            def engines(graph: GraphSpec, path: Path) -> Engine:
                bar.begin(graph.name)
                made = load(graph, path, backend=engine)
                bar.done()
                return made

            return build_workers(loaded, robot, camera, config, clock, Tracer(), engines)
    except BaseException:
        camera.close()
        raise


def _watch(runtime: Runtime, workers: Workers, seconds: float | None) -> None:
    """Show the status until the time is over. Raises the error of a worker that fails."""
    end_s = math.inf if seconds is None else workers.clock.now_ns() / 1e9 + seconds
    status = Status(workers, runtime.stages)
    while (left_s := end_s - workers.clock.now_ns() / 1e9) > 0:
        runtime.wait(min(left_s, PERIOD_S))
        status.show()


def _new_folder(name: str) -> Path:
    """Return `runs/<name>-<n>` with the first n that does not exist yet."""
    n = 1
    while (folder := Path("runs") / f"{name}-{n}").exists():
        n += 1
    return folder


def _report(summary: RunSummary, folder: Path, as_json: bool) -> None:
    if summary.torque_fault:
        click.echo(f"warning: {summary.torque_fault}; cut the motors' power", err=True)
    click.echo(f"recorded in {folder}", err=True)
    click.echo(to_json(summary) if as_json else as_text(summary))
