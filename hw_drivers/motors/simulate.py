"""`v2a motors simulate`: virtual servos behind a serial port that any program can open."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from hw_drivers.bus.registers import Model
from hw_drivers.dynamixel import models as dynamixel
from hw_drivers.dynamixel.packet import MAX_ID as DYNAMIXEL_MAX_ID
from hw_drivers.feetech import models as feetech
from hw_drivers.feetech.packet import MAX_ID as FEETECH_MAX_ID
from hw_drivers.virtual.chain import VirtualChain
from hw_drivers.virtual.faults import FAULTS, PlantedFault
from hw_drivers.virtual.feetech import FeetechChain, FeetechServo
from hw_drivers.virtual.line import Line
from hw_drivers.virtual.pty import PtyServer
from hw_drivers.virtual.servo import VirtualServo


class _Protocol(NamedTuple):
    models: Mapping[str, Model]
    max_id: int
    line: Callable[[Model, tuple[int, ...]], Line[Any]]


_PROTOCOLS: Final = {
    "dynamixel2": _Protocol(
        dynamixel.MODELS,
        DYNAMIXEL_MAX_ID,
        lambda model, ids: VirtualChain(VirtualServo(model, servo_id) for servo_id in ids),
    ),
    "feetech": _Protocol(
        feetech.MODELS,
        FEETECH_MAX_ID,
        lambda model, ids: FeetechChain(FeetechServo(model, servo_id) for servo_id in ids),
    ),
}
_END: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _ids(_ctx: click.Context, _param: click.Parameter, text: str) -> tuple[int, ...]:
    """`1,2,3` or `1-7`, or both in one."""
    ids: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not first.isdigit() or not (last or first).isdigit():
            raise click.BadParameter(f"{part!r} is no id; write them as 1,2,3 or 1-7")
        ids += range(int(first), int(last or first) + 1)
    if len(set(ids)) < len(ids) or not ids:
        raise click.BadParameter(f"{text}: name each id once, the lower one first in a range")
    return tuple(ids)


_FAULT_LIST = "\n".join(f"  {name:<9} {fault.__doc__}" for name, fault in FAULTS.items())


@click.command(epilog=f"\b\nFaults:\n{_FAULT_LIST}")
@click.option(
    "--protocol",
    type=click.Choice([*_PROTOCOLS]),
    default="dynamixel2",
    show_default=True,
    help="What the servos speak.",
)
@click.option("--model", required=True, help="Their model, such as xl330-m288 or sts3215.")
@click.option("--ids", required=True, callback=_ids, metavar="IDS", help="Their ids: 1,2,3 or 1-7.")
@click.option(
    "--link",
    required=True,
    type=click.Path(path_type=Path),
    help="The path to make, for other programs to open as their serial port.",
)
@click.option(
    "--baud",
    type=click.IntRange(min=1),
    default=1_000_000,
    show_default=True,
    help="The rate that the servos are set up for; at any other they are deaf.",
)
@click.option(
    "--latency-timer",
    "latency_timer_ms",
    type=click.IntRange(0, 255),
    default=0,
    show_default=True,
    metavar="MS",
    help="Hold answers back as an FTDI adapter does: 16 as it is born, 0 for another adapter.",
)
@click.option("--fault", type=click.Choice([*FAULTS]), help="What goes wrong; see below.")
@click.option(
    "--every",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    metavar="N",
    help="The fault strikes every N-th request that is answered; of many answers, each in turn.",
)
def simulate(
    protocol: str,
    model: str,
    ids: tuple[int, ...],
    link: Path,
    baud: int,
    latency_timer_ms: int,
    fault: str | None,
    every: int,
) -> None:
    """Keep virtual servos alive on a serial port until Ctrl-C.

    They answer any program as real ones do: at the pace of the wire, by the rules of their control
    table. They hold a position, move within their limits, lock their EEPROM, shut down when
    overloaded, and stop when their watchdog hears nothing.

    \b
    v2a motors simulate --model xl330-m288 --ids 1,2,3 --link /tmp/arm
    v2a motors simulate --protocol feetech --model sts3215 --ids 1-6 --link /tmp/arm
    """
    line = _line(protocol, model, ids)
    wrong = PlantedFault(fault, every) if fault else None
    latency_s = latency_timer_ms * 1e-3
    with (
        _signals_held(),
        contextlib.closing(
            PtyServer(line, baud, link=link, fault=wrong, latency_timer_s=latency_s, moves=True)
        ),
    ):
        servos = f"{model} with ids {', '.join(map(str, ids))} at {baud} baud"
        fails = f", {fault} every {every} answered requests" if fault else ""
        click.echo(f"listening at {link}: {servos}{fails}; Ctrl-C ends it")
        signal.sigwait(_END)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Threads that start in here leave the signals in `_END` to `sigwait`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _END)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _line(protocol: str, model: str, ids: tuple[int, ...]) -> Line[Any]:
    known = _PROTOCOLS[protocol]
    if model not in known.models:
        speaks = [name for name, other in _PROTOCOLS.items() if model in other.models]
        advice = f"add --protocol {speaks[0]}" if speaks else f"known are {', '.join(known.models)}"
        raise click.BadParameter(f"no {protocol} servo {model!r}; {advice}", param_hint="--model")
    if high := [servo_id for servo_id in ids if servo_id > known.max_id]:
        raise click.BadParameter(
            f"{protocol} ids go from 0 to {known.max_id}, got {high}", param_hint="--ids"
        )
    return known.line(known.models[model], ids)
