"""Compares the precisions that a network asks for with those that its engine has.

TensorRT may silently build another precision than the network asks for, such as FP32 instead of
FP8 (github.com/NVIDIA/TensorRT/issues/4590). So we read the engine back, layer by layer.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard

# The types of layers that do nearly all of the arithmetic. The precision of others matters little.
HEAVY = ("ATTENTION", "CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")

# TensorRT's name of a precision -> pattern of how the engine inspector writes it ("Row major
# linear FP32", "Channel major FP16 format where channel % 4 == 0", "Half"). BFloat16 and float16
# must come before float.
WRITTEN = {
    "INT8": r"int8",
    "INT4": r"int4",
    "FP8": r"fp8|e4m3",
    "FP4": r"fp4|e2m1",
    "BF16": r"bf16|bfloat16",
    "HALF": r"fp16|half|float16",
    "FLOAT": r"fp32|float",
}

# The inspector's keys for a tensor's type: one for format and type in TensorRT 10.x, two in 11.x.
_TYPE_KEYS = ("Format/Datatype", "Format/DataType", "Datatype", "DataType")
_ONNX_NAME = re.compile(r"\[ONNX Layer: ([^\]]+)\]")


class Changed(NamedTuple):
    """A layer whose precision differs from the one asked for."""

    node: str
    asked: str
    built: str


@dataclass(frozen=True, slots=True)
class Readback:
    """The heavy layers, by whether they have the precision asked for."""

    kept: dict[str, int]  # precision -> number of layers
    changed: list[Changed]
    unseen: int  # not shown by the inspector: folded into a constant, or renamed

    @property
    def lost(self) -> list[str]:
        """The precisions that were asked for but that no layer has."""
        return sorted({layer.asked for layer in self.changed} - set(self.kept))


def asked_precisions(network: Any) -> dict[str, str]:
    """Return ONNX node -> precision for each heavy layer of a strongly typed network.

    Behind a DequantizeLinear this is the quantised type. If two operands differ, it is the wider
    type: INT8 weights alone do not make an INT8 product.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    made_by = {
        layer.get_output(index).name: layer
        for layer in layers
        for index in range(layer.num_outputs)
    }
    return {
        layer.name: _widest(
            _source_type(layer.get_input(index), made_by)
            for index in range(layer.num_inputs)
            if layer.get_input(index) is not None
        )
        for layer in layers
        if layer.type.name in HEAVY
    }


def _source_type(tensor: Any, made_by: Mapping[str, Any]) -> str:
    """Return the type of `tensor` before any SHUFFLE and before its DequantizeLinear."""
    layer = made_by.get(tensor.name)
    while layer is not None and layer.type.name == "SHUFFLE":
        tensor = layer.get_input(0)
        layer = made_by.get(tensor.name)
    if layer is not None and layer.type.name == "DEQUANTIZE":
        tensor = layer.get_input(0)
    name: str = tensor.dtype.name
    return name


def _widest(precisions: Iterable[str]) -> str:
    order = ["FP4", "INT4", "FP8", "INT8", "BF16", "HALF", "FLOAT"]
    return max(precisions, key=lambda name: order.index(name) if name in order else len(order))


def built_precisions(inspected: str) -> dict[str, set[str]]:
    """Return ONNX node -> the precisions that its engine layers read, from the inspector's JSON.

    The engine must be built with detailed profiling verbosity; otherwise layers are bare names.
    """
    found: dict[str, set[str]] = {}
    for layer in json.loads(inspected)["Layers"]:
        if isinstance(layer, dict):
            for name in _ONNX_NAME.findall(layer.get("Metadata") or ""):
                found.setdefault(name, set()).update(_read_types(layer))
    return found


def _read_types(layer: Mapping[str, Any]) -> set[str]:
    tensors = [t for key in ("Inputs", "Constants") for t in layer.get(key) or [] if _is_dict(t)]
    written = [str(t[key]) for t in tensors for key in _TYPE_KEYS if key in t]
    if _is_dict(weights := layer.get("Weights")):
        written.append(str(weights.get("Type", "")))
    return {name for text in written if (name := _precision(text)) is not None}


def _is_dict(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _precision(written: str) -> str | None:
    matches = (name for name, way in WRITTEN.items() if re.search(way, written, re.IGNORECASE))
    return next(matches, None)


def read_back(asked: Mapping[str, str], built: Mapping[str, set[str]]) -> Readback:
    """Compare layer by layer. A layer has a precision if it reads a tensor of that precision."""
    seen = {name: want for name, want in asked.items() if built.get(name)}
    kept = Counter(want for name, want in seen.items() if want in built[name])
    changed = [
        Changed(name, want, "+".join(sorted(built[name])))
        for name, want in seen.items()
        if want not in built[name]
    ]
    return Readback(dict(kept), changed, unseen=len(asked) - len(seen))
