"""Times the layers of each engine and adds them up by module: which part of a network costs what.

The exporter names each node `module.path/operator`, and engines keep these names. ONNX Runtime
appends the fused operators after another slash, TensorRT joins their names with ` + `. The numbers
in a path become `*`, so the blocks of a network count as one module.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy.typing as npt

from runtime.engines.base import EngineFactory, LayerTime, TimesLayers
from runtime.profile_model import LayerShare
from v2a.bundle import Bundle

RUNS: Final = 10
_NUMBER: Final = re.compile(r"(?<=\.)\d+(?=\.|$)")
_IN_TRT: Final = re.compile(r"(?:^|[\s\[(+])([A-Za-z_]\w*(?:\.\w+)+)/")

Feeds = Mapping[str, npt.NDArray[Any]]


def measure_layers(
    bundle: Bundle, engines: EngineFactory, feeds: Mapping[str, Feeds]
) -> dict[str, tuple[LayerShare, ...]]:
    """Graph -> its modules, the most expensive first, for engines that time their layers.

    `feeds` is graph -> input -> array, dtype and shape as the graph's spec says.
    """
    found: dict[str, tuple[LayerShare, ...]] = {}
    for graph in bundle.manifest.graphs:
        if graph.name in feeds:
            with engines(graph, bundle.graph_path(graph.name)) as engine:
                if isinstance(engine, TimesLayers):
                    times = engine.layer_times(feeds[graph.name], RUNS)
                    found[graph.name] = fold_by_module(times)
    return found


def fold_by_module(layers: Iterable[LayerTime]) -> tuple[LayerShare, ...]:
    """Add up the times of the layers of each module, the most expensive first.

    A layer that the engine added counts for the module before it. In a bundle of an older export no
    layer has a module; then layers of the same kind are added up.
    """
    layers = list(layers)
    modules = [module_of(layer.name) for layer in layers]
    if not any(modules):
        modules = [f"({layer.kind})" for layer in layers]
    taken_ms: defaultdict[str, float] = defaultdict(float)
    module = next((name for name in modules if name), "")
    for layer, name in zip(layers, modules, strict=True):
        module = name or module
        taken_ms[module] += layer.ms
    whole_ms = sum(taken_ms.values()) or 1.0
    return tuple(
        LayerShare(module=module, share=round(ms / whole_ms, 4), ms=round(ms, 5))
        for module, ms in sorted(taken_ms.items(), key=lambda item: -item[1])
    )


def module_of(name: str) -> str | None:
    """`policy.core.blocks.3.attn.qkv/MatMul_7` -> `core.blocks.*.attn.qkv`.

    The first module of a fused layer; None if the name holds no module.
    """
    match = _IN_TRT.search(name)
    return None if match is None else _NUMBER.sub("*", match[1]).removeprefix("policy.")
