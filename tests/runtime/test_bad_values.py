"""Values that pass a careless check: NaN, names that lead out of a folder, paths of others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from runtime.config.safety_yaml import EstopConfig
from runtime.fit import check_units
from runtime.profile.files import claim_folder, read_profile
from runtime.safety.estop import Estop
from tests.runtime.config.test_bounds import refused
from tests.runtime.conftest import manifest
from v2a.bundle import load_bundle
from v2a.cli import cli
from v2a.errors import BundleError, ConfigError


@pytest.mark.parametrize(
    "command",
    [
        ("run", "robot.yaml", "--bundle", "b", "--seconds"),
        ("profile", "b", "--seconds"),
        ("sweep", "b", "threads=1", "--seconds"),
        ("motors", "monitor", "--port", "p", "--seconds"),
        ("motors", "jog", "--port", "p", "--id", "1", "--step"),
    ],
)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "NaN"])
def test_a_time_or_an_angle_is_finite(command: tuple[str, ...], value: str) -> None:
    done = CliRunner().invoke(cli, [*command, value])
    assert done.exit_code == 2
    assert "is not a finite number" in done.stderr or "is not in the range" in done.stderr


@pytest.mark.parametrize("key", ["robot.name", "robot.joints.0.name"])
@pytest.mark.parametrize(
    "name", ["../../etc", "a/b", "", ".", "..", ".hidden", "a\nb", "a\0b", " a", "a ", "x" * 65]
)
def test_a_name_that_could_be_a_path_is_refused(tmp_path: Path, key: str, name: str) -> None:
    lines = refused(tmp_path, (key, name))
    assert [line for line in lines if f": {key}: a name has letters" in line or "YAML" in line]


@pytest.mark.parametrize("name", ["SO-101", "left arm", "Übungsroboter_2", "shoulder_pan.pos"])
def test_the_names_that_robots_have_are_allowed(tmp_path: Path, name: str) -> None:
    assert refused(tmp_path, ("robot.name", name), ("robot.joints.0.name", name)) == []


def test_an_emergency_stop_needs_a_path_that_can_be_bound(tmp_path: Path) -> None:
    for path, says in (("", "at least 1 character"), ("/" + "x" * 200, "has at most 107 bytes")):
        (line,) = refused(tmp_path, ("safety.estop", {"socket": path}))
        assert says in line
    (tmp_path / "file").write_text("mine")
    for there in (tmp_path / "file", tmp_path, tmp_path / "none" / "estop"):
        with pytest.raises(ConfigError, match="name a new path in a folder that you may write"):
            Estop(EstopConfig(socket=str(there)))
    assert (tmp_path / "file").read_text() == "mine"


def test_deeply_nested_json_is_no_profile_and_no_bundle(tmp_path: Path) -> None:
    for name in ("profile.json", "manifest.json"):
        (tmp_path / name).write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(ConfigError, match="not a profile"):
        read_profile(tmp_path)
    with pytest.raises(BundleError, match="is not JSON"):
        load_bundle(tmp_path)


def test_a_bundle_is_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(BundleError, match="give the folder of a bundle"):
        load_bundle(file)


def test_a_joint_in_another_unit_is_refused_by_name() -> None:
    whole: dict[str, Any] = json.loads(manifest().model_dump_json())
    whole["action_space"]["joints"][1]["unit"] = "1"
    with pytest.raises(ConfigError, match=r"joint tip: .* in the unit '1', and robot"):
        check_units(type(manifest()).model_validate(whole))
    check_units(manifest())


@pytest.mark.parametrize(
    "option", ["--robot=r.yaml", "--camera=x", "--seconds=20", "--engine=ort", "--threads=1"]
)
def test_a_profile_of_a_recording_takes_no_measuring_option(tmp_path: Path, option: str) -> None:
    done = CliRunner().invoke(cli, ["profile", "--run", str(tmp_path), option])
    assert done.exit_code == 2
    assert f"{option.partition('=')[0]} says how to measure" in done.stderr


def test_a_folder_is_claimed_before_anything_is_measured(tmp_path: Path) -> None:
    assert claim_folder(tmp_path / "new") == tmp_path / "new"
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match="can't record there"):
            claim_folder(folder)
