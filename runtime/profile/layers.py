"""Layers inside an engine, folded by module: which part of a network costs what.

The exporter names each node `module.path/operator`, and engines keep those names: ONNX Runtime
puts what it fused behind another slash, TensorRT joins the names of what it fused by ` + `. The
digits of a path are folded, so that the blocks of a network count as one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy.typing as npt

from runtime.engines.base import EngineFactory, LayerTime, TimesLayers
from v2a.bundle import Bundle

RUNS: Final = 10
_NUMBER: Final = re.compile(r"(?<=\.)\d+(?=\.|$)")
_IN_TRT: Final = re.compile(r"(?:^|[\s\[(+])([A-Za-z_]\w*(?:\.\w+)+)/")

Feeds = Mapping[str, npt.NDArray[Any]]


def layers_of(
    bundle: Bundle, engines: EngineFactory, feeds: Mapping[str, Feeds]
) -> dict[str, list[dict[str, Any]]]:
    """Graph -> its modules, the dearest first; only of engines that tell."""
    found: dict[str, list[dict[str, Any]]] = {}
    for graph in bundle.manifest.graphs:
        if graph.name in feeds:
            with engines(graph, bundle.graph_path(graph.name)) as engine:
                if isinstance(engine, TimesLayers):
                    found[graph.name] = fold(engine.layer_times(feeds[graph.name], RUNS))
    return found


def fold(layers: Iterable[LayerTime]) -> list[dict[str, Any]]:
    """Module, share and ms of each, the dearest first. A layer that the engine put in by itself
    counts for the module before it. In a bundle of an older export no layer has a module: then it
    is kinds of layers that are told apart.
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
    return [
        {"module": module, "share": round(ms / whole_ms, 4), "ms": round(ms, 5)}
        for module, ms in sorted(taken_ms.items(), key=lambda item: -item[1])
    ]


def module_of(name: str) -> str | None:
    """`policy.core.blocks.3.attn.qkv/MatMul_7` -> `core.blocks.*.attn.qkv`; None where the name
    has no module in it. Of several, the first."""
    match = _IN_TRT.search(name)
    return None if match is None else _NUMBER.sub("*", match[1]).removeprefix("policy.")
