"""Checks that a robot and a bundle fit together, and computes their common limits."""

from __future__ import annotations

import numpy as np

from runtime.config.robot_yaml import RunConfig
from runtime.safety.motion_limiter import Limits
from v2a.bundle import Manifest
from v2a.errors import ConfigError


def check_fit(config: RunConfig, manifest: Manifest) -> Limits:
    """Return for each joint the tighter limit of robot and policy.

    Raises ConfigError if the joints differ in name or order, if a joint has no common range, if
    the safe pose has another number of joints, or if the camera is too slow for the policy.
    """
    robot, policy = config.robot.joints, manifest.action_space.joints
    ours, theirs = [joint.name for joint in robot], [joint.name for joint in policy]
    if ours != theirs:
        raise ConfigError(
            f"robot {config.robot.name} has the joints {', '.join(ours)}; the bundle "
            f"{manifest.policy} moves {', '.join(theirs)}; give robot.joints these names in this "
            "order, or use a bundle for this robot"
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
                f"joint {name}: the ranges of robot and bundle do not overlap (lower limit "
                f"{lower:.3f} rad, upper limit {upper:.3f} rad); check zero_tick and direction"
            )
    return limits


def _check_camera(config: RunConfig, manifest: Manifest) -> None:
    camera = manifest.cameras[0]
    # At a lower rate one picture would stand for two instants of the history.
    if config.camera.fps * camera.interval_s < 0.75:
        raise ConfigError(
            f"camera.fps is {config.camera.fps:g}; the bundle {manifest.policy} needs a picture "
            f"every {camera.interval_s:g} s; use a camera of at least "
            f"{1 / camera.interval_s:g} fps"
        )


def _check_safe_pose(config: RunConfig) -> None:
    pose, joints = config.safety.safe_pose_rad, config.robot.joints
    if pose is not None and len(pose) != len(joints):
        raise ConfigError(
            f"safety.safe_pose_rad has {len(pose)} angles, {config.robot.name} has {len(joints)} "
            "joints; give one angle per joint, in their order"
        )
