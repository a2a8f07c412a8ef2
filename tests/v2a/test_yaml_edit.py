"""A value of a YAML file changes; everything else stays, byte for byte."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from v2a.errors import ConfigError
from v2a.yaml_edit import Path, with_values

TEXT = """\
robot:   # an arm
  joints:
    - {name: a, lower_rad: -1.5, upper_rad: 1}   # flow
    - name: b
      lower_rad: -0.25  # block
      upper_rad: 2
"""


def test_comments_and_layout_stay() -> None:
    new: dict[Path, float] = {
        ("robot", "joints", 0, "lower_rad"): -1.25,
        ("robot", "joints", 1, "upper_rad"): 2.5,
    }
    changed = with_values(TEXT, new)
    assert changed == TEXT.replace("-1.5", "-1.25").replace("upper_rad: 2\n", "upper_rad: 2.5\n")


@given(st.lists(st.floats(-10, 10), min_size=4, max_size=4))
def test_the_file_then_says_the_new_values_and_nothing_else_new(values: list[float]) -> None:
    paths = [("robot", "joints", k, key) for k in (0, 1) for key in ("lower_rad", "upper_rad")]
    read = yaml.safe_load(with_values(TEXT, dict(zip(paths, values, strict=True))))
    joints = read["robot"]["joints"]
    # YAML 1.1 reads 1e-05 as a string; `float` reads it as any loader of numbers does.
    assert [float(joints[k][key]) for *_, k, key in paths] == values
    assert [joint["name"] for joint in joints] == ["a", "b"]


@pytest.mark.parametrize(
    "path", [("robot", "joints", 2, "lower_rad"), ("robot", "joints"), ("arm",), ("robot", "x", 0)]
)
def test_a_value_that_is_not_there_is_named(path: tuple[str | int, ...]) -> None:
    with pytest.raises(ConfigError, match=str(path[-1])):
        with_values(TEXT, {path: 1.0})


def test_two_values_behind_one_alias_are_refused() -> None:
    with pytest.raises(ConfigError, match="alias"):
        with_values("a: &x 1\nb: *x\n", {("a",): 1.0, ("b",): 2.0})
