"""A released policy's file and checkpoints, as the source of a bundle."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, model_validator

from export.pipeline.bundle import Source
from export.pipeline.config import JointConfig, PrecisionConfig, Seconds
from export.release.checkpoints import load_released
from export.release.config import ReleaseConfig, StreamConfig
from export.release.image_encoder import SiglipEncoder
from export.release.instructions import Instruction, read_instructions
from export.release.rates import Channels, split_of
from export.release.slots import is_gripper, slot_name
from export.release.weight_files import files_of
from v2a.bundle import ActionSpace, CameraSpec, JointSpec, Manifest
from v2a.config import Strict, load_yaml


class CheckpointPaths(Strict):
    """Where the weights are, from the policy file's folder: files, or folders as released."""

    policy: Path = Path("policy.safetensors")
    dit: Path = Path("wan_dit.safetensors")
    vae: Path = Path("vae_encoder.safetensors")
    image_encoder: Path | None = None  # a folder of SigLIP; without it, its tokens are an input


class ReleasedFile(ReleaseConfig):
    """What `v2a export` reads: a golden folder's `config.json`, or a YAML file with these too.

    Attributes:
        joints: names and limits of the joints in `agilex_state_indices`, in that order. Where left
            out they are the release's names, and the limits let everything pass: those of the
            robot's own file hold (docs/run.md).
        video_channels: order in which the VAE was trained to see a picture's channels.
        condition_age_max_s: oldest condition to act on; where left out, the length of a chunk.
    """

    name: str = "released"
    description: str = ""
    checkpoints: CheckpointPaths = CheckpointPaths()
    instructions: dict[str, Instruction] = Field(default_factory=dict)
    joints: tuple[JointConfig, ...] = ()
    precision: PrecisionConfig = PrecisionConfig()
    video_channels: Channels = "bgr"
    condition_age_max_s: Seconds | None = None

    @model_validator(mode="after")
    def _joints_fit(self) -> ReleasedFile:
        if self.joints and len(self.joints) != len(self.agilex_state_indices):
            raise ValueError(
                f"{len(self.joints)} joints for {len(self.agilex_state_indices)} "
                "agilex_state_indices: name one for each"
            )
        return self


def released_policy(file: Path) -> Source:
    """Raises ConfigError, one line per fault, where file, checkpoints and instructions don't fit
    each other."""
    config = load_yaml(file, ReleasedFile)
    named = config.checkpoints
    paths = {name: file.parent / path for name, path in named if path is not None}
    policy = load_released(config, paths["policy"], paths["dit"], paths["vae"])
    if "image_encoder" in paths:
        policy.image_encoder = SiglipEncoder(paths["image_encoder"], config)
    texts = read_instructions(config, config.instructions, file.parent)
    precision = config.precision.by_component()
    split = split_of(policy, texts.lengths, precision, config.video_channels)
    return Source(split, _manifest(config, paths), texts.lang, texts.video)


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
            "config": config.model_dump(mode="json", exclude={"checkpoints", "instructions"}),
        },
    )


def _camera(name: str, stream: StreamConfig, config: ReleasedFile) -> CameraSpec:
    """One picture that the video model wants: both are of the head camera."""
    height, width = stream.video_size
    interval_s = 1.0 / config.filter_fps
    return CameraSpec(
        name=name, width=width, height=height, history=stream.num_frames, interval_s=interval_s
    )


def _joints(config: ReleasedFile) -> list[JointSpec]:
    slots = config.agilex_state_indices
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
    """A whole turn, or the gripper's whole way, in a second."""
    name = slot_name(slot)
    if is_gripper(slot):
        return JointSpec(name=name, unit="1", lower=0.0, upper=1.0, velocity_limit=1.0)
    return JointSpec(name=name, lower=-math.pi, upper=math.pi, velocity_limit=2 * math.pi)


def _sha256(path: Path) -> str:
    """Of all files of a checkpoint, one after the other."""
    digest = hashlib.sha256()
    for file in files_of(path):
        with file.open("rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
