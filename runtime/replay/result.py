"""`ReplayResult`: what `v2a replay` found, as JSON and as text."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from v2a.measured import Measured, Number


class Divergence(Measured):
    """The first difference: the output of a call of a graph."""

    stage: str = Field(description="name of the graph's stage")
    tensor: str = Field(description="name of the output")
    call: int = Field(description="number of the call of this stage, counted from 1")
    t_s: float = Field(
        description="time since the start of the run at which the condition or chunk of this call "
        "was published"
    )
    frame_seq: int = Field(description="number of the camera picture that the call is for")
    max_abs_difference: Number = Field(
        description="largest absolute difference, in the unit of the output; null if it is not a "
        "number or the shapes differ"
    )


class StageDifference(Measured):
    """All calls of one graph."""

    calls: int = Field(default=0, description="number of calls")
    differing: int = Field(default=0, description="number of calls with a different output")
    max_abs_difference: Number = Field(
        default=0.0, description="largest absolute difference, as in `Divergence`"
    )


class ReplayResult(Measured):
    """`v2a replay --json`."""

    schema_version: Literal[1] = Field(default=1, description="version of this schema")
    chunks: int = Field(description="number of chunks that were made again")
    conditions: int = Field(description="number of conditions that were made again")
    left_out: dict[str, int] = Field(description="reason -> number of steps that were left out")
    digest: str = Field(description="SHA-256 over all chunks: epoch, times, targets")
    other_digest: str = Field(
        description="the same over the chunks of the second bundle, or over the recorded chunks"
    )
    first_divergence: Divergence | None = Field(
        description="the first difference; null if both are equal to the bit"
    )
    differences: dict[str, StageDifference] = Field(description="stage -> how its calls differ")


def result_as_text(result: ReplayResult, other: str) -> str:
    """The verdict, and a line for each stage that differs from `other`."""
    lines = [
        f"{result.chunks} chunks and {result.conditions} conditions made again",
        *(f"{n} left out: {why}" for why, n in result.left_out.items()),
        f"digest {result.digest}",
    ]
    first = result.first_divergence
    if first is None:
        return "\n".join([*lines, f"equal to {other}, to the bit"])
    lines.append(
        f"first differs from {other} at {first.t_s:.3f} s, in {first.stage}: its call "
        f"{first.call}, for frame {first.frame_seq}, output {first.tensor}, "
        f"by {first.max_abs_difference:.3g}"
    )
    lines += [
        f"{stage:<14} {found.differing:>6} of {found.calls} calls differ, "
        f"by {found.max_abs_difference:.3g} at most"
        for stage, found in result.differences.items()
        if found.differing
    ]
    return "\n".join(lines)
