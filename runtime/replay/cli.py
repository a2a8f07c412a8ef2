"""`v2a replay`: run a recording through a bundle again."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from runtime.engines import BACKENDS, load
from runtime.recording.messages import to_json
from runtime.recording.reader import Recording
from runtime.replay.replay import Replay
from runtime.replay.result import result_as_text
from runtime.replay.script import read_script
from v2a.bundle import load_bundle
from v2a.terminal import Bar

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("recording", metavar="RECORDING", type=_PATH)
@click.option("--bundle", required=True, type=_PATH, help="Policy bundle.")
@click.option("--against", type=_PATH, help="A second bundle of the same policy, to compare with.")
@click.option(
    "--engine",
    type=click.Choice(list(BACKENDS)),
    default="ort",
    show_default=True,
    help="Engine back end, as in v2a run.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
def replay(recording: Path, bundle: Path, against: Path | None, engine: str, as_json: bool) -> None:
    """Feed RECORDING to System 1 and System 2 again, on a virtual clock.

    Prints where the new chunks first differ from the recorded ones, or with --against where the two
    bundles first differ. The same machine, bundle and engine give the same bytes.

    \b
    Is it repeatable?         v2a replay runs/arm-1 --bundle DIR
    What did int8 change?     v2a replay runs/arm-1 --bundle FP32 --against INT8

    \b
    Exit codes: 0 replayed, equal or not; 2 bad recording, 3 bad bundle, 4 engine,
    9 the recording is damaged, and the readable rest was replayed.
    """
    recorded = Recording(recording)
    script = read_script(recorded)
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
    click.echo(to_json(result.model_dump(), 1) if as_json else result_as_text(result, other))
    recorded.complain()
