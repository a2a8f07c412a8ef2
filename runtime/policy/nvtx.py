"""A second sink for the graphs' stages: NVTX ranges, for who looks with Nsight Systems.

Set `V2A_NVTX=1` to have them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any, Final

import numpy.typing as npt

from runtime.engines.base import Tensors
from v2a.errors import ConfigError

VARIABLE: Final = "V2A_NVTX"

Run = Callable[[Mapping[str, npt.NDArray[Any]]], Tensors]


def ranged(stage: str, run: Run) -> Run:
    """`run` within a range of this name in the domain `v2a`; `run` itself unless asked for.

    Raises ConfigError where it is asked for and the package nvtx is not installed.
    """
    if not os.environ.get(VARIABLE):
        return run
    try:
        nvtx = import_module("nvtx")
    except ModuleNotFoundError as missing:
        raise ConfigError(
            f"{VARIABLE} is set, but there is no nvtx; run: pip install nvtx, or unset {VARIABLE}"
        ) from missing
    around: AbstractContextManager[object] = nvtx.annotate(stage, domain="v2a")

    def within(feeds: Mapping[str, npt.NDArray[Any]]) -> Tensors:
        with around:
            return run(feeds)

    return within
