"""Formats the figures of a run for Prometheus: text exposition format, version 0.0.4."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeVar, get_args

from hw_drivers.robot.torque import TorqueState
from runtime.safety.safety import State
from runtime.web.live_status import OutcomeStatus
from runtime.web.tally import EDGES_S, Tally
from runtime.web.view import View
from v2a.names import AGES, in_table_order

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})

Samples = Iterator[tuple[str, dict[str, object], float]]  # suffix of the name, labels, value
SourceT = TypeVar("SourceT")
# name -> kind, help text, function that makes its samples
Families = Mapping[str, tuple[str, str, Callable[[SourceT, int], Samples]]]


def metrics(view: View, now_ns: int, outcome: OutcomeStatus) -> str:
    """Format all metrics of a run. Counters count from its start."""
    with view.lock:
        lines = [*_lines(_FAMILIES, view, now_ns), *_lines(_OUTCOME_FAMILIES, outcome, now_ns)]
    return "\n".join([*lines, ""])


def _lines(families: Families[SourceT], source: SourceT, now_ns: int) -> Iterator[str]:
    for name, (kind, what, samples) in families.items():
        found = list(samples(source, now_ns))
        if found:
            yield f"# HELP {name} {what}"
            yield f"# TYPE {name} {kind}"
        for suffix, labels, value in found:
            yield f"{name}{suffix}{_text(labels)} {float(value)!r}"


def _text(labels: Mapping[str, object]) -> str:
    inside = ",".join(f'{key}="{str(value).translate(_ESCAPES)}"' for key, value in labels.items())
    return f"{{{inside}}}" if inside else ""


def _run(view: View, now_ns: int) -> Samples:
    yield "", {"robot": view.about.robot, "policy": view.about.policy}, 1


def _silent(view: View, now_ns: int) -> Samples:
    yield "", {}, (now_ns - view.heard_ns) / 1e9


def _messages(view: View, now_ns: int) -> Samples:
    for kind, rate in view.rates.items():
        yield "", {"kind": kind}, rate.count


def _ticks(view: View, now_ns: int) -> Samples:
    if view.vitals is not None:
        yield "", {}, view.vitals.ticks


def _missed(view: View, now_ns: int) -> Samples:
    if view.vitals is not None:
        for cause, ticks in view.vitals.missed_ticks.items():
            yield "", {"cause": cause}, ticks


def _events(view: View, now_ns: int) -> Samples:
    if view.vitals is not None:
        for worker, counts in view.vitals.counts.items():
            for event, n in counts.items():
                yield "", {"worker": worker, "event": event}, n


def _stages(view: View, now_ns: int) -> Samples:
    for stage in in_table_order(view.about.stages):
        yield from _histogram({"stage": stage}, view.stages.get(stage))


def _gpu_stages(view: View, now_ns: int) -> Samples:
    for stage in in_table_order(view.about.stages):
        yield from _histogram({"stage": stage}, view.gpu_stages.get(stage))


def _ages(view: View, now_ns: int) -> Samples:
    for age in AGES:
        yield from _histogram({"age": age}, view.ages.get(age))


def _histogram(labels: dict[str, object], tally: Tally | None) -> Samples:
    if tally is None:
        return
    for edge, count in zip([*EDGES_S, "+Inf"], tally.buckets.cumsum().tolist(), strict=True):
        yield "_bucket", labels | {"le": edge}, count
    yield "_sum", labels, tally.total_ns / 1e9
    yield "_count", labels, tally.count


def _of_joints(key: str) -> Callable[[View, int], Samples]:
    def samples(view: View, now_ns: int) -> Samples:
        for joint in view.joints():
            value = getattr(joint, key)
            if value is not None and not math.isnan(value):
                yield "", {"joint": joint.name}, value

    return samples


def _alarms(view: View, now_ns: int) -> Samples:
    for joint in view.joints():
        if joint.alarm is not None:
            yield "", {"joint": joint.name}, bool(joint.alarm)


def _state(outcome: OutcomeStatus, now_ns: int) -> Samples:
    for state in State:
        yield "", {"state": state.value}, state.value == outcome.state


def _torque(outcome: OutcomeStatus, now_ns: int) -> Samples:
    for joint, found in outcome.torque.items():
        for state in get_args(TorqueState):
            yield "", {"joint": joint, "torque": state}, found == state


def _confirmed(outcome: OutcomeStatus, now_ns: int) -> Samples:
    yield "", {}, outcome.confirmed


_OUTCOME_FAMILIES: Final[Families[OutcomeStatus]] = {
    "v2a_safety_state": ("gauge", "1 for the current safety state, 0 for the others.", _state),
    "v2a_joint_torque": ("gauge", "1 for what the servo confirmed last.", _torque),
    "v2a_stop_confirmed": ("gauge", "1 once every joint confirmed a final torque-off.", _confirmed),
}
_FAMILIES: Final[Families[View]] = {
    "v2a_run_info": ("gauge", "The robot and the policy of the run.", _run),
    "v2a_silent_seconds": (
        "gauge",
        "Time since the policy last sent a message.",
        _silent,
    ),
    "v2a_stage_seconds": ("histogram", "How long a stage took on its thread.", _stages),
    "v2a_gpu_stage_seconds": (
        "histogram",
        "How long a stage took on the GPU.",
        _gpu_stages,
    ),
    "v2a_age_seconds": ("histogram", "How old the data was when it was used.", _ages),
    "v2a_messages_total": ("counter", "Messages that reached the recorder.", _messages),
    "v2a_ticks_total": ("counter", "Control ticks.", _ticks),
    "v2a_missed_ticks_total": ("counter", "Control ticks without their work, by cause.", _missed),
    "v2a_events_total": ("counter", "The counts of the run's summary.", _events),
    "v2a_joint_position_radians": (
        "gauge",
        "Measured position.",
        _of_joints("position_rad"),
    ),
    "v2a_joint_command_radians": ("gauge", "Last command.", _of_joints("command_rad")),
    "v2a_motor_temperature_celsius": (
        "gauge",
        "Servo temperature.",
        _of_joints("temperature_c"),
    ),
    "v2a_motor_voltage_volts": ("gauge", "Servo voltage.", _of_joints("voltage_v")),
    "v2a_motor_current_amperes": ("gauge", "Servo current.", _of_joints("current_a")),
    "v2a_motor_alarm": ("gauge", "1 while the servo reports an error.", _alarms),
}
