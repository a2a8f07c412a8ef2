"""The commands of `v2a motors`. Each has a file of its own, imported when it is used."""

from __future__ import annotations

from typing import Final

import click

from v2a.cli import LazyCommand, LazyGroup

COMMANDS: Final = {
    "scan": LazyCommand("hw_drivers.motors.scan", "scan", "Find servos at any rate."),
    "setup": LazyCommand("hw_drivers.motors.setup", "setup", "Give a servo its id and rate."),
    "calibrate": LazyCommand(
        "hw_drivers.motors.calibrate", "calibrate", "Measure each joint's range by hand."
    ),
    "monitor": LazyCommand("hw_drivers.motors.monitor", "monitor", "Watch servos, live."),
    "doctor": LazyCommand(
        "hw_drivers.motors.doctor", "doctor", "Say what is wrong with a bus, and how to fix it."
    ),
    "reboot": LazyCommand(
        "hw_drivers.motors.reboot", "reboot", "Restart servos, to end an overload or other alarm."
    ),
    "release": LazyCommand(
        "hw_drivers.motors.release", "release", "Switch torque off, and confirm each joint."
    ),
    "jog": LazyCommand("hw_drivers.motors.jog", "jog", "Move one servo in small steps."),
    "simulate": LazyCommand("hw_drivers.motors.simulate", "simulate", "Keep virtual servos alive."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def motors() -> None:
    """Find, set up, check and move servos, or simulate them. Nothing moves unasked."""
