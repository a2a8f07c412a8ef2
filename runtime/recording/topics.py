"""`TOPICS`: converts each kind of message to a JSON row of a recording and back."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

import numpy as np

from runtime.mailbox import ChunkMsg, ConditionMsg, FrameMsg, StateMsg
from runtime.recording.messages import (
    NO_IMAGE,
    LogLine,
    Reset,
    RunCounters,
    SafetyChange,
    Spans,
    from_png,
    to_png,
)
from runtime.safety.health import HealthRow

Row = dict[str, Any]
"""One message as a JSON object. The schema of its topic lists the keys."""

_NS = 1_000_000_000


def _fields_of(message: Any) -> Row:
    return {f.name: getattr(message, f.name) for f in fields(message) if f.name not in _LEFT_OUT}


# The tensors of a condition are megabytes, and the bundle can compute them again from the frames.
_LEFT_OUT: Final = {"tensors"}
_ARRAYS: Final = {"position_rad", "command_rad", "target_rad"}


def _of_fields(kind: type) -> Callable[[Row], Any]:
    def message(row: Row) -> Any:
        arrays = {name: np.array(row[name], np.float64) for name in _ARRAYS & row.keys()}
        return kind(**{**row, **arrays})  # null becomes NaN again

    return message


def _condition(row: Row) -> ConditionMsg:
    return ConditionMsg(**row, tensors={})


def _frame_row(frame: FrameMsg) -> Row:
    return {
        "frame_id": "camera",
        "format": "png",
        "data": base64.b64encode(to_png(frame.image)).decode(),
        **{name: getattr(frame, name) for name in _HEADER},
        "history_ns": [t_ns for t_ns, _ in frame.history],
    }


def frame_head(row: Row) -> FrameMsg:
    """Make a frame without pictures. Its `history` has the time of each picture."""
    header: Row = {name: row[name] for name in _HEADER}
    history = tuple((t_ns, NO_IMAGE) for t_ns in row["history_ns"])
    return FrameMsg(**header | {"image": NO_IMAGE, "history": history})


def _frame(row: Row) -> FrameMsg:
    """Make a frame with its own picture. `Recording.frames` adds those of its `history`."""
    return replace(frame_head(row), image=from_png(base64.b64decode(row["data"])))


def _spans(row: Row) -> Spans:
    return Spans(row["thread"], np.array(row["rows"], np.int64).reshape(-1, 4))


def _vitals_row(vitals: RunCounters) -> Row:
    health = None if vitals.health is None else HealthRow.of(vitals.health).model_dump()
    return _fields_of(vitals) | {"health": health}


def _vitals(row: Row) -> RunCounters:
    health = row["health"] and HealthRow.model_validate(row["health"]).health()
    return RunCounters(**row | {"health": health})


def _log_row(line: LogLine) -> Row:
    head = {"level": line.level, "message": line.text, "name": "v2a", "file": "", "line": 0}
    return head | {"t_ns": line.t_ns}


def _log(row: Row) -> LogLine:
    at = row["timestamp"]  # of the monotonic clock in older recordings, which have no t_ns
    t_ns = row["t_ns"] if "t_ns" in row else at["sec"] * _NS + at["nsec"]
    return LogLine(t_ns, row["level"], row["message"])


def timestamp(t_ns: int) -> dict[str, int]:
    """Foxglove's type for a time."""
    return {"sec": t_ns // _NS, "nsec": t_ns % _NS}


_INT: Final = {"type": "integer"}
_TEXT: Final = {"type": "string"}
_ANGLES: Final = {"type": "array", "items": {"type": "number"}, "description": "rad"}
_HEADER: Final = dict.fromkeys(("seq", "t_capture_ns", "t_publish_ns", "parent_seq", "epoch"), _INT)
_TIMESTAMP: Final = {"type": "object", "title": "time", "properties": {"sec": _INT, "nsec": _INT}}


def _schema(title: str, **properties: Any) -> dict[str, Any]:
    return {"title": title, "type": "object", "properties": properties}


def _published(message: Any) -> int:
    return int(message.t_publish_ns)


@dataclass(frozen=True, slots=True)
class Topic:
    """Says how one kind of message is recorded."""

    name: str
    schema: dict[str, Any]  # JSON schema; its title is the schema's name
    message: Callable[[Row], Any]  # from a row
    row: Callable[[Any], Row] = field(default=_fields_of)
    t_ns: Callable[[Any], int] = field(default=_published)
    stamp_ns: Callable[[Any], int] | None = None  # what the key `timestamp` of Foxglove's tells


TOPICS: Final[dict[type, Topic]] = {
    # Foxglove's own schema names, so that its app and rerun show pictures and log lines.
    FrameMsg: Topic(
        "/frame",
        _schema(
            "foxglove.CompressedImage",
            timestamp=_TIMESTAMP,
            frame_id=_TEXT,
            data={"type": "string", "contentEncoding": "base64"},
            format=_TEXT,
            **_HEADER,
            history_ns={"type": "array", "items": _INT},
        ),
        _frame,
        _frame_row,
        stamp_ns=lambda frame: int(frame.t_capture_ns),
    ),
    StateMsg: Topic(
        "/state",
        _schema("v2a.State", **_HEADER, position_rad=_ANGLES, command_rad=_ANGLES),
        _of_fields(StateMsg),
    ),
    ConditionMsg: Topic(
        "/condition", _schema("v2a.Condition", **_HEADER, t_frame_ns=_INT), _condition
    ),
    ChunkMsg: Topic(
        "/chunk",
        _schema(
            "v2a.Chunk",
            **_HEADER,
            target_rad={"type": "array", "items": _ANGLES},
            step_ns=_INT,
            condition_age_ns=_INT,
            condition_seq=_INT,
            state_seq=_INT,
        ),
        _of_fields(ChunkMsg),
    ),
    Spans: Topic(
        "/spans",
        _schema(
            "v2a.Spans",
            thread=_TEXT,
            rows={
                "type": "array",
                "items": {"type": "array", "items": _INT},
                "description": "stage index, t0_ns, t1_ns, arg",
            },
        ),
        _spans,
        t_ns=lambda spans: int(spans.rows[:, 2].max()),
    ),
    SafetyChange: Topic(
        "/safety",
        _schema("v2a.Safety", t_ns=_INT, state=_TEXT, reason=_TEXT),
        _of_fields(SafetyChange),
        t_ns=lambda change: int(change.t_ns),
    ),
    Reset: Topic(
        "/reset",
        _schema("v2a.Reset", t_ns=_INT, epoch=_INT, instruction={"type": ["string", "null"]}),
        _of_fields(Reset),
        t_ns=lambda reset: int(reset.t_ns),
    ),
    RunCounters: Topic(
        "/vitals",
        _schema(
            "v2a.Vitals",
            t_ns=_INT,
            ticks=_INT,
            epoch=_INT,
            missed_ticks={"type": "object", "description": "cause: number"},
            counts={"type": "object", "description": "worker: {event: number}"},
            health={"type": "object", "description": "quantity: [by joint, age of each in ns]"},
            torque_fault=_TEXT,
        ),
        _vitals,
        _vitals_row,
        lambda vitals: int(vitals.t_ns),
    ),
    LogLine: Topic(
        "/log",
        _schema(
            "foxglove.Log",
            timestamp=_TIMESTAMP,
            level=_INT,
            message=_TEXT,
            name=_TEXT,
            file=_TEXT,
            line=_INT,
            t_ns=_INT,
        ),
        _log,
        _log_row,
        lambda line: int(line.t_ns),
        lambda line: int(line.t_ns),
    ),
}
