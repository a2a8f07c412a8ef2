"""The options that several `v2a motors` commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from hw_drivers.family import FAMILIES

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

port: Decorator = click.option(
    "--port", required=True, metavar="PATH", help="The serial port of the bus."
)
protocol: Decorator = click.option(
    "--protocol", type=click.Choice([*FAMILIES]), help="Try only this protocol.  [default: all]"
)
baud: Decorator = click.option(
    "--baud", type=click.IntRange(min=1), help="Try only this rate.  [default: all]"
)
as_json: Decorator = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
yes: Decorator = click.option("--yes", is_flag=True, help="Don't ask before writing.")
