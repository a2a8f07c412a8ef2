"""The parts of every policy's file: its joints and the precision of each network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from annotated_types import Gt
from pydantic import model_validator

from v2a.config import Strict

Seconds = Annotated[float, Gt(0)]
Component = Literal["vae", "dit", "core"]
Precision = Literal["fp32", "fp16", "bf16"]
FULL: Final = "fp32"
Precisions = Mapping[Component, Precision]  # a missing component is FULL


class JointConfig(Strict):
    """One joint of the action space. Its limits also normalise the network's inputs."""

    name: str
    lower_rad: float
    upper_rad: float
    velocity_limit_rad_s: Annotated[float, Gt(0)]

    @model_validator(mode="after")
    def _ordered(self) -> JointConfig:
        if self.lower_rad >= self.upper_rad:
            raise ValueError(f"lower_rad {self.lower_rad} must be below upper_rad {self.upper_rad}")
        return self


class PrecisionConfig(Strict):
    """The precision of each network. The VAE can't be bf16: ONNX opset 18 has no bf16 Conv."""

    vae: Literal["fp32", "fp16"] = FULL
    dit: Precision = FULL
    core: Precision = FULL

    def by_component(self) -> Precisions:
        """Return component -> precision."""
        return {"vae": self.vae, "dit": self.dit, "core": self.core}
