"""Checks that a robot and a bundle fit together, and works out the limits that hold for both."""

from __future__ import annotations

import numpy as np

from runtime.config.robot_yaml import RunConfig
from runtime.safety.motion_limiter import Limits
from v2a.bundle import Manifest
from v2a.errors import ConfigError


def check_fit(config: RunConfig, manifest: Manifest) -> Limits:
    """The joint limits of this robot under this policy: of both, the tighter.

    Raises ConfigError when the joints are not the same ones in the same order, have no common
    range, or the camera is too slow for the policy's history.
    """
    robot, policy = config.robot.joints, manifest.action_space.joints
    ours, theirs = [joint.name for joint in robot], [joint.name for joint in policy]
    if ours != theirs:
        raise ConfigError(
            f"robot {config.robot.name} has the joints {', '.join(ours)}; the bundle "
            f"{manifest.policy} moves {', '.join(theirs)}: name and order robot.joints like that, "
            "or take a bundle made for this robot"
        )
    _check_camera(config, manifest)
    _check_safe_pose(config)
    limits = Limits(
        tuple(ours),
        np.maximum([j.lower_rad for j in robot], [j.lower for j in policy]),
        np.minimum([j.upper_rad for j in robot], [j.upper for j in policy]),
        np.minimum([j.velocity_limit_rad_s for j in robot], [j.velocity_limit for j in policy]),
        np.full(len(ours), config.safety.acceleration_max_rad_s2),
    )
    for name, lower, upper in zip(ours, limits.lower_rad, limits.upper_rad, strict=True):
        if lower >= upper:
            raise ConfigError(
                f"joint {name}: robot and bundle limits have no range in common "
                f"(from {lower:.3f} to {upper:.3f} rad); check zero_tick and direction"
            )
    return limits


def _check_camera(config: RunConfig, manifest: Manifest) -> None:
    camera = manifest.cameras[0]
    # Below this the same picture would stand for two instants of the history.
    if config.camera.fps * camera.interval_s < 0.75:
        raise ConfigError(
            f"camera.fps is {config.camera.fps:g}; the bundle {manifest.policy} looks at pictures "
            f"{camera.interval_s:g} s apart: use a camera of at least {1 / camera.interval_s:g} fps"
        )


def _check_safe_pose(config: RunConfig) -> None:
    pose, joints = config.safety.safe_pose_rad, config.robot.joints
    if pose is not None and len(pose) != len(joints):
        raise ConfigError(
            f"safety.safe_pose_rad has {len(pose)} angles, {config.robot.name} has {len(joints)} "
            "joints: give one each, in their order"
        )
