"""`v2a run`: run a policy bundle on a robot."""

from __future__ import annotations

import math
import sys
from contextlib import nullcontext
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import click

from runtime.camera_worker import camera_of
from runtime.config.robot_yaml import RunConfig
from runtime.control.client import ControlClient
from runtime.control.notes import RobotKind
from runtime.control.outcome import describe_torque, not_off
from runtime.engines import BACKENDS, Engine, load
from runtime.fit import check_units
from runtime.host.realtime import check_core
from runtime.policy.graphs import refuse_released
from runtime.recording.messages import to_json
from runtime.recording.sinks import SinkSpec
from runtime.safety.stop_latch import refuse_if_latched, why_not_kept
from runtime.status import PERIOD_S, Status, slow_camera
from runtime.summary import as_text
from runtime.summary_model import RunSummary
from runtime.supervisor import Runtime
from runtime.web.guard import HERE
from runtime.web.start import LivePage, about_run, page_address
from runtime.workers import Workers, build_workers
from v2a.bounds import looser_than_default
from v2a.bundle import GraphSpec
from v2a.bundle_cli import load_with_bar
from v2a.clock import MonotonicClock
from v2a.config import load_yaml
from v2a.errors import CameraEnded, CameraError, EngineError, OutputLost
from v2a.option_types import FiniteRange
from v2a.output import expendable_stdout, lost
from v2a.signals import one_signal_ends_it
from v2a.spans import Tracer
from v2a.terminal import Bar


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
    check_core(config.control.core)
    if arm and not dry_run:
        refuse_if_latched(config.robot.name, str(robot_yaml))
        if why := why_not_kept():
            click.echo(f"warning: {why}", err=True)
    if web_remote and web is None:
        raise click.UsageError("--web-remote needs the live page; add --web")
    address = None if web is None else page_address(web, web_remote)
    folder = record or partial(_make_folder, config.robot.name)
    with (
        one_signal_ends_it() as ending,
        expendable_stdout() as out,
        LivePage(address, web_remote) if address else nullcontext() as page,
    ):
        workers = _workers(config, bundle, dry_run, engine)
        sinks = (_start_page(page, workers),) if page else ()
        runtime, started = Runtime(workers, folder, sinks), False
        try:
            with runtime:
                started = True
                try:
                    if arm or dry_run:
                        for loose in looser_than_default(config):
                            click.echo(f"warning: {loose}", err=True)
                        runtime.arm()
                    else:
                        control = workers.control
                        torque = control.torque_fault or describe_torque(control.torque)
                        click.echo(f"{torque}; add --arm to let the policy move it", err=True)
                    _watch(runtime, workers, seconds)
                finally:
                    ending.instead = runtime.hurry
        except CameraEnded as ended:
            if not dry_run:
                raise
            click.echo(str(ended), err=True)
            _check_camera(workers)
        finally:
            if started:
                _report(runtime.summary(), runtime.folder, as_json)
        if ending.number is not None:
            sys.exit(ending.exit_code)
        if why := lost(out):
            text = f"the summary could not be printed: {why}; {runtime.folder} has it"
            if as_json:  # a program waits for it
                raise OutputLost(text)
            click.echo(f"warning: {text}", err=True)


def _start_page(page: LivePage, workers: Workers) -> SinkSpec:
    assert isinstance(workers.control, ControlClient)  # a run's control has its own process
    return page.start(workers.control, about_run(workers))


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
    refuse_released(loaded)  # before the camera opens
    check_units(loaded.manifest)  # also of a dry run: it rehearses the real one
    camera = camera_of(config.camera, clock)
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
    _check_camera(workers)
    _check_chunks(workers)


def _check_chunks(workers: Workers) -> None:
    """Raise EngineError if the policy made chunks, and none of them could be played."""
    control = workers.control
    useless = sum(control.counts[name] for name in ("chunk_not_finite", "chunk_of_wrong_shape"))
    if useless and control.frame_to_motor.summary_ms()["n"] == 0:
        raise EngineError(
            f"the policy made no chunk that can be played: {useless} were not finite or of the "
            "wrong shape; export the policy again, and check the bundle with v2a replay"
        )


def _check_camera(workers: Workers) -> None:
    """Raise CameraError if the camera was so slow that the policy never made a condition."""
    too_slow = slow_camera(workers)
    if too_slow is not None and workers.system2.counts["conditions"] == 0:
        raise CameraError(too_slow)


def _make_folder(name: str) -> Path:
    """Make and return `runs/<name>-<n>` with the first n that no other run has taken."""
    for n in count(1):
        folder = Path("runs") / f"{name}-{n}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        break
    return folder


def _report(summary: RunSummary, folder: Path | None, as_json: bool) -> None:
    if summary.torque_fault:
        click.echo(f"warning: {summary.torque_fault}", err=True)
    elif not_off(summary.torque):
        click.echo(f"warning: {describe_torque(summary.torque)}", err=True)
    if summary.stop_latch:
        click.echo(f"warning: {summary.stop_latch}", err=True)
    if folder is not None and folder.exists():
        click.echo(f"recorded in {folder}", err=True)
    click.echo(to_json(summary) if as_json else as_text(summary))
