"""Prepares a released policy's file and checkpoints for export."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from export.pipeline.bundle import Source
from export.release.checkpoints import load_released
from export.release.config import StreamConfig
from export.release.image_encoder import SiglipEncoder
from export.release.instructions import read_instructions
from export.release.options import load_policy_file
from export.release.policy_file import ReleasedFile
from export.release.rates import split_of
from export.release.slots import is_gripper, slot_name
from export.release.weight_files import files_of
from v2a.bundle import ActionSpace, CameraSpec, JointSpec, Manifest
from v2a.errors import ConfigError


def released_policy(file: Path) -> Source:
    """Load a released policy from its file.

    Raises ConfigError, with one line per fault, if file, checkpoints and instructions don't match.
    """
    config = load_policy_file(file, ReleasedFile)
    named = config.checkpoints
    paths = {name: file.parent / path for name, path in named if path is not None}
    policy = load_released(config, paths["policy"], paths["dit"], paths["vae"])
    if "image_encoder" in paths:
        policy.image_encoder = SiglipEncoder(paths["image_encoder"], config)
    texts = read_instructions(config, config.instructions, file.parent)
    precision = config.precision.by_component()
    split = split_of(policy, texts.lengths, precision, config.video_channels)
    manifest = _manifest(config, paths)
    unchanged = partial(_check_unchanged, paths, manifest.provenance["checkpoint_sha256"])
    return Source(split, manifest, texts.lang, texts.video, unchanged)


def _check_unchanged(paths: Mapping[str, Path], sha256: Mapping[str, str]) -> None:
    """Raise ConfigError if a checkpoint no longer has its hash."""
    for name, path in paths.items():
        if _sha256(path) != sha256[name]:
            raise ConfigError(
                f"{path}: was rewritten during the export; export again when training has ended, "
                "or from a copy"
            )


def _manifest(config: ReleasedFile, paths: Mapping[str, Path]) -> Manifest:
    step_s = 1.0 / config.ctrl_freq
    streams = {"spatial": config.raw_stream, "motion": config.motion_stream}
    return Manifest(
        policy=config.name,
        description=config.description,
        graphs=[],
        action_space=ActionSpace(
            joints=_joints(config), chunk_length=config.action_chunk, step_s=step_s
        ),
        cameras=[_camera(name, stream, config) for name, stream in streams.items()],
        instructions={},
        condition_age_max_s=config.condition_age_max_s or config.action_chunk * step_s,
        provenance={
            "checkpoint_sha256": {name: _sha256(path) for name, path in paths.items()},
            # Of several files in a folder, `files_of` takes one kind.
            "checkpoint_files": {
                name: [file.name for file in files_of(path)] for name, path in paths.items()
            },
            "config": config.model_dump(mode="json", exclude={"checkpoints", "instructions"}),
        },
    )


def _camera(name: str, stream: StreamConfig, config: ReleasedFile) -> CameraSpec:
    """Describe one video stream's images. Both streams use the head camera."""
    height, width = stream.video_size
    interval_s = 1.0 / config.filter_fps
    return CameraSpec(
        name=name, width=width, height=height, history=stream.num_frames, interval_s=interval_s
    )


def _joints(config: ReleasedFile) -> list[JointSpec]:
    slots = config.agilex_state_indices
    if foreign := [slot for slot in slots if slot_name(slot) == f"slot_{slot}"]:
        raise ConfigError(
            f"agilex_state_indices {foreign} are no joint positions but velocities or "
            "end-effector poses; v2a moves joints by position, so this policy is not supported"
        )
    if not config.joints:
        return [_unlimited(slot) for slot in slots]
    return [
        JointSpec(
            name=joint.name,
            unit="1" if is_gripper(slot) else "rad",
            lower=joint.lower_rad,
            upper=joint.upper_rad,
            velocity_limit=joint.velocity_limit_rad_s,
        )
        for joint, slot in zip(config.joints, slots, strict=True)
    ]


def _unlimited(slot: int) -> JointSpec:
    """Return wide limits: a full turn, or a gripper's full range, and once that way per second."""
    name = slot_name(slot)
    if is_gripper(slot):
        return JointSpec(name=name, unit="1", lower=0.0, upper=1.0, velocity_limit=1.0)
    return JointSpec(name=name, lower=-math.pi, upper=math.pi, velocity_limit=2 * math.pi)


def _sha256(path: Path) -> str:
    """Return the SHA-256 over all files of a checkpoint, in order."""
    digest = hashlib.sha256()
    for file in files_of(path):
        with file.open("rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
