"""docs/reference/summary.md lists every key of the models, as the models describe them."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from runtime.host.run_delay import ThreadTimes
from runtime.recording.header import Header
from runtime.recording.info import RecordingInfo
from runtime.summary_model import CpuTime, Dropped, RunSummary, Spread, StateChange
from runtime.web.live_status import JointStatus, LiveStatus, RecentChange, RecentTimes
from tests.conftest import REPOSITORY
from v2a.measured import Times

PAGE = REPOSITORY / "docs" / "reference" / "summary.md"
UNITS = ("A", "V", "degrees C", "ms", "ns", "rad", "s")
# One root model and the models inside it, in the order of the page.
MODELS = (
    (RunSummary, Times, Spread, Dropped, StateChange, CpuTime, ThreadTimes),
    (LiveStatus, RecentTimes, RecentChange, JointStatus),
    (Header,),
    (RecordingInfo,),
)
EACH = [model for models in MODELS for model in models]


def rows(model: type[BaseModel]) -> list[str]:
    """The rows of a model's table: key, meaning, unit."""
    found = []
    for name, field in model.model_fields.items():
        text, _, unit = str(field.description).rpartition(", ")
        meaning, unit = (text, unit) if unit in UNITS else (str(field.description), "")
        found.append(f"| `{name}` | {meaning} | {unit} |".replace("|  |", "| |"))
    return found


@pytest.mark.parametrize("model", EACH)
def test_every_key_is_in_the_models_table(model: type[BaseModel]) -> None:
    table = "\n".join(rows(model))
    assert f"| key | meaning | unit |\n|---|---|---|\n{table}\n" in PAGE.read_text(), (
        f"the table of {model.__name__} should be:\n{table}"
    )


def test_no_model_inside_a_root_model_is_forgotten() -> None:
    for root, *_ in MODELS:
        inside = set(root.model_json_schema().get("$defs", ()))
        known = {model.__name__ for model in EACH}
        assert {name for name in inside if not name.endswith("Config")} <= known


@pytest.mark.parametrize("model", EACH)
def test_every_key_has_a_description(model: type[BaseModel]) -> None:
    assert [name for name, field in model.model_fields.items() if not field.description] == []
