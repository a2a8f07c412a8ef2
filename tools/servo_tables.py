"""Writes the tables of docs/reference/servos.md from the families' register tables.

`python -m tools.reference` calls this module. A test holds the page equal to the tables.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from hw_drivers.bus.registers import Model
from hw_drivers.family import FAMILIES, Family, load_family

_TITLES = {"dynamixel2": "Dynamixel X, Protocol 2.0", "feetech": "Feetech STS, SMS and SCS"}
_HEAD = (
    "| model | number | firmware | ticks per turn | supply limits as shipped | range | "
    "current sensor | watchdog | shadow id | current limit |\n"
    "|---|---|---|---|---|---|---|---|---|---|\n"
)


def servo_tables() -> str:
    """The sections of all families: what holds for the family, then a row for each model."""
    return "".join(_section(name, load_family(name)) for name in FAMILIES)


def _section(name: str, family: Family) -> str:
    rates = ", ".join(f"{baud:,}" for baud in sorted(family.bauds))
    settings = "".join(
        f"| `{setting.register}` | {setting.meaning} | {'yes' if setting.required else 'no'} |\n"
        for setting in family.settings
    )
    rows = "".join(_row(family, model) for model in family.tables)
    return (
        f"\n## {_TITLES.get(name, name)}\n\n"
        f"`protocol: {name}`. Ids: 0 to {family.packets.max_id}. "
        f"Rates in bit/s, where the model has them: {rates}.\n\n"
        f"{_HEAD}{rows}\n"
        "These registers must hold. `v2a motors setup` writes them, `v2a motors doctor` checks "
        "them, and a connect refuses a servo in which a required one is wrong:\n\n"
        f"| register | why | required |\n|---|---|---|\n{settings}"
    )


def _row(family: Family, model: Model) -> str:
    return f"| {' | '.join(_cells(family, model))} |\n"


def _cells(family: Family, model: Model) -> Iterator[str]:
    watchdog = family.watchdog
    low, high = model.firmware
    yield f"`{model.name}`"
    yield str(model.number)
    yield "any" if (low, high) == (0, 255) else f"{low} to {high}" if high < 255 else f"from {low}"
    yield str(model.turn_ticks)
    yield _volts(model)
    yield f"{math.degrees(model.turn_ticks * model.rad_per_tick):.0f} degrees"
    for register in (
        "present_current",
        watchdog.register if watchdog else "",
        "secondary_id",
        "goal_current",
    ):
        yield "yes" if register in model.items else "no"


def _volts(model: Model) -> str:
    """The limits that the servo has from the factory; its voltage alarm goes by them."""
    items = [model.items[f"{end}_voltage_limit"] for end in ("min", "max")]
    if not items[0].initial:
        return "not published"
    return " to ".join(f"{item.initial * item.scale:.1f}" for item in items) + " V"
