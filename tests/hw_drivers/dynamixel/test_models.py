"""Control tables against those that the vendor ships with its SDK."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import dynamixel_easy_sdk
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_drivers.bus.registers import Item, Model, find_model
from hw_drivers.dynamixel.models import BAUD_RATES, MODELS, TABLES, describe_hardware_error
from hw_drivers.feetech import models as feetech
from tests.conftest import REPOSITORY

PEERS = REPOSITORY / "tests/hw_drivers/peers.json"
FILES = Path(dynamixel_easy_sdk.__file__).parent / "control_table"
NOT_IN_FILES = {"startup_configuration": (60, 1)}  # the vendor's files lack it, the manual has it
# Of a range of indirect registers we name the first; the files, some more within the range.
MORE_INDIRECT = r"indirect_(address|data)_(write|read)"


def vendor_table(model: Model) -> dict[str, tuple[int, int]]:
    """Register name -> (address, size), from the vendor's `.model` file for that firmware."""
    stem = FILES / model.name.replace("-", "_")
    of_firmware = stem.with_name(f"{stem.name}_fw{model.firmware[0]}.model")
    file = of_firmware if of_firmware.exists() else stem.with_suffix(".model")
    rows = file.read_text().partition("[control table]")[2].strip().splitlines()[1:]
    fields = (row.split("\t") for row in rows)
    table = {
        re.sub(r"\(\w+\)", "", name.lower()).replace(" ", "_"): (int(address), int(size))
        for address, size, name in fields
    }
    return {name: at for name, at in table.items() if not re.fullmatch(MORE_INDIRECT, name)}


def named(model: Model) -> str:
    return f"{model.name}-fw{model.firmware[0]}"


@pytest.mark.parametrize("model", MODELS.values(), ids=named)
def test_the_table_is_the_vendors(model: Model) -> None:
    ours = {name: (item.address, item.size) for name, item in model.items.items()}
    assert ours == vendor_table(model) | NOT_IN_FILES


@pytest.mark.parametrize("model", TABLES, ids=named)
def test_old_firmware_has_nothing_that_the_vendor_lacks(model: Model) -> None:
    ours = {name: (item.address, item.size) for name, item in model.items.items()}
    assert ours.items() <= (vendor_table(model) | NOT_IN_FILES).items()


@pytest.mark.parametrize("model", TABLES, ids=named)
def test_the_number_is_the_vendors(model: Model) -> None:
    rows = (FILES / "dynamixel.model").read_text().splitlines()[1:]
    numbers = {name: number for number, name in (row.split("\t") for row in rows)}
    assert str(model.number) == numbers[f"{model.name.replace('-', '_')}.model"]


def every_model() -> list[Model]:
    return [*TABLES, *feetech.TABLES]


@pytest.mark.parametrize("model", every_model(), ids=named)
def test_initial_values_are_allowed_and_fit(model: Model) -> None:
    assert model.items["model_number"].initial == model.number
    for name, item in model.items.items():
        assert item.unpack(item.pack(item.initial)) == item.initial, name
        for raw in item.limits or ():
            assert item.unpack(item.pack(raw)) == raw, name
        if item.limits:
            assert item.limits[0] <= item.initial <= item.limits[1], name


@pytest.mark.parametrize("model", every_model(), ids=named)
def test_registers_do_not_overlap(model: Model) -> None:
    items = sorted(model.items.values(), key=lambda item: item.address)
    assert all(a.address + a.size <= b.address for a, b in pairwise(items))


@pytest.mark.parametrize("model", TABLES, ids=named)
def test_a_servo_finds_its_table_by_number_and_firmware(model: Model) -> None:
    assert model.firmware[0] <= model.items["firmware_version"].initial <= model.firmware[1]
    for firmware in model.firmware:
        assert find_model(TABLES, model.number, firmware) is model


def test_what_firmware_changed() -> None:
    old, new = (find_model(TABLES, 1200, firmware) for firmware in (51, 52))
    assert old
    assert new
    assert old.items["indirect_data_1"].address == 224
    assert new.items["indirect_data_1"].address == 208
    before_watchdog = find_model(TABLES, 1020, 37)
    assert before_watchdog
    assert "bus_watchdog" not in before_watchdog.items
    assert find_model(TABLES, 4711, 46) is None


def test_baud_rates_are_rustypots() -> None:
    recorded = json.loads(REPOSITORY.joinpath("tests/hw_drivers/peers.json").read_text())[
        "rustypot"
    ]
    theirs = recorded["xl330-m288"]["baud_rates"]
    assert {int(raw): baud for raw, baud in theirs.items()} == {
        raw: baud for raw, baud in BAUD_RATES.items() if raw != 7
    }


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
