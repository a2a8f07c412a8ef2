"""docs/reference says of every key of the models what it means, and nothing else."""

from __future__ import annotations

import pytest

from tools.reference import (
    FOLDER,
    MARKER,
    PAGES,
    SERVOS,
    SERVOS_MARKER,
    Model,
    models_of,
    tables,
)
from tools.servo_tables import servo_tables

ROOTS = [root for roots in PAGES.values() for root in roots]
EVERY = list(dict.fromkeys(model for root in ROOTS for model in models_of(root)))


@pytest.mark.parametrize("name", PAGES)
def test_the_tables_of_the_page_are_those_of_the_models(name: str) -> None:
    _, _, written = (FOLDER / name).read_text(encoding="utf-8").partition(MARKER)
    assert written == tables(PAGES[name]), "run python -m tools.reference"


def test_the_tables_of_servos_are_those_of_the_registers() -> None:
    _, _, written = SERVOS.read_text(encoding="utf-8").partition(SERVOS_MARKER)
    assert written == servo_tables(), "run python -m tools.reference"


@pytest.mark.parametrize("model", EVERY)
def test_every_model_and_key_says_what_it_means(model: Model) -> None:
    assert model.__doc__
    assert [key for key, field in model.model_fields.items() if not field.description] == []


@pytest.mark.parametrize("root", ROOTS)
def test_what_a_command_prints_begins_with_its_schema_version(root: Model) -> None:
    assert next(iter(root.model_fields)) == "schema_version"
