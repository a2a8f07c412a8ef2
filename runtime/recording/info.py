"""`RecordingInfo`: what `v2a record info` says of a recording."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from runtime.recording.reader import Recording
from runtime.summary_model import Dropped
from v2a.measured import Measured


class RecordingInfo(Measured):
    """The contents of a recording at a glance; `v2a record info --json` prints it."""

    schema_version: Literal[1] = Field(default=1, description="version of this schema")
    path: str = Field(description="path of the `.mcap` file")
    robot: str = Field(description="`robot.name` of robot.yaml")
    policy: str = Field(description="name of the policy in the bundle")
    instruction: str = Field(description="instruction at the start of the run")
    bundle_sha256: str = Field(description="SHA-256 of the bundle's manifest, as hex digits")
    seed: int = Field(description="seed of the sampler's noise")
    seconds: float = Field(description="time from the first message to the last, s")
    messages: dict[str, int] = Field(description="topic -> number of messages")
    ended: bool = Field(description="false if the run was killed or still goes on")
    whole: bool = Field(description="false if the end of the file is missing")
    dropped: Dropped | None = Field(description="what was lost, from the summary; null without one")
    versions: dict[str, str] = Field(description="package -> version; also python and machine")


def look_into(recording: Recording) -> RecordingInfo:
    """Read the whole recording for its information.

    Raises ConfigError if another version of v2a wrote its summary.
    """
    extent, header, summary = recording.extent(), recording.header, recording.summary()
    return RecordingInfo(
        path=str(recording.path),
        robot=header.config.robot.name,
        policy=header.policy,
        instruction=header.config.instruction,
        bundle_sha256=header.bundle_sha256,
        seed=header.seed,
        seconds=(extent.last_ns - extent.first_ns) / 1e9,
        messages=extent.messages,
        ended=recording.ended(),
        whole=extent.whole,
        dropped=summary and summary.dropped,
        versions=header.versions,
    )
