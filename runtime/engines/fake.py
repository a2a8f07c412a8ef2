"""An engine without a model: returns zeros, or the results of a function of your own.

With it you can test a robot's wiring, timing and safety before you have a policy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from runtime.engines.base import Engine, Tensors, check_tensor, zeros
from v2a.bundle import GraphSpec

Function = Callable[[Mapping[str, npt.NDArray[Any]]], Mapping[str, npt.NDArray[Any]]]


class FakeEngine(Engine):
    """Checks its feeds against the manifest, then returns the outputs of `function(feeds)`.

    Outputs that `function` leaves out are zero.
    """

    def __init__(
        self,
        graph: GraphSpec,
        path: Path | None = None,
        threads: int = 1,
        function: Function | None = None,
    ) -> None:
        self._graph = graph
        self._function = function

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Tensors:
        """See `Engine.run`. Raises EngineError on a wrong shape or dtype, of outputs too."""
        for spec in self._graph.inputs:
            check_tensor(self._graph.name, spec, feeds.get(spec.name))
        outputs = zeros(self._graph.outputs)
        if self._function is not None:
            outputs.update(self._function(feeds))
        for spec in self._graph.outputs:
            check_tensor(self._graph.name, spec, outputs[spec.name])
        return outputs

    def close(self) -> None:
        """Do nothing, as this engine holds no resources."""
