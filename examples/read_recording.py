"""Read the action chunks of a recording and their ages, with our reader and with plain mcap.

    python examples/run_bundle.py /tmp/run
    python examples/read_recording.py /tmp/run

A chunk is the list of joint targets that System 1 made in one call. Its condition age says how old
the condition from System 2 was that it used. Other programs need only the `mcap` package.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mcap.reader import make_reader

from runtime.recording.reader import Recording


def main(folder: Path) -> None:
    recording = Recording(folder)
    ages_ms = []
    for chunk in recording.chunks():
        age_ms, delay_ms = chunk.condition_age_ns / 1e6, chunk.t_publish_ns - chunk.t_capture_ns
        ages_ms.append(age_ms)
        rows, joints = chunk.target_rad.shape
        print(
            f"chunk {chunk.seq}: {rows} rows of {joints} joints, made {delay_ms / 1e6:.0f} ms "
            f"after its picture with a condition {age_ms:.0f} ms old"
        )
    print(f"{len(ages_ms)} chunks, oldest condition {max(ages_ms):.0f} ms")

    # The same without v2a: each message is one JSON object, and the file has its schema.
    with recording.path.open("rb") as file:
        messages = make_reader(file).iter_messages(topics=["/chunk"])
        rows_json = [json.loads(message.data) for _, _, message in messages]
    assert [row["condition_age_ns"] / 1e6 for row in rows_json] == ages_ms
    print(f"plain mcap reads the same {len(rows_json)} chunks; keys: {', '.join(rows_json[0])}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
