"""`v2a motors simulate`: puts virtual servos behind a serial port that any program can open."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click

from hw_drivers.family import FAMILIES, load_family
from hw_drivers.virtual.bus import VirtualBus
from hw_drivers.virtual.faults import FAULTS, PlantedFault
from hw_drivers.virtual.pty import PtyServer

_END: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _ids(
    _ctx: click.Context, _param: click.Parameter, texts: tuple[str, ...]
) -> tuple[tuple[int, ...], ...]:
    """`1,2,3` or `1-7`, or both in one; an id belongs to one model."""
    found = tuple(map(_parse_ids, texts))
    every = [servo_id for ids in found for servo_id in ids]
    if twice := sorted({servo_id for servo_id in every if every.count(servo_id) > 1}):
        raise click.BadParameter(f"{' '.join(texts)}: name each id once, not {twice} twice")
    return found


def _parse_ids(text: str) -> tuple[int, ...]:
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
    type=click.Choice([*FAMILIES]),
    default="dynamixel2",
    show_default=True,
    help="What the servos speak.",
)
@click.option(
    "--model",
    "models",
    required=True,
    multiple=True,
    help="Their model, such as xl330-m288 or sts3215. Give --model and --ids again for others.",
)
@click.option(
    "--ids",
    "ids_of",
    required=True,
    multiple=True,
    callback=_ids,
    metavar="IDS",
    help="The ids of the servos of that model: 1,2,3 or 1-7.",
)
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
    help="The rate that the servos are set up for; at any other rate they are deaf.",
)
@click.option(
    "--latency-timer",
    "latency_timer_ms",
    type=click.IntRange(0, 255),
    default=0,
    show_default=True,
    metavar="MS",
    help="Hold answers back as an FTDI adapter does: 16 by its factory setting, 0 for no delay.",
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
    models: tuple[str, ...],
    ids_of: tuple[tuple[int, ...], ...],
    link: Path,
    baud: int,
    latency_timer_ms: int,
    fault: str | None,
    every: int,
) -> None:
    """Keep virtual servos alive on a serial port until Ctrl-C.

    They answer any program as real servos do: at the pace of the wire, by the rules of their
    register table. They hold a position, move within their limits, lock their EEPROM, shut down
    when overloaded, and stop when their watchdog hears nothing.

    \b
    v2a motors simulate --model xl330-m288 --ids 1,2,3 --link /tmp/arm
    v2a motors simulate --protocol feetech --model sts3215 --ids 1-6 --link /tmp/arm
    v2a motors simulate --model xl430-w250 --ids 1,2 --model xl330-m288 --ids 3-6 --link /tmp/arm
    """
    if len(models) != len(ids_of):
        raise click.UsageError(
            f"each --model needs its --ids: got {len(models)} of one and {len(ids_of)} of the other"
        )
    bus = _virtual_bus(protocol, [*zip(models, ids_of, strict=True)])
    wrong = PlantedFault(fault, every) if fault else None
    latency_s = latency_timer_ms * 1e-3
    with (
        _signals_held(),
        contextlib.closing(
            PtyServer(bus, baud, link=link, fault=wrong, latency_timer_s=latency_s, moves=True)
        ),
    ):
        groups = [
            f"{model} with ids {', '.join(map(str, ids))}"
            for model, ids in zip(models, ids_of, strict=True)
        ]
        servos = f"{' and '.join(groups)} at {baud} baud"
        fails = f", {fault} every {every} answered requests" if fault else ""
        click.echo(f"listening at {link}: {servos}{fails}; Ctrl-C ends it")
        signal.sigwait(_END)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Threads that start inside this context leave the signals in `_END` to `sigwait`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _END)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _virtual_bus(protocol: str, groups: Sequence[tuple[str, tuple[int, ...]]]) -> VirtualBus[Any]:
    """A bus with the servos of all groups, each a model and its ids."""
    family = load_family(protocol)
    for model, ids in groups:
        if model not in family.models:
            speaks = [name for name in FAMILIES if model in load_family(name).models]
            known = ", ".join(family.models)
            advice = f"add --protocol {speaks[0]}" if speaks else f"known are {known}"
            if speaks and len(groups) > 1:
                advice = f"it speaks {speaks[0]}, and a bus has one protocol"
            raise click.BadParameter(
                f"no {protocol} servo {model!r}; {advice}", param_hint="--model"
            )
        max_id = family.packets.max_id
        if high := [servo_id for servo_id in ids if servo_id > max_id]:
            raise click.BadParameter(
                f"{protocol} ids go from 0 to {max_id}, got {high}", param_hint="--ids"
            )
    return family.virtual_bus(
        family.virtual_servo(family.models[model], servo_id)
        for model, ids in groups
        for servo_id in ids
    )
