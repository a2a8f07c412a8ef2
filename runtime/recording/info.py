"""`RecordingInfo`: what `v2a record info` says of a recording."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from runtime.recording.container import Damage
from runtime.recording.reader import Recording
from runtime.summary_model import Dropped, utc_text
from v2a.measured import Measured

DAMAGE_MAX: Final = 100


class DamageRow(Measured):
    """A damaged place. Messages of the time from `after_s` to `before_s` may be missing."""

    file: str = Field(description="name of the file")
    byte: int = Field(description="where in the file")
    what: str = Field(description="what is wrong")
    after_s: float | None = Field(description="time since the start of the run; null: its start")
    before_s: float | None = Field(description="the same; null: the end of the recording")


class RecordingInfo(Measured):
    """The contents of a recording at a glance; `v2a record info --json` prints it."""

    schema_version: Literal[1] = Field(default=1, description="version of this schema")
    path: str = Field(description="path of the `.mcap` file")
    robot: str = Field(description="`robot.name` of robot.yaml")
    policy: str = Field(description="name of the policy in the bundle")
    instruction: str = Field(description="instruction at the start of the run")
    bundle_sha256: str = Field(description="SHA-256 of the bundle's manifest, as hex digits")
    seed: int = Field(description="seed of the sampler's noise")
    dry_run: bool | None = Field(
        description="whether the robot was a virtual one; null: an older v2a, which did not say"
    )
    started_utc: str | None = Field(
        description="date and time of the start in UTC, as in ISO 8601; null in older recordings"
    )
    ended_utc: str | None = Field(
        description="the same of the end, from the summary; null without one. It minus "
        "`started_utc` is not the length of a run during which the clock was set"
    )
    seconds: float = Field(description="time from the first message to the last, s")
    messages: dict[str, int] = Field(description="topic -> number of messages")
    ended: bool = Field(description="false if the run was killed or still goes on")
    whole: bool = Field(description="false if the end of a file is missing")
    damaged: int = Field(description="number of damaged places; their messages are not counted")
    damage: tuple[DamageRow, ...] = Field(description="the damaged places, the first 100")
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
        dry_run=header.dry_run,
        started_utc=None if header.start_utc_ns is None else utc_text(header.start_utc_ns),
        ended_utc=summary and summary.end and utc_text(summary.end.utc_ns),
        seconds=(extent.last_ns - extent.first_ns) / 1e9,
        messages=extent.messages,
        ended=recording.ended(),
        whole=extent.whole,
        damaged=len(recording.damage),
        damage=tuple(_row(recording, place) for place in recording.damage[:DAMAGE_MAX]),
        dropped=summary and summary.dropped,
        versions=header.versions,
    )


def _row(recording: Recording, place: Damage) -> DamageRow:
    after_s, before_s = (
        None if log_ns is None else recording.since_start_s(log_ns)
        for log_ns in (place.after_ns, place.before_ns)
    )
    return DamageRow(
        file=place.file, byte=place.offset, what=place.what, after_s=after_s, before_s=before_s
    )
