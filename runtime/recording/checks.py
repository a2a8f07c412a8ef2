"""Checks messages that were read from a file: anybody may have written it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields
from functools import cache
from typing import Any, Final, cast

import numpy as np

from runtime.mailbox import ChunkMsg, FrameMsg, StateMsg
from runtime.recording.header import Header
from runtime.recording.messages import Spans

CHUNK_ROWS_MAX: Final = 10_000
_INT64: Final = range(-(2**63), 2**63)


def check(message: Any, header: Header) -> None:
    """Check types and shapes of a message of the run that `header` describes.

    Raises ValueError that names the field.
    """
    for name, kind in _fields(cast("Hashable", type(message))):
        if not _IS[kind](getattr(message, name)):
            raise ValueError(f"{name} is no {kind}")
    if (further := _FURTHER.get(type(message))) is not None:
        further(message, header)


@cache
def _fields(kind: Hashable) -> tuple[tuple[str, str], ...]:
    return tuple((f.name, str(f.type)) for f in fields(cast("Any", kind)) if str(f.type) in _IS)


def _is_int(value: object) -> bool:
    return type(value) is int and value in _INT64


_IS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "int": _is_int,
    "str": lambda value: isinstance(value, str),
    "str | None": lambda value: value is None or isinstance(value, str),
}


def _check_frame(frame: FrameMsg, header: Header) -> None:
    if not all(_is_int(t_ns) for t_ns, _ in frame.history):
        raise ValueError("history_ns is no list of times")


def _check_state(state: StateMsg, header: Header) -> None:
    joints = len(header.config.robot.joints)
    if state.position_rad.shape != (joints,) or state.command_rad.shape != (joints,):
        raise ValueError(f"its angles are not those of {joints} joints")


def _check_chunk(chunk: ChunkMsg, header: Header) -> None:
    joints = len(header.config.robot.joints)
    rows = chunk.target_rad.shape[0] if chunk.target_rad.ndim else 0
    if chunk.target_rad.shape != (rows, joints) or not 0 < rows <= CHUNK_ROWS_MAX:
        raise ValueError(f"its targets are not rows of {joints} joints")
    if chunk.step_ns <= 0:
        raise ValueError("step_ns is not above 0")


def _check_spans(spans: Spans, header: Header) -> None:
    stage, t0_ns, t1_ns, _ = spans.rows.T
    if np.any((stage < 0) | (stage >= len(header.stages)) | (t1_ns < t0_ns)):
        raise ValueError("a span has no stage, or ends before it begins")


_FURTHER: Final[Mapping[type, Callable[[Any, Header], None]]] = {
    FrameMsg: _check_frame,
    StateMsg: _check_state,
    ChunkMsg: _check_chunk,
    Spans: _check_spans,
}
