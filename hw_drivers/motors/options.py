"""The options that several `v2a motors` commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from hw_drivers.family import FAMILIES, load_family
from hw_drivers.motors.where import Where, where_is
from v2a.errors import BusError

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

# The ids of a family are those of its packets (`Packets.max_id`). A command that does not know the
# family yet takes the ids of any, and calls `check_id` when it does.
HIGHEST_ID: Final = max(load_family(name).packets.max_id for name in FAMILIES)
SERVO_ID: Final = click.IntRange(0, HIGHEST_ID)

port: Decorator = click.option(
    "--port", required=True, metavar="PATH", help="The serial port of the bus."
)
_port_or_file: Decorator = click.option(
    "--port", metavar="PATH", help="The serial port of the bus, without a ROBOT.YAML."
)
protocol: Decorator = click.option(
    "--protocol", type=click.Choice([*FAMILIES]), help="Try only this protocol.  [default: all]"
)
baud: Decorator = click.option(
    "--baud", type=click.IntRange(min=1), help="Try only this rate.  [default: all]"
)
as_json: Decorator = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
yes: Decorator = click.option("--yes", is_flag=True, help="Don't ask before writing.")


def where(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command take ROBOT.YAML, or --port with --protocol and --baud, as its `where`."""

    @click.argument(
        "robot_yaml", metavar="[ROBOT.YAML]", required=False, type=click.Path(path_type=Path)
    )
    @_port_or_file
    @protocol
    @baud
    @functools.wraps(command)
    def wrapped(
        robot_yaml: Path | None,
        port: str | None,
        protocol: str | None,
        baud: int | None,
        **others: Any,
    ) -> Any:
        found: Where = where_is(robot_yaml, port, protocol, baud)
        return command(where=found, **others)

    return wrapped


def check_id(protocol: str, servo_id: int) -> None:
    """Raise BusError if servos of this protocol cannot have the id."""
    highest = load_family(protocol).packets.max_id
    if not 0 <= servo_id <= highest:
        raise BusError(f"ids of {protocol} servos go from 0 to {highest}, got {servo_id}")
