"""The simulated robot: virtual servos that move the simulated arm, and a camera above it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from demo import arm, task
from demo.physics import PHYSICS_STEP_S, World
from demo.picture import U8, Painter
from hw_drivers.dynamixel.models import MODELS
from hw_drivers.dynamixel.virtual_bus import VirtualDynamixelBus
from hw_drivers.dynamixel.virtual_servo import VirtualDynamixel

SERVO_MODEL = "xl430-w250"


@dataclass(frozen=True, slots=True)
class Result:
    """The end of an episode. Lengths are in m."""

    seed: int
    level: str
    success: bool
    knocked: bool
    ring_m: tuple[float, float, float]
    puck_m: tuple[float, float]


class Plant:
    """The world, the virtual servos and the camera of one robot.

    A serial port connects to `chain`. `advance` holds the chain's lock during a step, so another
    thread may serve the port.
    """

    def __init__(self) -> None:
        self.world = World()
        model = MODELS[SERVO_MODEL]
        self._servos = [
            VirtualDynamixel(model, joint + 1, float(limit))
            for joint, limit in enumerate(arm.VELOCITY_LIMIT_RAD_S)
        ]
        # As on an arm after setup: servos answer at once, not after the factory default of 0.5 ms.
        for servo in self._servos:
            servo.write(model.items["return_delay_time"].address, b"\x00")
        self.chain = VirtualDynamixelBus(self._servos)
        self.reset(task.scenario(0))

    def reset(self, scenario: task.Scenario) -> None:
        """Begin a scenario. The robot must be disarmed, else servos return to their old goals."""
        self._scenario = scenario
        self._kicked = False
        self._painter = Painter(np.random.default_rng([scenario.seed, 5]))
        with self.chain.lock:
            self.world.reset(scenario.joints_rad, scenario.puck_m, scenario.puck_velocity_m_s)
            for servo, position_rad in zip(self._servos, scenario.joints_rad, strict=True):
                servo.set_present_rad(float(position_rad))
                servo.setpoint_rad = float(position_rad)

    def advance(self, to_s: float) -> None:
        """Advance the simulation to `to_s`, counted from the start of the episode."""
        while self.world.time_s + PHYSICS_STEP_S <= to_s + 1e-9:
            if not self._kicked and self.world.time_s >= self._scenario.kick_s:
                self.world.kick_puck(self._scenario.kick_velocity_m_s)
                self._kicked = True
            self._step()

    def _step(self) -> None:
        with self.chain.lock:
            self.chain.step(PHYSICS_STEP_S)
            self.world.step(np.array([servo.setpoint_rad for servo in self._servos]))
            for servo, position_rad in zip(self._servos, self.world.joints_rad, strict=True):
                servo.set_present_rad(float(position_rad))

    def picture(self) -> U8:
        """Return the camera's current image, uint8 [SIZE, SIZE, 3] RGB."""
        return self._painter.draw(self.world.joints_rad, self.world.puck_m)

    def result(self) -> Result:
        """Return the result of the episode."""
        ring, puck = self.world.ring_m, self.world.puck_m
        return Result(
            seed=self._scenario.seed,
            level=self._scenario.level,
            success=task.success(ring, puck) and not self.world.knocked,
            knocked=self.world.knocked,
            ring_m=(float(ring[0]), float(ring[1]), float(ring[2])),
            puck_m=(float(puck[0]), float(puck[1])),
        )
