"""`Header`: what a recording says of the run before its first message."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from runtime.config.robot_yaml import RunConfig
from v2a.measured import Measured
from v2a.names import Rate, stages_of


class Header(Measured):
    """What ran: the configuration, the bundle and the seed, from which a replay starts.

    The recorder writes it as the metadata record `v2a` of `run.mcap`, as JSON.
    """

    schema_version: Literal[1] = Field(default=1, description="version of this schema")
    start_ns: int = Field(description="start of the run on the machine's monotonic clock, ns")
    start_utc_ns: int | None = Field(
        default=None,
        description="the same moment as time since 1970 (UTC), ns; null in older recordings. "
        "Lockstep begins in 1970",
    )
    dry_run: bool | None = Field(
        default=None,
        description="whether the robot was virtual, so that nothing moved; null: an older v2a, "
        "which did not say",
    )
    config: RunConfig = Field(description="all of robot.yaml, with its defaults")
    policy: str = Field(description="name of the policy in the bundle")
    bundle: str = Field(description="path of the bundle")
    bundle_sha256: str = Field(description="SHA-256 of the bundle's manifest, as hex digits")
    provenance: dict[str, Any] = Field(
        description="the `provenance` of the bundle's manifest: how the bundle was made"
    )
    stages: tuple[str, ...] = Field(
        description="names of the run's stages. A span holds an index into this list: first the "
        "machine's stages, then the bundle's graphs"
    )
    rates: dict[str, Rate] = Field(description="graph -> the event on which its inputs change")
    seed: int = Field(description="seed of the sampler's noise")
    versions: dict[str, str] = Field(description="package -> version; also python and machine")

    @model_validator(mode="after")
    def _fitting_stages(self) -> Header:
        if self.stages != stages_of(self.rates):
            raise ValueError(
                f"stages must be those of every run, then the graphs of rates: "
                f"{', '.join(stages_of(self.rates))}"
            )
        return self

    def log_ns(self, t_ns: int) -> int:
        """Return the time in the file, ns since 1970, of a moment on the monotonic clock."""
        return t_ns + self._offset_ns

    @property
    def _offset_ns(self) -> int:
        return 0 if self.start_utc_ns is None else self.start_utc_ns - self.start_ns
