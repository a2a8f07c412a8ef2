"""The options that several motor commands have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from hw_drivers.robot.config import PROTOCOLS

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

port: Decorator = click.option(
    "--port", required=True, metavar="PATH", help="The serial port of the bus."
)
protocol: Decorator = click.option(
    "--protocol", type=click.Choice([*PROTOCOLS]), help="Look for no other; else each is tried."
)
baud: Decorator = click.option(
    "--baud", type=click.IntRange(min=1), help="Look at no other rate; else each is tried."
)
as_json: Decorator = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
yes: Decorator = click.option("--yes", is_flag=True, help="Don't ask before writing.")
