"""`v2a replay`: a recording through a bundle again."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from runtime.engines import BACKENDS, load
from runtime.recording.messages import to_json
from runtime.recording.reader import Recording
from runtime.replay.replay import Replay
from runtime.replay.script import read_script
from v2a.bundle import load_bundle
from v2a.terminal import Bar

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("run", type=_PATH)
@click.option("--bundle", required=True, type=_PATH, help="Policy bundle.")
@click.option("--against", type=_PATH, help="A second bundle of the same policy.")
@click.option(
    "--engine",
    type=click.Choice(list(BACKENDS)),
    default="ort",
    show_default=True,
    help="What computes, as in v2a run.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
def replay(run: Path, bundle: Path, against: Path | None, engine: str, as_json: bool) -> None:
    """Feed the recording RUN to System 1 and System 2 again, on a virtual clock.

    Says where the chunks first differ from the recorded ones, or with --against where the two
    bundles first differ. The same machine, bundle and engine give the same bytes.

    \b
    Is it repeatable?         v2a replay runs/arm-1 --bundle DIR
    What did int8 change?     v2a replay runs/arm-1 --bundle FP32 --against INT8
    """
    script = read_script(Recording(run))
    bundles = load_bundle(bundle), None if against is None else load_bundle(against)
    with (
        Replay(script, *bundles, partial(load, backend=engine)) as replayed,
        Bar("replaying", len(script.steps)) as bar,
    ):
        for step, frame in script.with_frames():
            replayed.play(step, frame)
            bar.done()
    result = replayed.result()
    other = "the recorded chunks" if against is None else str(against)
    click.echo(to_json(result, indent=1) if as_json else as_text(result, other))


def as_text(result: dict[str, Any], other: str) -> str:
    """The verdict, then a line for each stage that differs."""
    lines = [
        f"{result['chunks']} chunks and {result['conditions']} conditions made again",
        *(f"{n} left out: {why}" for why, n in result["left_out"].items()),
        f"digest {result['digest']}",
    ]
    first = result["first_divergence"]
    if first is None:
        return "\n".join([*lines, f"equal to {other}, to the bit"])
    lines.append(
        f"first differs from {other} at {first['t_s']:.3f} s, in {first['stage']}: its call "
        f"{first['call']}, for frame {first['frame_seq']}, output {first['tensor']}, "
        f"by {first['max_abs_difference']:.3g}"
    )
    lines += [
        f"{stage:<14} {found['differing']:>6} of {found['calls']} calls differ, "
        f"by {found['max_abs_difference']:.3g} at most"
        for stage, found in result["differences"].items()
        if found["differing"]
    ]
    return "\n".join(lines)
