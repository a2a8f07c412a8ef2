"""Every fault of a YAML file at once, each with its line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator

from v2a.config import Strict, load_yaml
from v2a.errors import ConfigError


class Servo(Strict):
    kind: Literal["servo"] = "servo"
    id: Annotated[int, Field(ge=0, le=252)]
    model: str


class Bus(Strict):
    port: str
    baud: int = 1_000_000
    joints: list[Servo]


class RobotFile(Strict):
    name: str
    bus: Bus
    spare: Servo | None = None
    limits: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _named(self) -> RobotFile:
        if self.name == "nobody":
            raise ValueError("a robot needs a name of its own")
        return self


GOOD = """\
name: arm
bus:
  port: /dev/ttyUSB0
  joints:
    - {id: 1, model: xl430-w250}
    - id: 2
      model: xl430-w250
limits: {shoulder: 1.5}
"""


Faults = Callable[[str], list[str]]


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Faults:
    """A function from YAML text to the lines of the ConfigError that it causes."""
    monkeypatch.chdir(tmp_path)

    def load(text: str) -> list[str]:
        Path("robot.yaml").write_text(text)
        with pytest.raises(ConfigError) as caught:
            load_yaml(Path("robot.yaml"), RobotFile)
        return str(caught.value).splitlines()

    return load


def test_a_good_file_becomes_an_immutable_model(tmp_path: Path) -> None:
    file = tmp_path / "robot.yaml"
    file.write_text(GOOD)
    robot = load_yaml(file, RobotFile)
    assert [joint.id for joint in robot.bus.joints] == [1, 2]
    assert robot.limits == {"shoulder": 1.5}
    with pytest.raises(ValidationError, match="frozen"):
        robot.name = "other"  # type: ignore[misc] # what the test is about


def test_all_faults_are_told_at_once_in_the_order_of_the_file(faults: Faults) -> None:
    text = GOOD.replace("id: 2", "id: 300").replace("port:", "prot:").replace("1.5", "fast")
    assert faults(text) == [
        "robot.yaml:2: bus.port: this key is missing",
        "robot.yaml:3: bus.prot: unknown key, did you mean 'port'?",
        "robot.yaml:6: bus.joints.1.id: Input should be less than or equal to 252 (got 300)",
        "robot.yaml:8: limits.shoulder: Input should be a valid number (got 'fast')",
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("name: arm", "nmae: arm", "robot.yaml:1: nmae: unknown key, did you mean 'name'?"),
        (
            "{id: 1,",
            "{id: 1, modle: x,",
            "5: bus.joints.0.modle: unknown key, did you mean 'model'",
        ),
        ("limits:", "spare: {idd: 1}\nlimits:", "8: spare.idd: unknown key, did you mean 'id'?"),
        ("limits:", "zzz: 1\nlimits:", "8: zzz: unknown key, known are: bus, limits, name, spare"),
        ("name: arm", "name: nobody", "robot.yaml:1: a robot needs a name of its own (got {"),
        ("name: arm", "name: a\nname: b", "2: name: this key is already on line 1; remove one"),
        ("{id: 1,", "{id: 1, id: 1,", "5: bus.joints.0.id: this key is already on line 5"),
        ("{id: 1,", "{id: 1", "robot.yaml:5: expected"),
        ("name: arm", "name: [", "robot.yaml:3: expected"),
        ("name: arm", "name: !!python/object:os.system {}", "1: could not determine a constructor"),
        ("name: arm", "name: 2026-99-99", "robot.yaml: not readable as YAML: month must be in"),
        ("name: arm", "name: &loop [*loop]", "robot.yaml:1: nested more than 40 deep"),
        ("name: arm", "name: '\x00'", "robot.yaml: not readable as YAML: "),
    ],
)
def test_a_fault_is_named_with_its_line(faults: Faults, old: str, new: str, expected: str) -> None:
    lines = faults(GOOD.replace(old, new))
    assert any(expected in line for line in lines), lines


def test_a_long_value_is_cut(faults: Faults) -> None:
    (line,) = faults(GOOD.replace("{shoulder: 1.5}", "x" * 500))
    assert len(line) < 150


BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 10)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BOMB, "robot.yaml: has more than 100000 keys, with those of its aliases"),
        ("[" * 5000 + "]" * 5000, "robot.yaml: nested more than 40 deep"),
        ("{" * 3000, "robot.yaml: nested more than 40 deep"),
        ("name: " + "9" * 6000, "robot.yaml: not readable as YAML: "),
    ],
)
def test_a_file_made_to_exhaust_is_one_line(faults: Faults, text: str, expected: str) -> None:
    (line,) = faults(text)
    assert line.startswith(expected)


@pytest.mark.parametrize(
    ("written", "read"),
    [("1e3", 1000.0), ("-.5", -0.5), ("1.5E-2", 0.015), ("7", 7.0)],
)
def test_a_number_is_what_it_looks_like(tmp_path: Path, written: str, read: float) -> None:
    file = tmp_path / "robot.yaml"
    file.write_text(GOOD.replace("1.5", written))
    assert load_yaml(file, RobotFile).limits == {"shoulder": read}


@pytest.mark.parametrize(
    "written", ["yes", "010", "1:30", "0x10", "1_0", "1_0.5", "'5'", "true", "2026-01-01"]
)
def test_nothing_else_is_a_number(faults: Faults, written: str) -> None:
    """YAML 1.1 reads 010 as 8 and 1:30 as 90; pydantic takes yes as 1.0 and '5' as 5."""
    (line,) = faults(GOOD.replace("1.5", written))
    assert line.startswith("robot.yaml:8: limits.shoulder: Input should be a valid number")


def test_an_empty_file_and_a_list_are_no_configuration(faults: Faults) -> None:
    assert faults("") == ["robot.yaml: is empty; expected a mapping of keys"]
    assert faults("- 1\n")[0].startswith("robot.yaml:1: must be a mapping of keys to values")


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_yaml(tmp_path / "none.yaml", RobotFile)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_yaml(tmp_path, RobotFile)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigError, match="not readable as YAML"):
        load_yaml(tmp_path / "binary.yaml", RobotFile)


def test_an_anchor_may_be_used_twice(tmp_path: Path) -> None:
    file = tmp_path / "robot.yaml"
    file.write_text("name: arm\nspare: &s {id: 1, model: x}\nbus: {port: p, joints: [*s, *s]}\n")
    robot = load_yaml(file, RobotFile)
    assert robot.bus.joints == [robot.spare, robot.spare]


@given(st.text(alphabet="ab:-{}[]&*!? \n'\"#|>%1.<", max_size=60))
def test_any_text_is_a_robot_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"fuzz\.yaml"):
        load_yaml(file, RobotFile)


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
def test_what_is_not_finite_is_a_fault(faults: Faults, value: str) -> None:
    """It would pass every limit check: each comparison with NaN is false."""
    (line,) = faults(GOOD.replace("shoulder: 1.5", f"shoulder: {value}"))
    assert line.startswith("robot.yaml:8: limits.shoulder: Input should be a finite number")
