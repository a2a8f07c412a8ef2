"""Prepares a checkpoint of this project's own policy for export."""

from __future__ import annotations

from export.own.checkpoints import Checkpoint
from export.own.rates import split_of
from export.pipeline.bundle import Source
from v2a.bundle import ActionSpace, CameraSpec, JointSpec, Manifest


def own_policy(checkpoint: Checkpoint) -> Source:
    """Return the policy's split and a draft of its manifest."""
    config = checkpoint.policy.config
    joints = [
        JointSpec(name=joint.name, lower=joint.lower_rad, upper=joint.upper_rad,
                  velocity_limit=joint.velocity_limit_rad_s)
        for joint in config.joints
    ]  # fmt: skip
    camera = CameraSpec(
        name=config.image.camera, width=config.image.width, height=config.image.height,
        history=config.motion.frames, interval_s=1.0 / config.motion.fps,
    )  # fmt: skip
    manifest = Manifest(
        policy=config.name,
        description=config.description,
        graphs=[],
        action_space=ActionSpace(joints=joints, chunk_length=config.chunk, step_s=config.step_s),
        cameras=[camera],
        instructions={},
        condition_age_max_s=config.condition_age_max_s,
        provenance={
            "checkpoint_sha256": checkpoint.sha256,
            "config": config.model_dump(mode="json"),
        },
    )
    return Source(split_of(checkpoint.policy), manifest, checkpoint.instructions)
