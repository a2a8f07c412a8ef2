"""`v2a run`: run a policy bundle on a robot."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import click

from hw_drivers.camera import open_camera
from hw_drivers.robot import Robot
from runtime.dry_run import virtual_robot
from runtime.record import to_json
from runtime.robot_yaml import RunConfig
from runtime.summary import as_text
from runtime.supervisor import Runtime
from runtime.workers import Workers, build_workers
from v2a.bundle import load_bundle
from v2a.clock import MonotonicClock
from v2a.config import load_yaml
from v2a.errors import CameraEnded
from v2a.spans import Tracer

_TERMINATED = 143  # 128 + SIGTERM, as shells have it
STATUS_PERIOD_S = 1.0


@click.command()
@click.argument("robot_yaml", type=click.Path(path_type=Path))
@click.option("--bundle", required=True, type=click.Path(path_type=Path), help="Policy bundle.")
@click.option("--arm", is_flag=True, help="Let the policy move the robot.")
@click.option("--dry-run", is_flag=True, help="Move a virtual robot; opens no serial port.")
@click.option("--camera", metavar="SOURCE", help="Instead of camera.source.")
@click.option("--instruction", metavar="TEXT", help="Instead of instruction.")
@click.option("--seconds", type=click.FloatRange(min=0.0), help="End after so long.")
@click.option("--record", type=click.Path(path_type=Path), help="New folder for the recording.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on stdout.")
def run(
    robot_yaml: Path,
    bundle: Path,
    arm: bool,
    dry_run: bool,
    camera: str | None,
    instruction: str | None,
    seconds: float | None,
    record: Path | None,
    as_json: bool,
) -> None:
    """Run a policy bundle on the robot of ROBOT_YAML until Ctrl-C.

    Nothing moves without --arm: the robot is read and the policy computes, with torque off.
    """
    config = _configured(load_yaml(robot_yaml, RunConfig), camera, instruction)
    workers = _workers(config, bundle, dry_run)
    folder = record or _new_folder(config.robot.name)
    runtime = Runtime(workers, folder)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))  # so that torque goes off
    runtime.start()
    try:
        if arm or dry_run:
            runtime.arm()
        else:
            click.echo("torque is off; add --arm to let the policy move the robot", err=True)
        _watch(runtime, workers, seconds)
    except CameraEnded as ended:
        if not dry_run:
            raise
        click.echo(str(ended), err=True)
    finally:
        runtime.stop()
        _report(runtime.save_summary(), folder, as_json)


def _configured(config: RunConfig, camera: str | None, instruction: str | None) -> RunConfig:
    changed: dict[str, Any] = {}
    if camera is not None:
        changed["camera"] = config.camera.model_copy(update={"source": camera})
    if instruction is not None:
        changed["instruction"] = instruction
    return config.model_copy(update=changed)


def _workers(config: RunConfig, bundle: Path, dry_run: bool) -> Workers:
    clock = MonotonicClock()
    robot = virtual_robot(config.robot, clock) if dry_run else Robot(config.robot, clock)
    loaded = load_bundle(bundle)
    size = (config.camera.width, config.camera.height)
    camera = open_camera(config.camera.source, size, config.camera.fps, clock)
    try:
        return build_workers(loaded, robot, camera, config, clock, Tracer())
    except BaseException:
        camera.close()
        raise


def _watch(runtime: Runtime, workers: Workers, seconds: float | None) -> None:
    """Show where the joints are, once a second, until the time is over or a worker fails."""
    end_ns = None if seconds is None else workers.clock.now_ns() + round(seconds * 1e9)
    while end_ns is None or workers.clock.now_ns() < end_ns:
        left_s = STATUS_PERIOD_S
        if end_ns is not None:
            left_s = min(left_s, max(end_ns - workers.clock.now_ns(), 0) / 1e9)
        runtime.wait(left_s)
        click.echo(_status(workers), err=True)


def _status(workers: Workers) -> str:
    state = workers.mailboxes.state.get()
    where = "no reading yet"
    if state is not None:
        joints = zip(workers.config.robot.joints, state.position_rad, strict=True)
        where = "  ".join(f"{joint.name} {rad:+.3f}" for joint, rad in joints)
    return f"{workers.control.safety.state.value:<9} {where} rad"


def _new_folder(name: str) -> Path:
    """`runs/<name>-<n>` with the first n that is free."""
    n = 1
    while (folder := Path("runs") / f"{name}-{n}").exists():
        n += 1
    return folder


def _report(summary: dict[str, Any], folder: Path, as_json: bool) -> None:
    click.echo(f"recorded in {folder}", err=True)
    if as_json:
        click.echo(to_json(summary))
    else:
        click.echo(as_text(summary))
