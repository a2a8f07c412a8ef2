"""Safety: denies by default; no input gets a command out of range or faster than allowed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_drivers.bus.block import Reading
from hw_drivers.robot.robot import Health
from runtime.config.robot_yaml import ControlConfig
from runtime.config.safety_yaml import SafetyConfig, load_workspace
from runtime.mailbox import Vector
from runtime.safety.event_counts import KINDS_MAX, OTHER, TEXT_MAX
from runtime.safety.motion_limiter import Limits, braking_step
from runtime.safety.safety import Safety, SafetyRecord, State
from v2a.errors import ConfigError, SafetyFault

LIMITS = Limits(
    ("base", "tip"),
    np.array([-1.0, 0.2]),
    np.array([1.0, 0.8]),
    np.array([1.0, 0.25]),
    np.array([250.0, 250.0]),
)
PERIOD_S = 0.02
INSIDE = np.array([0.0, 0.5])
weird = st.floats(allow_nan=True, allow_infinity=True)


def make_safety(limits: Limits = LIMITS, **rules: Any) -> Safety:
    control = ControlConfig(command_age_max_s=1.0, serial_faults_max=3)
    return Safety(limits, PERIOD_S, control, SafetyConfig.model_validate(rules))


def armed(**rules: Any) -> Safety:
    safety = make_safety(**rules)
    safety.arm(10**10 - 1, INSIDE)
    return safety


@given(
    st.lists(st.tuples(weird, weird, st.integers(0, 3 * 10**9), st.booleans()), max_size=40),
    st.floats(-1, 1),
    st.floats(0.2, 0.8),
)
def test_no_command_leaves_the_range_or_exceeds_the_speed(
    inputs: list[tuple[float, float, int, bool]], base: float, tip: float
) -> None:
    safety = make_safety()
    safety.arm(10**10, np.array([base, tip]))
    for tick, (a, b, age_ns, current) in enumerate(inputs):
        now_ns = 10**10 + tick * 20_000_000
        before = safety.command_rad
        after = safety.command(now_ns, np.array([a, b]), now_ns - age_ns, current)
        assert np.all(after >= LIMITS.lower_rad)
        assert np.all(after <= LIMITS.upper_rad)
        assert np.all(np.abs(after - before) <= LIMITS.velocity_rad_s * PERIOD_S + 1e-12)


def test_a_fresh_one_denies() -> None:
    safety = make_safety()
    assert safety.state is State.DISARMED
    with pytest.raises(SafetyFault, match="arm first"):
        safety.command(0, INSIDE, 0, current=True)


@pytest.mark.parametrize(
    ("present", "message"),
    [
        ([0.0, np.nan], "tip is at nan rad"),
        ([1.2, 0.5], "base is at 1.200 rad, outside -1.000..1.000"),
    ],
)
def test_arming_is_refused_where_the_joints_are_not_in_range(
    present: list[float], message: str
) -> None:
    safety = make_safety()
    with pytest.raises(SafetyFault, match=message):
        safety.arm(0, np.array(present))
    assert safety.state is State.DISARMED


def test_arming_on_an_end_stop_is_forgiven_and_commands_the_limit() -> None:
    safety = make_safety()
    safety.arm(0, np.array([1.03, 0.5]))
    assert safety.command_rad.tolist() == [1.0, 0.5]
    assert safety.state is State.HOLD


@pytest.mark.parametrize(
    ("target", "t_capture_ns", "current", "reason"),
    [
        ([np.nan, 0.5], 10**10, True, "target is not finite"),
        ([0.1, 0.5], 10**10 - 1_000_000_001, True, "target too old"),
        ([0.1, 0.5], 10**10, False, "target of an older epoch"),
    ],
)
def test_what_can_not_be_followed_is_held_with_its_reason(
    target: list[float], t_capture_ns: int, current: bool, reason: str
) -> None:
    safety = armed()
    safety.command(10**10, INSIDE + 0.001, 10**10, current=True)
    assert safety.state is State.ARMED
    before = safety.command_rad
    held: Vector = safety.command(10**10, np.array(target), t_capture_ns, current)
    np.testing.assert_array_equal(held, before)
    assert (safety.changes[-1].state, safety.changes[-1].reason) == (State.HOLD, reason)
    assert safety.counts[reason] == 1


def test_clamps_are_counted() -> None:
    safety = armed()
    safety.command(1, np.array([0.0, 0.9]), 1, current=True)
    assert safety.counts == {"limit_clamps": 1, "velocity_clamps": 1}
    safety.command(2, safety.command_rad, 2, current=True)
    assert safety.counts == {"limit_clamps": 1, "velocity_clamps": 1}


def test_bad_bus_cycles_in_a_row_are_a_fault_and_final() -> None:
    safety = armed()
    for fault in ("a", "b", None, "c", "d"):  # a good one starts the count anew
        safety.serial(1, fault)
    with pytest.raises(SafetyFault, match="3 bad bus cycles in a row, the last: e; check"):
        safety.serial(5, "e")
    assert (safety.state, safety.torque_on, safety.changes[-1].t_ns) == (State.FAULT, False, 5)
    safety.disarm(6, "end of the run")
    assert safety.state is State.FAULT
    with pytest.raises(SafetyFault, match="start a new run"):
        safety.arm(7, INSIDE)


TICK_NS = 20_000_000
GENTLE = replace(LIMITS, acceleration_rad_s2=np.array([2.0, 0.5]))
targets = st.lists(st.tuples(weird, weird), max_size=60)


@given(targets)
def test_with_little_acceleration_range_speed_and_acceleration_all_hold(
    wanted: list[tuple[float, float]],
) -> None:
    safety = make_safety(GENTLE)
    safety.arm(10**10, INSIDE)
    commands = [INSIDE, INSIDE]
    for tick, target in enumerate(wanted):
        now_ns = 10**10 + tick * TICK_NS
        commands.append(safety.command(now_ns, np.array(target), now_ns, current=True))
    steps = np.diff(commands, axis=0)
    assert np.all((commands >= LIMITS.lower_rad) & (commands <= LIMITS.upper_rad))
    assert np.all(np.abs(steps) <= GENTLE.velocity_rad_s * PERIOD_S + 1e-12)
    changes = np.abs(np.diff(steps, axis=0))
    assert np.all(changes <= GENTLE.acceleration_rad_s2 * PERIOD_S**2 + 1e-9)


def test_a_target_is_reached_without_overshoot_in_the_time_that_the_limits_take() -> None:
    """Against the textbook: a trapezoid of speed takes d / v + v / a seconds."""
    safety = make_safety(GENTLE)
    safety.arm(10**10, np.array([-0.5, 0.5]))
    path = [
        safety.command(10**10, np.array([0.5, 0.5]), 10**10, current=True)[0] for _ in range(100)
    ]
    assert max(path) == 0.5
    took_s = PERIOD_S * (1 + next(tick for tick, at in enumerate(path) if at == 0.5))
    assert took_s == pytest.approx(1.0 / 1.0 + 1.0 / 2.0, abs=2 * PERIOD_S)


@given(st.floats(0, 5), st.floats(1e-4, 1))
def test_a_braking_way_is_used_up_exactly(distance: float, change: float) -> None:
    step = float(braking_step(np.array([distance]), np.array([change]))[0])
    way = 0.0
    while step > 1e-12:
        way, step = way + step, step - change
    assert way == pytest.approx(distance, abs=1e-9)


# What may happen to safety, by name: each is called with the time, and two numbers and a flag.
HAPPENS: dict[str, Callable[[Safety, int, float, float, bool], Any]] = {
    "arm": lambda s, t, a, b, flag: s.arm(t, np.array([a, b])),
    "disarm": lambda s, t, a, b, flag: s.disarm(t, "asked to"),
    "command": lambda s, t, a, b, flag: s.command(t, np.array([a, b]), t, flag),
    "hold": lambda s, t, a, b, flag: s.hold(t, "no chunk"),
    "policy_silent": lambda s, t, a, b, flag: s.policy_silent(t, t - 10**9),
    "safe_pose": lambda s, t, a, b, flag: s.safe_pose(t),
    "check_following": lambda s, t, a, b, flag: s.check_following(t, np.array([a, b])),
    "serial": lambda s, t, a, b, flag: s.serial(t, "noise" if flag else None),
    "emergency_stop": lambda s, t, a, b, flag: s.emergency_stop(t, "key"),
    "fault": lambda s, t, a, b, flag: s.fault(t, "broken"),
}
happening = st.tuples(
    st.sampled_from(sorted(HAPPENS)), st.integers(0, 10**9), weird, weird, st.booleans()
)


@given(st.lists(happening, max_size=40), st.booleans())
def test_whatever_happens_nothing_moves_unless_armed_and_the_last_states_are_final(
    events: list[tuple[str, int, float, float, bool]], with_pose: bool
) -> None:
    rules: dict[str, Any] = {"safe_pose_rad": [0.5, 0.5]} if with_pose else {}
    safety, now_ns = make_safety(policy_lost_s=0.5, hold_max_s=2.0, **rules), 10**10
    for name, wait_ns, a, b, flag in events:
        now_ns += wait_ns
        before, command = safety.state, safety.command_rad
        with contextlib.suppress(SafetyFault):
            moved = HAPPENS[name](safety, now_ns, a, b, flag)
            if name in ("command", "hold", "safe_pose"):
                assert before in (State.ARMED, State.HOLD, State.SAFE_POSE)
                assert np.all(np.abs(moved - command) <= LIMITS.velocity_rad_s * PERIOD_S + 1e-12)
                assert np.all((moved >= LIMITS.lower_rad) & (moved <= LIMITS.upper_rad))
        after = safety.state
        if before is State.FAULT:
            assert after is State.FAULT
        if before is State.TORQUE_OFF:
            assert after in (State.TORQUE_OFF, State.FAULT)
        if before is State.SAFE_POSE:
            assert after in (State.SAFE_POSE, State.DISARMED, State.TORQUE_OFF, State.FAULT)
        if before is State.DISARMED and after in (State.HOLD, State.ARMED, State.SAFE_POSE):
            assert name == "arm"
    times = [change.t_ns for change in safety.changes]
    assert times == sorted(times)


def test_an_emergency_stop_is_torque_off_and_final() -> None:
    safety = armed()
    with pytest.raises(SafetyFault, match="torque off: emergency stop by key"):
        safety.emergency_stop(5, "key")
    assert (safety.state, safety.torque_on) == (State.TORQUE_OFF, False)
    safety.disarm(6, "end of the run")
    assert safety.changes[-1].reason == "emergency stop by key"
    with pytest.raises(SafetyFault, match=r"can't arm after torque off \(emergency stop"):
        safety.arm(7, INSIDE)


def test_a_silent_policy_is_held_and_then_lost() -> None:
    safety = armed(policy_silent_s=0.25, policy_lost_s=1.0)
    heard_ns = 10**10
    assert not safety.policy_silent(heard_ns + 200_000_000, heard_ns)
    assert safety.policy_silent(heard_ns + 300_000_000, heard_ns)
    assert safety.torque_on
    with pytest.raises(SafetyFault, match=r"the policy has been silent for 1\.01 s"):
        safety.policy_silent(heard_ns + 1_010_000_000, heard_ns)
    assert safety.state is State.TORQUE_OFF


def until_torque_off(safety: Safety, now_ns: int) -> int:
    """Ticks on the way to the safe pose."""
    for tick in range(200):
        with contextlib.suppress(SafetyFault):
            safety.safe_pose(now_ns + tick * TICK_NS)
        if safety.state is State.TORQUE_OFF:
            return tick
    raise AssertionError("it never ended")


def test_a_lost_policy_is_followed_by_the_safe_pose_at_the_allowed_speed_then_torque_off() -> None:
    safety = armed(safe_pose_rad=[0.5, 0.3])
    now_ns = 10**10
    safety.policy_silent(now_ns + 2 * 10**9, now_ns)
    assert (safety.state, safety.torque_on) == (State.SAFE_POSE, True)
    with pytest.raises(SafetyFault, match="a command while safe pose"):
        safety.command(now_ns, INSIDE, now_ns, current=True)
    ticks = until_torque_off(safety, now_ns + 2 * 10**9)
    assert safety.changes[-1].reason.endswith("silent for 2.00 s; in the safe pose")
    assert ticks * PERIOD_S == pytest.approx(0.8, abs=2 * PERIOD_S)  # 0.2 rad at 0.25 rad/s
    np.testing.assert_allclose(safety.command_rad, [0.5, 0.3], atol=1e-6)


def test_a_safe_pose_out_of_reach_is_given_up_in_time() -> None:
    safety = armed(safe_pose_rad=[0.5, 0.3], safe_pose_timeout_s=0.1)
    safety.policy_silent(20 * 10**9, 10**10)
    assert until_torque_off(safety, 20 * 10**9) == 6
    assert safety.changes[-1].reason.endswith("did not reach the safe pose in time")


def test_a_hold_without_end_is_torque_off() -> None:
    safety = armed(hold_max_s=1.0)
    for tick in range(50):
        safety.hold(10**10 + tick * TICK_NS, "no chunk")
    with pytest.raises(SafetyFault, match="held for 1 s: no chunk"):
        safety.hold(10**10 + 10**9 + 1, "no chunk")


def test_a_joint_that_stays_behind_for_a_second_is_stalled_one_that_catches_up_is_not() -> None:
    safety = armed(stall_error_rad=0.1, stall_s=1.0)
    behind, there = INSIDE - [0.0, 0.2], INSIDE
    for t_s, position in ((0, behind), (0.9, behind), (1.0, there), (1.1, behind), (2.0, behind)):
        safety.check_following(10**10 + int(t_s * 1e9), position)
    with pytest.raises(SafetyFault, match=r"stalled, behind the command: tip by 0\.20 rad"):
        safety.check_following(10**10 + 2_100_000_000, behind)
    assert safety.state is State.FAULT


def no_right_half(position_rad: Vector) -> str | None:
    return "the wall" if position_rad[0] > 0.05 else None


def test_what_the_workspace_does_not_allow_is_held_at_its_edge() -> None:
    safety = armed(workspace=f"{__file__}:no_right_half")
    for tick in range(10):
        now_ns = 10**10 + tick * TICK_NS
        command = safety.command(now_ns, np.array([1.0, 0.5]), now_ns, current=True)
        assert no_right_half(command) is None
    assert safety.changes[-1].reason == "workspace: the wall"
    assert safety.command_rad[0] == pytest.approx(0.04)  # two steps; the third would be in it
    assert safety.counts["workspace: the wall"] == 8
    safety.command(10**10, np.array([-1.0, 0.5]), 10**10, current=True)
    assert safety.state is State.ARMED
    with pytest.raises(SafetyFault, match="can't arm: the wall"):
        safety.arm(10**10, np.array([0.5, 0.5]))


def test_a_workspace_that_is_not_there_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"safety\.workspace: nowhere\.py:at_all: FileNotFound"):
        make_safety(workspace="nowhere.py:at_all")


def test_a_workspace_lies_beside_robot_yaml_wherever_the_user_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, word in (("robot", "the wall"), ("elsewhere", "another file")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "cell.py").write_text(f"def allows(rad):\n    return {word!r}\n")
    monkeypatch.chdir(tmp_path / "elsewhere")
    for name in ("cell:allows", "cell.py:allows"):
        config = SafetyConfig.model_validate(
            {"workspace": name}, context={"folder": tmp_path / "robot"}
        )
        assert load_workspace(config.workspace, np.zeros(2))(np.zeros(2)) == "the wall"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("allow = 1", "AttributeError: module 'v2a_workspace' has no attribute 'allows'"),
        ("def", "SyntaxError: "),
        ("allows = 1", "TypeError: allows is no function"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("def allows(): pass", "TypeError: allows() takes 0 positional arguments but 1 was given"),
        ("def allows(rad): return True", "TypeError: allows returned True, expected None or"),
        ("def allows(rad): return rad[7]", "IndexError: "),
    ],
)
def test_a_workspace_that_cannot_be_loaded_is_one_line(
    tmp_path: Path, text: str, reason: str
) -> None:
    file = tmp_path / "cell.py"
    file.write_text(text)
    with pytest.raises(ConfigError, match="name it FILE") as caught:
        load_workspace(f"{file}:allows", np.zeros(2))
    assert f"{file}:allows: {reason}" in str(caught.value)
    assert "\n" not in str(caught.value)


def reading(*values: float) -> Reading:
    value = np.array(values)
    return Reading(value, np.isfinite(value), np.zeros(2, np.int64))


def health(t_ns: int, alarms: tuple[str, ...] = (), **readings: Reading) -> Health:
    quantities = dict.fromkeys(("voltage_v", "temperature_c", "current_a"))
    return Health(t_ns, alarms=alarms, **{**quantities, **readings})


def test_alarms_count_at_once_and_readings_when_they_last() -> None:
    rules = {"temperature_max_c": 60.0, "longest_s": 0.5, "voltage_min_v": 10.0}
    safety = armed(health=rules)
    hot, cold = reading(40.0, 61.0), reading(40.0, 59.0)
    safety.health(0, health(0, temperature_c=hot, voltage_v=reading(12.0, np.nan)))
    safety.health(1, health(400_000_000, temperature_c=cold))
    safety.health(2, health(500_000_000, temperature_c=hot))
    with pytest.raises(SafetyFault, match=r"tip: 61\.0 C, allowed -inf\.\.60"):
        safety.health(3, health(1_000_000_000, temperature_c=hot))
    assert safety.state is State.FAULT
    safety = armed(health=rules)
    with pytest.raises(SafetyFault, match="tip: overload"):
        safety.health(0, health(0, alarms=("", "overload")))


def test_a_valid_reading_that_is_no_number_is_bad() -> None:
    safety = armed(health={"current_max_a": 1.0, "longest_s": 0.0})
    bad = Reading(np.array([np.nan, 0.5]), np.ones(2, bool), np.zeros(2, np.int64))
    with pytest.raises(SafetyFault, match="base: nan A"):
        safety.health(0, health(0, current_a=bad))


def test_reasons_without_an_end_stay_few_and_short() -> None:
    """A workspace that writes the position into its reason makes a new one at each tick."""
    safety = SafetyRecord()
    for k in range(10_000):
        safety.counts.add(f"workspace: at {k} mm " + "x" * 1000)
    assert sum(safety.counts.values()) == 10_000
    assert len(safety.counts) == KINDS_MAX + 1
    assert safety.counts[OTHER] == 10_000 - KINDS_MAX
    assert max(map(len, safety.counts)) == TEXT_MAX
