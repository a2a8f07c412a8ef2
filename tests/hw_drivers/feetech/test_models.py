"""Feetech memory tables against rustypot's and the addresses in the vendor's SDK."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_drivers.bus.registers import Item
from hw_drivers.feetech.models import BAUD_RATES, MODELS, NO_SYNC_READ
from tests.conftest import REPOSITORY

RECORDED = json.loads(REPOSITORY.joinpath("tests/hw_drivers/peers.json").read_text())
# rustypot's STS3215 definition covers the STS3250, too.
RUSTYPOT = {
    name: RECORDED["rustypot"][definition]
    for name, definition in (("sts3215", "sts3215"), ("sts3250", "sts3215"), ("scs0009", "scs0009"))
}
# Our name -> rustypot's, where they differ.
RUSTYPOT_NAMES = {
    "status_return_level": "response_status_level",
    "temperature_limit": "max_temperature_limit",
    "shutdown": "unloading_condition",
    "position_p_gain": "p_coefficient",
    "position_i_gain": "i_coefficient",
    "position_d_gain": "d_coefficient",
    "overcurrent_time": "over_current_protection_time",
    "present_input_voltage": "present_voltage",
    "hardware_error_status": "status",
}
# Not in rustypot's STS table; the SCS one has it as sync_write_flag.
NOT_IN_RUSTYPOT = ("registered_instruction",)
# rustypot takes it for unsigned, the vendor's C++ SDK for signed: see models.py.
SIGN_IN_DISPUTE = ("present_current",)
SDK_NAMES = {
    "MODEL_L": "model_number",
    "ID": "id",
    "BAUD_RATE": "baud_rate",
    "MIN_ANGLE_LIMIT_L": "min_position_limit",
    "MAX_ANGLE_LIMIT_L": "max_position_limit",
    "CW_DEAD": "cw_dead_zone",
    "CCW_DEAD": "ccw_dead_zone",
    "OFS_L": "homing_offset",
    "MODE": "operating_mode",
    "TORQUE_ENABLE": "torque_enable",
    "ACC": "acceleration",
    "GOAL_POSITION_L": "goal_position",
    "GOAL_TIME_L": "goal_time",
    "GOAL_SPEED_L": "goal_velocity",
    "LOCK": "lock",
    "PRESENT_POSITION_L": "present_position",
    "PRESENT_SPEED_L": "present_velocity",
    "PRESENT_LOAD_L": "present_load",
    "PRESENT_VOLTAGE": "present_input_voltage",
    "PRESENT_TEMPERATURE": "present_temperature",
    "MOVING": "moving",
    "PRESENT_CURRENT_L": "present_current",
}
LEFT_OUT = {"scs0009": {"cw_dead_zone", "ccw_dead_zone", "present_current"}}


@pytest.mark.parametrize("name", MODELS)
def test_every_register_is_where_rustypot_has_it(name: str) -> None:
    theirs = {register: rest for register, *rest in RUSTYPOT[name]["registers"]}
    for ours, item in MODELS[name].items.items():
        if ours not in NOT_IN_RUSTYPOT:
            address, size, sign_bit = theirs[RUSTYPOT_NAMES.get(ours, ours)]
            assert (item.address, item.size) == (address, size), ours
            assert item.sign_bit == sign_bit or ours in SIGN_IN_DISPUTE, ours


@pytest.mark.parametrize("name", MODELS)
def test_the_model_is_rustypots(name: str) -> None:
    model, theirs = MODELS[name], RUSTYPOT[name]
    assert model.number == theirs["models"][name.upper()]
    assert {item.order for item in model.items.values()} == {theirs["word_order"]}
    assert (name in NO_SYNC_READ) == (not theirs["supports_sync_read"])
    assert BAUD_RATES.items() <= {int(k): v for k, v in theirs["baud_rates"].items()}.items()


@pytest.mark.parametrize("name", ["sts3215", "scs0009"])
def test_every_address_of_the_vendors_sdk_is_ours(name: str) -> None:
    theirs = RECORDED["ftservo-python-sdk"]["addresses"][name]
    addresses = {SDK_NAMES[register]: address for register, address in theirs.items()}
    ours = {register: item.address for register, item in MODELS[name].items.items()}
    left_out = LEFT_OUT.get(name, set())
    assert {register: at for register, at in addresses.items() if register not in left_out} == {
        register: ours[register] for register in addresses.keys() - left_out
    }


def test_signs_and_byte_orders_are_the_vendors() -> None:
    for order, sign_bit, value, stored in RECORDED["ftservo-python-sdk"]["words"]:
        item = Item(0, 2, sign_bit=sign_bit, order=order)
        assert item.pack(value).hex() == stored
        assert item.unpack(bytes.fromhex(stored)) == value


@given(st.integers(-2047, 2047))
def test_a_signed_magnitude_keeps_its_value(raw: int) -> None:
    item = MODELS["sts3215"].items["homing_offset"]
    assert item.unpack(item.pack(raw)) == raw


@pytest.mark.parametrize("raw", [2048, -2048])
def test_a_magnitude_that_would_flip_the_sign_does_not_fit(raw: int) -> None:
    with pytest.raises(OverflowError, match="does not fit below sign bit 11"):
        MODELS["sts3215"].items["homing_offset"].pack(raw)
