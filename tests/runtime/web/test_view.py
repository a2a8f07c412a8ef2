"""What the page and Prometheus are told, from the messages of a run."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_drivers.robot.torque import TorqueState
from runtime.recording.messages import to_json
from runtime.recording.reader import Recording
from runtime.safety.health import HealthRow
from runtime.safety.safety import State
from runtime.web.live_status import OutcomeStatus
from runtime.web.metrics import metrics
from runtime.web.tally import EDGES_S, Rate, Tally
from runtime.web.view import CHUNKS_KEPT, View, snapshot
from tests.runtime.conftest import World, after_ms
from tests.runtime.web.world import (
    ABOUT,
    ARMED,
    MS,
    chunk,
    health,
    outcome,
    span,
    spans,
    view,
    vitals,
)
from v2a.bundle import Bundle
from v2a.clock import FakeClock
from v2a.spans import Histogram


def test_ages_follow_from_the_chunk_in_play() -> None:
    now = snapshot(view(), 0, ARMED)
    assert now.ages_ms["condition_age"].last == 120.0
    assert now.ages_ms["chunk_age"].last == pytest.approx(150 - 130)
    assert now.ages_ms["frame_to_motor"].last == pytest.approx(150.8 - 100)


def test_the_ages_of_a_whole_run_are_those_that_the_control_loop_counted(
    bundle: Bundle, tmp_path: Path
) -> None:
    world = World(bundle, delays={"system1": after_ms(30)}, record_dir=tmp_path / "run")
    with world.lockstep as lockstep:
        lockstep.arm()
        lockstep.run(3.0)
        control, system1 = world.workers.control, world.workers.system1
    found, recording = View(ABOUT, FakeClock()), Recording(tmp_path / "run")
    chunks = list(recording.chunks())
    assert 5 < len(chunks) <= CHUNKS_KEPT
    for message in chunks:
        found.take(message)
    for thread, rows in recording.spans().items():
        found.take(spans(*rows.tolist(), thread=thread))
    counted = {"chunk_age": control.chunk_age, "frame_to_motor": control.frame_to_motor,
               "condition_age": system1.condition_age}  # fmt: skip
    for age, histogram in counted.items():
        assert found.ages[age].count == histogram.count > 10, age
        assert found.ages[age].total_ns / histogram.count == pytest.approx(histogram.mean_ns), age
    assert found.stages["tick"].count == control.ticks


def test_a_tick_without_a_chunk_has_no_age_and_chunks_are_forgotten() -> None:
    found = View(ABOUT, FakeClock())
    for seq in range(1, CHUNKS_KEPT + 2):
        found.take(chunk(seq, 0, 0))
    found.take(spans(span("tick", 5, 6, 0), span("tick", 25, 26, 1), span("tick", 45, 46, 2)))
    assert found.ages["chunk_age"].count == 1
    assert found.stages["tick"].count == 3


def test_what_the_gpu_did_is_apart() -> None:
    found = View(ABOUT, FakeClock())
    found.take(spans(span("denoise", 0, 9), thread="system1"))
    found.take(spans(span("denoise", 2, 8), thread="gpu system1"))
    assert found.stages["denoise"].total_ns == 9 * MS
    assert found.gpu_stages["denoise"].total_ns == 6 * MS


def test_the_servos_health_survives_json_and_pickle() -> None:
    """The way from the control process: a note, then the pipe to the recorder process."""
    told = health(alarm="overload")
    row = HealthRow.of(told)
    back = HealthRow.model_validate(json.loads(to_json(row))).health()
    again = pickle.loads(pickle.dumps(back))
    assert again.alarms == ("", "overload")
    assert again.voltage_v is None
    assert again.temperature_c.valid.tolist() == [True, False]
    assert again.temperature_c.value[0] == 31.0


def test_silence_is_counted_from_whatever_came_last() -> None:
    clock = FakeClock()
    found = View(ABOUT, clock)
    clock.advance_ns(3 * 10**9)
    assert snapshot(found, clock.now_ns(), ARMED).silent_s == 3.0
    found.take(object())  # a kind that is not shown
    assert snapshot(found, clock.now_ns(), ARMED).silent_s == 0.0


def test_a_page_before_the_first_message_and_one_with_unknowns_are_json() -> None:
    empty = json.loads(to_json(snapshot(View(ABOUT, FakeClock()), 0, ARMED)))
    assert (empty["picture"], empty["ticks"], empty["ages_ms"]) == (None, None, {})
    assert empty["safety"][-1]["state"] == "disarmed"
    base, tip = json.loads(to_json(snapshot(view(), 0, ARMED)))["joints"]
    assert base == {"name": "base", "position_rad": 0.1, "command_rad": 0.1, "alarm": "",
                    "temperature_c": 31.0}  # fmt: skip
    assert (tip["command_rad"], tip["temperature_c"]) == (None, None)


TORQUE = st.sampled_from(["on", "off", "unknown"])


@given(TORQUE, TORQUE, st.sampled_from(list(State)), st.booleans(), st.booleans())
def test_a_stop_is_confirmed_only_by_a_last_word_and_every_joint(
    base: TorqueState, tip: TorqueState, state: State, final: bool, gone: bool
) -> None:
    """A decision of the safety layer confirms nothing, nor does a process that is gone."""
    status = OutcomeStatus.of(outcome(base, tip, state, final), gone, ABOUT.joints)
    assert status.confirmed == (final and base == tip == "off")
    assert status.confirmed == status.pressed().text.startswith("Stopped: torque is off")
    assert status.confirmed != ("cut the motors' power" in status.pressed().text)
    if gone and not final:
        assert set(status.torque.values()) == {"unknown"}
    if final and not status.confirmed:
        assert ("tip" in status.text) == (tip != "off")


def test_who_said_nothing_confirmed_nothing() -> None:
    status = OutcomeStatus.of(None, False, ABOUT.joints)
    assert (status.confirmed, status.torque) == (False, {"base": "unknown", "tip": "unknown"})
    assert status.text == ""
    assert "cut the motors' power" in status.pressed().text
    none = outcome().model_copy(update={"torque": {}})
    assert not OutcomeStatus.of(none, False, ABOUT.joints).confirmed


@given(st.lists(st.integers(0, 10**11), min_size=1, max_size=200))
def test_a_bucket_has_all_that_is_not_longer_than_its_edge(durations_ns: list[int]) -> None:
    tally = Tally()
    tally.add(np.array(durations_ns, np.int64))
    for edge_s, count in zip(EDGES_S, tally.buckets.cumsum(), strict=False):
        assert count == sum(ns <= round(edge_s * 1e9) for ns in durations_ns)
    assert (tally.count, tally.total_ns) == (len(durations_ns), sum(durations_ns))
    histogram = Histogram()
    for ns in durations_ns:
        histogram.observe(ns)
    assert tally.recent_ms().max == pytest.approx(histogram.summary_ms()["max_ms"])


@given(st.integers(1, 10**9), st.integers(2, 50))
def test_a_rate_is_that_of_its_period_and_nothing_when_it_stopped(period_ns: int, n: int) -> None:
    rate = Rate()
    for k in range(n):
        rate.add(k * period_ns)
    assert rate.hz((n - 1) * period_ns) == pytest.approx(1e9 / period_ns)
    assert rate.hz((n - 1) * period_ns + 2_000_000_001) == 0.0


def samples(text: str) -> dict[str, float]:
    """By prometheus_client's own parser: name and labels -> value."""
    parser = pytest.importorskip("prometheus_client.parser", reason="the peer that reads metrics")
    return {
        sample.name + "".join(f" {key}={value}" for key, value in sorted(sample.labels.items())):
            sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }  # fmt: skip


def test_prometheus_own_parser_reads_what_was_put_in() -> None:
    found = view()
    found.take(vitals(ticks=250, alarm="overload"))
    found.take(spans(*(span("denoise", 0, ms) for ms in (0.05, 3, 30, 30, 9000))))
    read = samples(metrics(found, 2 * 10**9, ARMED))
    assert read["v2a_run_info policy=tiny robot=two"] == 1
    assert read["v2a_ticks_total"] == 250
    assert read["v2a_missed_ticks_total cause=no_chunk"] == 7
    assert read["v2a_events_total event=chunks worker=system1"] == 3
    assert read["v2a_safety_state state=armed"] == 1
    assert sum(v for name, v in read.items() if name.startswith("v2a_safety_state")) == 1
    assert read["v2a_joint_torque joint=tip torque=on"] == 1
    assert read["v2a_joint_torque joint=tip torque=off"] == read["v2a_stop_confirmed"] == 0
    assert read["v2a_motor_temperature_celsius joint=base"] == 31.0
    assert "v2a_motor_temperature_celsius joint=tip" not in read  # it is not known
    assert read["v2a_motor_alarm joint=tip"] == 1
    assert read["v2a_stage_seconds_bucket le=0.0001 stage=denoise"] == 1
    assert read["v2a_stage_seconds_bucket le=0.05 stage=denoise"] == 4
    assert read["v2a_stage_seconds_bucket le=+Inf stage=denoise"] == 5
    assert read["v2a_stage_seconds_count stage=denoise"] == 5
    assert read["v2a_stage_seconds_sum stage=denoise"] == pytest.approx(9.06305)
    assert read["v2a_age_seconds_sum age=chunk_age"] == pytest.approx(0.020)
    assert all(math.isfinite(value) for value in read.values())


def test_a_name_with_quotes_in_it_breaks_nothing() -> None:
    odd = 'a"b\\c\nd'
    found = View(replace(ABOUT, robot=odd), FakeClock())
    assert samples(metrics(found, 0, ARMED))[f"v2a_run_info policy=tiny robot={odd}"] == 1
