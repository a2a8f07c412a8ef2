"""The file of a released policy: a `ReleaseConfig` with what an export needs besides.

This module imports no torch, so that `v2a plan` judges a policy's file as `v2a export` does.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from export.pipeline.config import JointConfig, PrecisionConfig, Seconds
from export.release.config import Channels, ReleaseConfig
from v2a.config import Strict


class Instruction(Strict):
    """The embedding files of one instruction, relative to the policy file."""

    lang: Path
    video: Path


class CheckpointPaths(Strict):
    """Paths of the weights, relative to the policy file: files, or folders as released."""

    policy: Path = Path("policy.safetensors")
    dit: Path = Path("wan_dit.safetensors")
    vae: Path = Path("vae_encoder.safetensors")
    image_encoder: Path | None = None  # SigLIP's folder; without it, image tokens are an input


class ReleasedFile(ReleaseConfig):
    """A released policy's file: a golden folder's `config.json`, or YAML with more options.

    Attributes:
        joints: names and limits of the joints in `agilex_state_indices`, in that order. The
            default is the release's names with wide limits; those in the robot's own file apply
            (docs/robot_yaml.md).
        video_channels: the order of image channels with which the VAE was trained.
        condition_age_max_s: the oldest condition to act on; default: the length of a chunk.
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
                "agilex_state_indices: name one joint per index"
            )
        return self
