"""No value of robot.yaml switches a protection off: each key has bounds, and keys fit together."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from hw_drivers.dynamixel.models import WATCHDOG_TICK_S
from hw_drivers.family import FAMILIES, all_models, load_family
from hw_drivers.robot.config import SPEED_MAX_RAD_S
from runtime.config.robot_yaml import RunConfig
from runtime.host.realtime import check_core
from runtime.recording.header import Header
from v2a.bounds import RECORDED, bounded_keys, looser_than_default
from v2a.config import load_yaml
from v2a.errors import ConfigError
from v2a.names import MACHINE_STAGES

DOC = Path(__file__).parents[3] / "docs" / "robot_yaml.md"
JOINT = {"model": "xl430-w250", "lower_rad": -2, "upper_rad": 2, "velocity_limit_rad_s": 1}
ROBOT: dict[str, Any] = {
    "robot": {
        "name": "two",
        "bus": {"protocol": "dynamixel2", "port": "/dev/ttyUSB0", "baud": 1_000_000},
        "joints": [{"name": "base", "id": 1} | JOINT, {"name": "tip", "id": 2} | JOINT],
    },
    "camera": {"source": "/dev/video0"},
    "instruction": "push the cube",
}
CONFIG = RunConfig.model_validate(ROBOT)
KEYS = {row.key: row for row in bounded_keys(CONFIG)}


def changed(*changes: tuple[str, Any]) -> dict[str, Any]:
    """The robot with each key, "safety.hold_max_s", at its new value."""
    whole: Any = yaml.safe_load(yaml.safe_dump(ROBOT))
    for key, value in changes:
        *parents, last = key.split(".")
        part = whole
        for name in parents:
            part = part[int(name)] if isinstance(part, list) else part.setdefault(name, {})
        part[last] = value
    found: dict[str, Any] = whole
    return found


def refused(folder: Path, *changes: tuple[str, Any]) -> list[str]:
    """The faults of the file with these changes; each begins with its line number."""
    file = folder / "robot.yaml"
    file.write_text(yaml.safe_dump(changed(*changes), sort_keys=False))
    try:
        load_yaml(file, RunConfig)
    except ConfigError as error:
        return [line.removeprefix(f"{file}:") for line in str(error).splitlines()]
    return []


def number_fields(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """The keys of `model` whose value is a float."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from number_fields(kind, f"{path}{name}.")
        elif kind in (float, float | None):
            yield f"{path}{name}"


def test_every_number_of_the_file_is_bounded() -> None:
    """A new key without bounds fails here."""
    harmless = {"system1.noise_scale"}  # 0 to 1, and it is no limit
    assert set(number_fields(RunConfig)) - harmless <= set(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_a_value_out_of_bounds_is_one_line_with_the_reason(tmp_path: Path, key: str) -> None:
    bounds = KEYS[key].bounds
    for value in (bounds.high * 1.01 + 1, bounds.low - 1, 10**18):
        number = int(value) if isinstance(KEYS[key].default, int) or key.endswith("core") else value
        (line,) = refused(tmp_path, (key, number))
        assert f": {key}: must be {bounds.low:g} to {bounds.high:g}: {bounds.reason}" in line
        assert line.partition(":")[0].isdigit()


@pytest.mark.parametrize("key", KEYS)
def test_both_bounds_themselves_are_in_bounds(tmp_path: Path, key: str) -> None:
    for value in (KEYS[key].bounds.low, KEYS[key].bounds.high):
        # Another key may not fit to this one, or the servo may be slower: that is another line.
        own = f": {key}: must be {KEYS[key].bounds.low:g} to"
        assert not [line for line in refused(tmp_path, (key, value)) if own in line]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", [True, "5", "1:30", [1.0], float("nan"), float("inf")])
def test_only_a_number_is_a_number(tmp_path: Path, key: str, value: object) -> None:
    (line,) = refused(tmp_path, (key, value))
    assert f": {key}: Input should be a" in line


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([("robot.bus.budget_s", 0.2)], "robot.bus.budget_s: must not be above the control period"),
        (
            [("robot.bus.watchdog_s", 0.04)],
            "robot.bus.watchdog_s: must be above two control periods",
        ),
        ([("control.rate_hz", 5)], "safety.state_age_max_s: must be above the control period"),
        ([("control.serial_faults_max", 1000)], "control.serial_faults_max: 1000 bad cycles take"),
        ([("camera.fps", 0.4)], "camera.timeout_s: must be above the time between two pictures"),
        ([("safety.policy_silent_s", 2)], "safety.policy_silent_s: must be below policy_lost_s"),
        ([("system2.soft_age_s", 3)], "system2.soft_age_s: must not be above hard_age_s"),
        (
            [("safety.health", {"voltage_min_v": 12, "voltage_max_v": 11})],
            "safety.health.voltage_min_v: must be below voltage_max_v",
        ),
        ([("safety.health", {"voltage_max_v": 0})], "voltage_max_v: must be 3 to 30"),
        ([("safety.safe_pose_rad", [0.0])], "safety.safe_pose_rad: has 1 angles, two has 2 joints"),
        ([("safety.safe_pose_rad", [0, 2.1])], "safety.safe_pose_rad.1: joint tip moves from -2"),
        ([("robot.joints.1.velocity_limit_rad_s", 30)], "must be at most 24.5, the highest speed"),
        ([("robot.joints.1.id", 1)], "robot.joints.1.id: 1 is also the id of joints.0"),
        ([("robot.joints.1.direction", True)], "joints.1.direction: Input should be a valid int"),
        ([("control.require_rt", 1)], "control.require_rt: Input should be a valid boolean"),
        ([("instruction", 5)], "instruction: Input should be a valid string (got 5)"),
    ],
)
def test_keys_that_do_not_fit_are_named(
    tmp_path: Path, changes: list[tuple[str, Any]], expected: str
) -> None:
    (line,) = refused(tmp_path, *changes)
    assert expected in line


def test_a_fault_points_at_its_own_line(tmp_path: Path) -> None:
    (line,) = refused(tmp_path, ("robot.joints.1.id", 1))
    numbers = [
        number
        for number, text in enumerate((tmp_path / "robot.yaml").read_text().splitlines(), start=1)
        if text.endswith("id: 1")
    ]
    assert line.partition(":")[0] == str(numbers[1])


def test_all_misfits_are_told_at_once(tmp_path: Path) -> None:
    lines = refused(tmp_path, ("robot.bus.budget_s", 0.3), ("control.serial_faults_max", 999))
    assert len(lines) == 2


@pytest.mark.parametrize(
    "changes",
    [
        [("control.rate_hz", 4.5), ("robot.bus.budget_s", 0.2), ("safety.state_age_max_s", 1.0)],
        [("safety.hold_max_s", 600)],
        [("safety.policy_lost_s", 5), ("safety.policy_silent_s", 3)],
        [("control.rate_hz", 100), ("control.serial_faults_max", 25)],
        [("robot.bus.budget_s", 0.02)],
    ],
)
def test_what_real_robots_need_is_allowed(tmp_path: Path, changes: list[tuple[str, Any]]) -> None:
    """A slow USB adapter, a person beside a holding arm, a slow machine, a loaded desk."""
    assert refused(tmp_path, *changes) == []


@pytest.mark.parametrize(("rate_hz", "budget_s"), [(5, 0.02), (50, 0.019), (100, 0.0095)])
def test_a_budget_that_was_not_set_fits_into_the_period(rate_hz: float, budget_s: float) -> None:
    whole = changed(("control.rate_hz", rate_hz), ("safety.state_age_max_s", 1.0))
    config = RunConfig.model_validate(whole)
    assert config.robot.bus.budget_s == pytest.approx(budget_s)
    assert "budget_s" not in config.robot.bus.model_fields_set
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config


def test_values_looser_than_the_default_are_told() -> None:
    assert looser_than_default(CONFIG) == []
    loose = changed(
        ("safety.hold_max_s", 60),
        ("safety.stall_s", 0.5),
        ("control.rate_hz", 25),
        ("safety.health", {"voltage_max_v": 12.6, "longest_s": 2}),
    )
    assert looser_than_default(RunConfig.model_validate(loose)) == [
        "control.rate_hz is 25, looser than the default 50",
        "safety.hold_max_s is 60, looser than the default 10",
        "safety.health.longest_s is 2, looser than the default 0.5",
    ]


def test_the_configuration_of_a_recording_has_no_bounds() -> None:
    """An older v2a took these values, and nothing can change that run any more."""
    whole = changed(
        ("safety.hold_max_s", 1e18), ("robot.bus.budget_s", 20), ("safety.policy_silent_s", 99)
    )
    fields = {"start_ns": 0, "policy": "p", "bundle": "b", "bundle_sha256": "", "provenance": {}}
    fields |= {"stages": MACHINE_STAGES, "rates": {}}
    header = Header.model_validate(
        {**fields, "config": whole, "seed": 0, "versions": {}}, context=RECORDED
    )
    assert header.config.safety.hold_max_s == 1e18


def test_the_bounds_hold_for_every_servo_of_the_tables() -> None:
    for protocol in FAMILIES:
        if watchdog := load_family(protocol).watchdog:
            assert (watchdog.unit_s, watchdog.longest * watchdog.unit_s) == (WATCHDOG_TICK_S, 2.54)
    for model in all_models().values():
        if register := model.items.get("velocity_limit"):
            assert register.limits is not None
            assert register.limits[1] * register.scale <= SPEED_MAX_RAD_S


def test_the_documentation_lists_every_bound() -> None:
    rows = [line for line in DOC.read_text().splitlines() if line.startswith("| `")]
    for key, row in KEYS.items():
        if key.startswith("robot.joints.1"):
            continue
        shown = key.replace("joints.0", "joints[]")
        low, high, reason = row.bounds.low, row.bounds.high, row.bounds.reason
        assert f"| `{shown}` | {low:g} to {high:g} | {reason} |" in rows


def test_a_joint_with_a_fault_is_one_line(tmp_path: Path) -> None:
    """Pydantic also calls the list of joints too short then."""
    (line,) = refused(tmp_path, ("robot.joints", [{"name": "base", "id": 300} | JOINT]))
    assert "robot.joints.0.id" in line
    (line,) = refused(tmp_path, ("robot.joints", []))
    assert "robot.joints" in line


def test_a_part_that_is_no_mapping_is_told_without_names_of_classes(tmp_path: Path) -> None:
    (line,) = refused(tmp_path, ("safety.health", 3))
    assert "safety.health: must be a mapping of keys to values (got 3)" in line


def test_an_emergency_stop_without_an_input_is_refused(tmp_path: Path) -> None:
    (line,) = refused(tmp_path, ("safety.estop", {}))
    assert "safety.estop: has no stop input" in line
    whole = RunConfig.model_validate_json(CONFIG.model_dump_json())
    assert whole.safety.estop == CONFIG.safety.estop


def test_minus_zero_is_zero() -> None:
    config = RunConfig.model_validate(changed(("safety.health", {"longest_s": -0.0})))
    assert str(config.safety.health.longest_s) == "0.0"


def test_a_core_that_the_machine_lacks_is_refused() -> None:
    before = os.sched_getaffinity(0)
    with pytest.raises(ConfigError, match=r"control.core: this machine has the cores 0.*got 1023"):
        check_core(1023)
    check_core(min(before))
    check_core(None)
    assert os.sched_getaffinity(0) == before
