"""`v2a compare`: two profiles stage by stage, or the engines of two bundles in turn."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from runtime.engines import BACKENDS, load
from runtime.policy.graphs import SUPPLIED
from runtime.profile.compare import compare_profiles, comparison_as_text
from runtime.profile.files import read_profile
from runtime.profile.live import progress
from runtime.profile.options import PATH, THREADS_MAX
from runtime.profile.paired import EngineComparison, compare_engines, engine_comparison_as_text
from runtime.recording.messages import to_json
from v2a.bundle import MANIFEST, load_bundle
from v2a.clock import MonotonicClock
from v2a.errors import ConfigError, DamagedRecording


@click.command()
@click.argument("before", metavar="A", type=PATH)
@click.argument("after", metavar="B", type=PATH)
@click.option(
    "--engine",
    type=click.Choice(list(BACKENDS)),
    help="Engine back end, for two bundles; trt and rtx need `v2a build` first.  [default: ort]",
)
@click.option(
    "--threads",
    type=click.IntRange(1, THREADS_MAX),
    help="Threads of each ONNX Runtime engine, for two bundles.  [default: 1]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
def compare(
    before: Path, after: Path, engine: str | None, threads: int | None, as_json: bool
) -> None:
    """Say whether B is better or worse than A: two profiles, or two bundles.

    A profile is a folder that v2a profile wrote, or its profile.json. Of two profiles, each stage
    and age is compared. Of two bundles, each engine runs in turn with its counterpart, so machine
    drift affects both equally.

    \b
    Two profiles:   v2a compare runs/profile-1 runs/profile-2
    Two bundles:    v2a compare fp32 int8 --engine ort

    \b
    Exit codes: 0 compared, better or worse; 2 bad input, 3 bad bundle, 4 engine.
    """
    bundles = [(path / MANIFEST).is_file() for path in (before, after)]
    if any(bundles) and not all(bundles):
        bundle, other = (before, after) if bundles[0] else (after, before)
        raise ConfigError(f"{bundle} is a bundle, {other} is not; give two profiles or two bundles")
    if all(bundles):
        engines = _compare_engines(before, after, engine or "ort", threads or 1)
        click.echo(
            to_json(engines.model_dump(), 1) if as_json else engine_comparison_as_text(engines)
        )
        return
    if engine is not None or threads is not None:
        raise click.UsageError("--engine and --threads only apply to two bundles")
    profiles = [read_profile(path) for path in (before, after)]
    found = compare_profiles(*profiles)
    click.echo(to_json(found.model_dump(), 1) if as_json else comparison_as_text(found))
    for path, read in zip((before, after), profiles, strict=True):
        if read.damaged:
            raise DamagedRecording(f"{path}: {read.damaged}; the result covers only the rest")


def _compare_engines(before: Path, after: Path, backend: str, threads: int) -> EngineComparison:
    one, other = load_bundle(before), load_bundle(after)
    engines = partial(load, backend=backend, threads=threads)
    with progress("engines of both in turn", len(SUPPLIED)) as step:
        return compare_engines(one, other, engines, MonotonicClock(), lambda graph: step(1))
