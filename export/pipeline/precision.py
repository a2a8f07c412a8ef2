"""Rewrites a graph to half precision where that is safe.

Strongly typed networks (all in TensorRT 11, optional in 10) take each tensor's type from the ONNX
graph. So the exporter sets a precision by rewriting the graph. Matrix products, convolutions and
operators that only move their operands get the narrow type. Everything else stays float32: softmax,
norms, rotary and time embeddings, activations, sums, the residual stream. These do little of the
arithmetic, but their exponentials, squares and long sums exceed float16's range (65504) or
bfloat16's eight bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Literal

import numpy as np
import onnx_ir as ir

from export.pipeline.config import Precision
from v2a.errors import BundleError

NARROW = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}

STORED: Mapping[Precision, Literal["float32", "float16"]] = {
    "fp32": "float32",
    "fp16": "float16",
    "bf16": "float32",  # numpy has no bfloat16
}
"""The dtype of large tensors that leave a graph of this precision."""

PRODUCTS: Mapping[Precision, frozenset[str]] = {
    "fp16": frozenset({"Conv", "Gemm", "MatMul"}),
    "bf16": frozenset({"Gemm", "MatMul"}),  # ONNX has Conv in bfloat16 from opset 22 on
}
MOVES = frozenset(
    {"Concat", "Expand", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze",
     "Transpose", "Unsqueeze"}
)  # fmt: skip


def narrow(model: ir.Model, precision: Precision, borders: Mapping[str, str]) -> None:
    """Rewrite a float32 `model` for `precision`, in place.

    `borders` maps each input and output to its dtype in the manifest. Weights are converted when
    they are written. That raises BundleError if a weight exceeds the narrow type's range.
    """
    target = NARROW[precision]
    for value in model.graph.inputs:
        value.dtype = ir.DataType[_NAMES[borders[value.name or ""]]]
    walk = _Walk(model.graph, target, PRODUCTS[precision])
    for node in list(model.graph):
        walk.visit(node)
    for index, value in enumerate(model.graph.outputs):
        model.graph.outputs[index] = walk.border(value, borders[value.name or ""])


_NAMES = {"float32": "FLOAT", "float16": "FLOAT16", "uint8": "UINT8", "int64": "INT64"}


class _Walk:
    """Sets types along a graph, from its inputs on, and casts each value at most once."""

    def __init__(self, graph: ir.Graph, target: ir.DataType, products: frozenset[str]) -> None:
        self._graph = graph
        self._floats = (ir.DataType.FLOAT, target)
        self._target = target
        self._products = products
        self._casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def visit(self, node: ir.Node) -> None:
        wanted = self._wanted(node)
        for index, value in self._float_inputs(node):
            node.replace_input_with(index, self._cast(value, wanted, node))
        for output in node.outputs:
            if output.dtype in self._floats and node.op_type != "Cast":
                output.dtype = wanted

    def border(self, value: ir.Value, dtype: str) -> ir.Value:
        """Return the graph's output `value` as `dtype`, under the same name."""
        wanted = ir.DataType[_NAMES[dtype]]
        if value.dtype == wanted:
            return value
        name, value.name = value.name, f"{value.name}_narrow"
        out = self._cast_node(value, wanted)
        self._graph.append(out)
        out.outputs[0].name = name
        return out.outputs[0]

    def _wanted(self, node: ir.Node) -> ir.DataType:
        if node.op_type in self._products:
            return self._target
        moved = [value.dtype for _, value in self._float_inputs(node)]
        moves = node.op_type in MOVES and set(moved) == {self._target}
        return self._target if moves else ir.DataType.FLOAT

    def _float_inputs(self, node: ir.Node) -> Iterator[tuple[int, ir.Value]]:
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype in self._floats:
                yield index, value

    def _cast(self, value: ir.Value, dtype: ir.DataType, before: ir.Node) -> ir.Value:
        if value.dtype == dtype:
            return value
        if (value, dtype) not in self._casts:
            if value.is_initializer() and value.const_value is not None:
                cast = _weight(value, value.const_value, dtype)
                self._graph.register_initializer(cast)
            else:
                node = self._cast_node(value, dtype)
                self._graph.insert_before(before, node)
                cast = node.outputs[0]
            self._casts[value, dtype] = cast
        return self._casts[value, dtype]

    def _cast_node(self, value: ir.Value, dtype: ir.DataType) -> ir.Node:
        output = ir.Value(
            name=f"{value.name}_{dtype.short_name()}",
            shape=value.shape,
            type=ir.TensorType(dtype),
        )
        return ir.node("Cast", [value], {"to": int(dtype)}, outputs=[output])


def _weight(value: ir.Value, tensor: ir.TensorProtocol, dtype: ir.DataType) -> ir.Value:
    """Return the weight as `dtype`, converted on writing: there are never two copies of all."""
    name = f"{value.name}_{dtype.short_name()}"
    shape = ir.Shape(tensor.shape.numpy())
    lazy = ir.LazyTensor(partial(_converted, tensor, dtype, name), dtype, shape, name=name)
    return ir.Value(name=name, shape=value.shape, type=ir.TensorType(dtype), const_value=lazy)


def _converted(tensor: ir.TensorProtocol, dtype: ir.DataType, name: str) -> ir.TensorProtocol:
    wide = tensor.numpy()
    with np.errstate(over="ignore"):
        array = wide.astype(dtype.numpy())
    if not np.isfinite(array.astype(np.float32)).all():
        raise BundleError(
            f"weight {name}: its largest value {np.abs(wide).max():.3g} does not fit; "
            "export this component as bf16 or fp32"
        )
    return ir.Tensor(array, dtype=dtype, name=name)
