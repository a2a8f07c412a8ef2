"""Marks each run of a graph as an NVTX range, which Nsight Systems shows.

Set `V2A_NVTX=1` to switch the ranges on.
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
    """Wrap `run` in a range named `stage` of the domain `v2a`. Without `V2A_NVTX` return `run`.

    `run` takes and returns name -> array, with shape and dtype as in the graph's spec. Raises
    ConfigError if `V2A_NVTX` is set and the package nvtx is not installed.
    """
    if not os.environ.get(VARIABLE):
        return run
    try:
        nvtx = import_module("nvtx")
    except ModuleNotFoundError as missing:
        raise ConfigError(
            f"{VARIABLE} is set, but nvtx is missing; run: pip install nvtx, or unset {VARIABLE}"
        ) from missing
    around: AbstractContextManager[object] = nvtx.annotate(stage, domain="v2a")

    def _within(feeds: Mapping[str, npt.NDArray[Any]]) -> Tensors:
        with around:
            return run(feeds)

    return _within
