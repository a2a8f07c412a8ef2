"""`v2a robot new`: writes a robot.yaml for the servos on a bus, or for servos named by hand."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
from serial.tools import list_ports

from hw_drivers.bus.port import stable_path
from hw_drivers.family import FAMILIES, load_family
from hw_drivers.motors import options
from hw_drivers.motors.find import Servo, find_first, open_bus
from runtime.config.robot_yaml import RunConfig
from runtime.robot_file.template import NewJoint, robot_yaml
from v2a.clock import Clock, MonotonicClock
from v2a.config import load_yaml
from v2a.errors import BusError, ConfigError, PortError


class Found(NamedTuple):
    """What the new file describes: a bus, and the joints on it."""

    protocol: str
    port: str
    baud: int
    joints: list[NewJoint]


@click.command()
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default="robot.yaml", show_default=True,
    help="The file to write. An existing one is refused.",
)  # fmt: skip
@click.option("--name", default="arm", show_default=True, help="The robot's name.")
@click.option("--port", metavar="PATH", help="Serial port.  [default: the only adapter]")
@options.protocol
@options.baud
@click.option(
    "--joint", "named", multiple=True, metavar="NAME=MODEL:ID",
    help="A joint, e.g. base=sts3215:1; repeat it. With it, no port is opened.",
)  # fmt: skip
@click.option(
    "--camera", metavar="SOURCE", default="/dev/video0", show_default=True,
    help="camera.source of the file.",
)  # fmt: skip
@click.option("--yes", is_flag=True, help="Don't ask: name the joints joint1, joint2, ... by id.")
def new(
    output: Path,
    name: str,
    port: str | None,
    protocol: str | None,
    baud: int | None,
    named: tuple[str, ...],
    camera: str,
    yes: bool,
) -> None:
    """Write a commented robot.yaml.

    Looks for servos on the port, reads their models and position limits, and asks for a name for
    each. Nothing is written to a servo and nothing moves. With --joint the servos need not be
    there.

    \b
    From the bus:      v2a robot new --port /dev/ttyUSB0
    Without servos:    v2a robot new --joint base=sts3215:1 --joint tip=sts3215:2
    """
    if output.exists():
        raise ConfigError(f"{output}: exists; give another name with -o, or move it away")
    if named:
        found = _as_named(named, port or "/dev/ttyUSB0", protocol, baud)
    else:
        found = _from_bus(port or _only_port(), protocol, baud, MonotonicClock())
        if not yes and sys.stdin.isatty():
            found = found._replace(joints=[_ask_name(joint) for joint in found.joints])
    calibration = f"{output.stem}.calibration.yaml"
    text = robot_yaml(
        name, found.protocol, found.port, found.baud, found.joints, camera, calibration
    )
    write_checked(output, text)
    click.echo(f"{output}: written, {len(found.joints)} joints")
    click.echo(
        f"next: v2a motors calibrate {output}   measures each joint's range\n"
        f"      v2a robot check {output}       compares file and robot"
    )


def write_checked(output: Path, text: str) -> None:
    """Write `text` to the new file `output`, once it has loaded as a robot.yaml.

    Raises ConfigError if it does not load, or if the file cannot be written or exists.
    """
    draft: Path | None = None
    try:
        descriptor, path = tempfile.mkstemp(".yaml", ".robot-", output.parent)
        draft = Path(path)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        load_yaml(draft, RunConfig)
        draft.chmod(0o644)
        os.link(draft, output)  # unlike a rename, it replaces nothing
    except ConfigError as error:
        faults = str(error).replace(str(draft), str(output))
        raise ConfigError(f"nothing was written:\n{faults}") from None
    except OSError as error:
        raise ConfigError(f"{output}: cannot be written: {error.strerror}") from error
    finally:
        if draft is not None:
            draft.unlink(missing_ok=True)


def _only_port() -> str:
    ports = [stable_path(found.device) or found.device for found in list_ports.comports()]
    if len(ports) == 1:
        return ports[0]
    if ports:
        raise PortError(f"several serial ports: {', '.join(ports)}; name one with --port")
    raise PortError(
        "no serial port found; plug in the adapter, name one with --port, or describe the servos "
        "with --joint NAME=MODEL:ID"
    )


def _from_bus(port: str, protocol: str | None, baud: int | None, clock: Clock) -> Found:
    """Ask the servos. Raises BusError if none answers or one is unknown."""
    look = find_first(port, protocol, baud, clock)
    if look.faults:
        raise BusError("\n".join(map(str, look.faults)))
    with contextlib.closing(open_bus(look.servos, clock)) as bus:
        joints = []
        for servo in look.servos:
            low, high = (bus.read(servo.id, f"{end}_position_limit") for end in ("min", "max"))
            joints.append(_joint(servo, low, high))
    return Found(look.place.protocol, port, look.place.baud, joints)


def _joint(servo: Servo, low: int, high: int) -> NewJoint:
    model = servo.model
    if model is None:  # `open_bus` refuses it before
        raise BusError(f"unknown: {servo}")
    name = f"joint{servo.id}"
    whole = (low, high) == (0, model.turn_ticks - 1)
    if whole or not 0 <= low < high < model.turn_ticks:  # 0 and 0: it is set to turn for ever
        return NewJoint.whole_turn(name, servo.id, model)
    return NewJoint(name, servo.id, model, low, high)


def _ask_name(joint: NewJoint) -> NewJoint:
    question = f"Name of the joint with id {joint.id} ({joint.model.name})"
    given = click.prompt(question, default=joint.name, err=True)
    return NewJoint(given, joint.id, joint.model, joint.lowest_tick, joint.highest_tick)


def _as_named(named: Sequence[str], port: str, protocol: str | None, baud: int | None) -> Found:
    """The joints of --joint. Raises ConfigError for a bad one, or for servos of two families."""
    families = [protocol] if protocol else list(FAMILIES)
    known = {name: family for family in families for name in load_family(family).models}
    joints, used = [], set()
    for text in named:
        name, _, rest = text.partition("=")
        model, _, servo_id = rest.partition(":")
        if not (name and servo_id.isascii() and servo_id.isdigit()):
            raise ConfigError(f"--joint {text}: write NAME=MODEL:ID, e.g. base=sts3215:1")
        if model not in known:
            raise ConfigError(f"--joint {text}: unknown model, known are: {', '.join(known)}")
        used.add(known[model])
        table = load_family(known[model]).models[model]
        joints.append(NewJoint.whole_turn(name, int(servo_id), table))
    if len(used) > 1:
        raise ConfigError(f"--joint: servos of {' and '.join(sorted(used))} can't share a bus")
    family = used.pop()
    return Found(family, port, baud or max(load_family(family).bauds, key=_usual), joints)


def _usual(baud: int) -> bool:
    return baud == 1_000_000  # the rate that `v2a motors setup` gives
