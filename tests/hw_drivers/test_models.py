"""Control tables against those that the vendor ships with its SDK."""

from __future__ import annotations

from pathlib import Path

import dynamixel_easy_sdk
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_drivers.dynamixel.models import MODELS, Item, Model, describe_hardware_error

TABLES = Path(dynamixel_easy_sdk.__file__).parent / "control_table"


def vendor_table(model: Model) -> dict[str, tuple[int, int]]:
    """Register name -> (address, size), from the vendor's `.model` file."""
    text = (TABLES / f"{model.name.replace('-', '_')}.model").read_text()
    rows = text.partition("[control table]")[2].strip().splitlines()[1:]
    fields = (row.split("\t") for row in rows)
    return {name.lower().replace(" ", "_"): (int(at), int(size)) for at, size, name in fields}


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
def test_every_register_is_where_the_vendor_has_it(model: Model) -> None:
    ours = {name: (item.address, item.size) for name, item in model.items.items()}
    assert ours.items() <= vendor_table(model).items()


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
def test_initial_values_are_allowed_and_the_number_is_the_models(model: Model) -> None:
    assert model.items["model_number"].initial == model.number
    for name, item in model.items.items():
        assert item.unpack(item.pack(item.initial)) == item.initial, name
        if item.limits:
            assert item.limits[0] <= item.initial <= item.limits[1], name


def test_velocity_unit_is_the_vendors() -> None:
    # "[unit info] Present Velocity 0.0239691227 rad/s" in the vendor's file; the manual rounds the
    # same unit to 0.229 rev/min.
    item = MODELS["xl430-w250"].items["present_velocity"]
    assert item.scale == pytest.approx(0.0239691227, rel=1e-3)


@given(st.integers(-(2**31), 2**31 - 1))
def test_a_signed_register_keeps_its_value(raw: int) -> None:
    item = Item(132, 4, signed=True)
    assert item.unpack(item.pack(raw)) == raw


def test_hardware_errors_in_words() -> None:
    assert describe_hardware_error(0b100100) == "overheating, overload"
    assert describe_hardware_error(0b1000_0000) == "unknown bit 7"
    assert describe_hardware_error(0) == ""
