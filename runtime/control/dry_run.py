"""The robot of a dry run: servos in memory that follow their goals. No serial port is opened."""

from __future__ import annotations

from hw_drivers.dynamixel.models import CENTRE_TICK, MODELS, RAD_PER_TICK
from hw_drivers.robot.robot import JointConfig, Robot, RobotConfig
from hw_drivers.virtual.chain import VirtualChain
from hw_drivers.virtual.loopback import LoopbackPort
from hw_drivers.virtual.servo import VirtualServo
from v2a.clock import Clock


class FollowingPort(LoopbackPort):
    """Lets the time since the last write pass for the servos, whose horns follow at once."""

    def __init__(self, chain: VirtualChain, clock: Clock) -> None:
        super().__init__(chain)
        self._servos = chain
        self._clock = clock
        self._stepped_ns = clock.now_ns()

    def write(self, data: bytes) -> None:
        now_ns = self._clock.now_ns()
        self._servos.step((now_ns - self._stepped_ns) / 1e9)
        self._stepped_ns = now_ns
        for servo in self._servos.servos.values():
            servo.set_present_rad(servo.setpoint_rad)
        super().write(data)


def virtual_robot(config: RobotConfig, clock: Clock) -> Robot:
    """A robot like `config` with every joint at rest at 0 rad, or as near as its limits allow."""
    chain = VirtualChain(_servo(joint) for joint in config.joints)
    config = config.model_copy(update={"calibration": None})  # of real servos
    return Robot(config, clock, FollowingPort(chain, clock))


def _servo(joint: JointConfig) -> VirtualServo:
    servo = VirtualServo(MODELS[joint.model], joint.id)
    start_rad = min(max(0.0, joint.lower_rad), joint.upper_rad)
    centre_rad = (joint.zero_tick - CENTRE_TICK) * RAD_PER_TICK
    servo.setpoint_rad = centre_rad + joint.direction * start_rad
    servo.set_present_rad(servo.setpoint_rad)
    return servo
