"""The text of a new robot.yaml, with a comment beside each key that its owner will change."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from hw_drivers.bus.registers import Model

# Slow enough to catch the arm's plug; raise it once the arm does what it should.
FIRST_SPEED_RAD_S = 1.0


@dataclass(frozen=True, slots=True)
class NewJoint:
    """A joint of the new file: its servo, and the ticks between which the servo accepts goals."""

    name: str
    id: int
    model: Model
    lowest_tick: int
    highest_tick: int

    @classmethod
    def whole_turn(cls, name: str, servo_id: int, model: Model) -> NewJoint:
        """A joint whose range nobody has measured yet.

        Without tick 0, it is as wide on both sides: the limits hold for either `direction`.
        """
        return cls(name, servo_id, model, 1, model.turn_ticks - 1)

    def range_rad(self) -> tuple[float, float]:
        """The range about the middle of the servo's turn, rad, rounded inward to 0.001 rad."""
        middle, scale = self.model.turn_ticks // 2, self.model.rad_per_tick
        lower_rad = math.ceil((self.lowest_tick - middle) * scale * 1000) / 1000
        upper_rad = math.floor((self.highest_tick - middle) * scale * 1000) / 1000
        return lower_rad, upper_rad


def robot_yaml(
    name: str,
    protocol: str,
    port: str,
    baud: int,
    joints: Sequence[NewJoint],
    camera: str,
    calibration: str,
) -> str:
    """Return the text of the file. `calibration` is the name of the file that calibration writes.

    Pure function.
    """
    zeros = ", ".join("0.0" for _ in joints)
    rows = "\n".join(_joint(joint) for joint in joints)
    return f"""\
# Every key is explained in docs/robot_yaml.md. `v2a robot check` checks this file.
robot:
  name: {_text(name)}
  calibration: {_text(calibration)}  # `v2a motors calibrate` writes it; every connect compares it
  bus:
    protocol: {protocol}
    port: {_text(port)}
    baud: {baud}
  joints:  # in the order, and with the names, of the bundle's joints
{rows}
camera:
  source: {_text(camera)}  # /dev/video0, file:clip.mp4, ...; synthetic: is noise
  fps: 20
control:
  rate_hz: 50
safety: {{}}  # the defaults. To change them, replace {{}} by lines such as these:
  # safe_pose_rad: [{zeros}]  # where torque goes off; without it, the arm drops where it is
  # estop: {{socket: /run/v2a/estop}}  # any datagram to this path stops the robot
instruction: move a little  # one of the bundle's instructions: `v2a bundle show DIR` lists them
"""


def _joint(joint: NewJoint) -> str:
    lower_rad, upper_rad = joint.range_rad()
    return f"""\
    - name: {_text(joint.name)}
      id: {joint.id}
      model: {joint.model.name}
      direction: 1  # -1 if the angle counts the other way round
      zero_tick: {joint.model.turn_ticks // 2}  # the servo's position at 0 rad
      lower_rad: {lower_rad:g}  # `v2a motors calibrate` measures the range
      upper_rad: {upper_rad:g}
      velocity_limit_rad_s: {FIRST_SPEED_RAD_S:g}"""


def _text(value: str) -> str:
    """A YAML scalar: a JSON string is one, whatever it holds."""
    return json.dumps(value, ensure_ascii=False)
