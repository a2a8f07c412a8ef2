"""Plays the demo's episodes in lockstep and prints each success and a digest of the recording.

    python tools/lockstep_digest.py [--episodes 100] [--seed 2000] [--root CHECKOUT]

Lockstep runs on a virtual clock, so the same code gives the same bytes. A change without any change
of behaviour gives the same output before and after. `--root` runs another checkout.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from functools import partial
from pathlib import Path

TOPICS = ("/chunk", "/condition", "/frame", "/reset", "/safety", "/state")
"""The topics in the digest. Counters and spans are left out: their names may change."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=2000)
    parser.add_argument("--task", default="puck")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1])
    arguments = parser.parse_args()
    sys.path.insert(0, str(arguments.root.resolve()))
    seeds = range(arguments.seed, arguments.seed + arguments.episodes)
    with tempfile.TemporaryDirectory() as folder:
        record_dir = Path(folder) / "run"
        won = play(arguments.task, seeds, record_dir)
        found = {"success": won, "n_success": sum(won), "recording_sha256": digest(record_dir)}
    print(json.dumps(found))


def play(task: str, seeds: range, record_dir: Path) -> list[bool]:
    """Play and record the episode of each seed. Return which ones succeeded."""
    from demo import study  # here: `--root` decides which checkout it comes from
    from runtime.lockstep import Lockstep

    # By `setattr`, as `study` has no option for it: only this script records its episodes.
    setattr(study, "Lockstep", partial(Lockstep, record_dir=record_dir))  # noqa: B010 (typed)
    bench = study.Bench("async")
    try:
        return [bool(bench.play(seed, task).success) for seed in seeds]  # type: ignore[arg-type]
    finally:
        bench.close()


def digest(record_dir: Path) -> str:
    """Hash topic, time and bytes of each message of `TOPICS`, in the order of the file: SHA-256."""
    from mcap.reader import make_reader

    sha256 = hashlib.sha256()
    # run.mcap, run.1.mcap, ..., run.10.mcap: a longer name is a later file.
    for path in sorted(record_dir.glob("*.mcap"), key=lambda path: (len(path.name), path.name)):
        with path.open("rb") as stream:
            for _, channel, message in make_reader(stream).iter_messages(TOPICS):
                sha256.update(f"{channel.topic} {message.log_time} ".encode() + message.data)
    return sha256.hexdigest()


if __name__ == "__main__":
    main()
