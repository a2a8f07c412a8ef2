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
    the safe pose is outside it, or if the camera is too slow for the policy.
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
    _check_safe_pose(config, limits)
    return limits


def check_units(manifest: Manifest) -> None:
    """Raise ConfigError if a joint of the bundle is in another unit than rad."""
    for joint in manifest.action_space.joints:
        if joint.unit != "rad":
            raise ConfigError(
                f"joint {joint.name}: the bundle {manifest.policy} moves it in the unit "
                f"{joint.unit!r}, and robot.yaml maps only rad; export the bundle with this joint "
                "in rad"
            )


def _check_camera(config: RunConfig, manifest: Manifest) -> None:
    camera = manifest.cameras[0]
    # At a lower rate one picture would stand for two instants of the history.
    if config.camera.fps * camera.interval_s < 0.75:
        raise ConfigError(
            f"camera.fps is {config.camera.fps:g}; the bundle {manifest.policy} needs a picture "
            f"every {camera.interval_s:g} s; use a camera of at least "
            f"{1 / camera.interval_s:g} fps"
        )


def _check_safe_pose(config: RunConfig, limits: Limits) -> None:
    for name, pose_rad, lower, upper in zip(
        limits.names,
        config.safety.safe_pose_rad or (),
        limits.lower_rad,
        limits.upper_rad,
        strict=False,  # the robot's own check counts the angles
    ):
        if not lower <= pose_rad <= upper:
            raise ConfigError(
                f"safety.safe_pose_rad: joint {name} at {pose_rad:g} rad is outside the common "
                f"range of robot and bundle, {lower:.3f} to {upper:.3f} rad; choose an angle in it"
            )
