"""Torque off without the control process, which has died.

Servos without a watchdog hold their last goal until somebody tells them otherwise, and nobody is
left who listens to the emergency stop. So the policy's process opens the port itself, once.
"""

from __future__ import annotations

import contextlib

from hw_drivers.bus.port import Port, SerialPort
from hw_drivers.robot.config import RobotConfig
from hw_drivers.robot.torque import TorqueState, torque_off
from v2a.clock import Clock
from v2a.errors import BusError

_TIMEOUT_S = 0.02  # of a request to one servo


def has_watchdogs(config: RobotConfig) -> bool:
    """Whether every servo of the robot stops by itself when it hears nothing."""
    watchdog = config.bus.family.watchdog
    return watchdog is not None and all(
        watchdog.register in servo.model.items for servo in config.servos
    )


def last_resort_torque_off(
    config: RobotConfig, clock: Clock, port: Port | None = None
) -> dict[str, TorqueState]:
    """Switch torque off in all servos. Returns what each confirmed, by the name of its joint.

    Opens the port of `config` unless the caller passes one. Raises nothing: what cannot be reached,
    also because another process holds the port, is "unknown".
    """
    names = {servo.id: servo.name for servo in config.servos}
    states: dict[int, TorqueState] = dict.fromkeys(names, "unknown")
    with contextlib.suppress(BusError):
        port = port or SerialPort(config.bus.port, config.bus.baud)
        models = {servo.id: servo.model for servo in config.servos}
        with contextlib.closing(config.bus.family.bus(port, clock, models, _TIMEOUT_S)) as bus:
            torque_off(bus, tuple(names), states)
    return {names[servo_id]: state for servo_id, state in states.items()}
