"""Makes the robot of a dry run: virtual servos that follow their goals, without a serial port."""

from __future__ import annotations

from typing import Any

from hw_drivers.family import Family
from hw_drivers.robot.config import JointConfig, RobotConfig, ServoConfig
from hw_drivers.robot.robot import Robot
from hw_drivers.virtual.bus import VirtualBus
from hw_drivers.virtual.loopback import LoopbackPort
from hw_drivers.virtual.servo import VirtualServo
from v2a.clock import Clock


class FollowingPort(LoopbackPort):
    """A port to virtual servos that reach their set-points at once.

    Each write advances the servos' time by the time since the last write.
    """

    def __init__(self, bus: VirtualBus[Any], clock: Clock) -> None:
        super().__init__(bus)
        self._clock = clock
        self._stepped_ns = clock.now_ns()

    def write(self, data: bytes) -> None:
        """Advance the servos' time, then hand them `data`."""
        now_ns = self._clock.now_ns()
        self.bus.step((now_ns - self._stepped_ns) / 1e9)
        self._stepped_ns = now_ns
        for servo in self.bus.servos.values():
            servo.set_present_rad(servo.setpoint_rad)
        super().write(data)


def virtual_robot(config: RobotConfig, clock: Clock) -> Robot:
    """Make a robot like `config`, with each joint at rest as near to 0 rad as its limits allow."""
    family = config.bus.family
    servos = [_servo(family, joint, servo) for joint in config.joints for servo in joint.servos]
    config = config.model_copy(update={"calibration": None})  # a calibration is for real servos
    return Robot(config, clock, FollowingPort(family.virtual_bus(servos), clock))


def _servo(family: Family, joint: JointConfig, config: ServoConfig) -> VirtualServo:
    servo = family.virtual_servo(config.model, config.id)
    for setting in family.settings:
        if setting.register in config.model.items:
            servo.sense(setting.register, setting.wanted(servo[setting.register], config.role))
    start_rad = min(max(0.0, joint.lower_rad), joint.upper_rad)
    servo.rest_at(joint.zero_tick + joint.direction * start_rad / joint.rad_per_tick)
    return servo
