"""Real ONNX files for the graphs of a manifest: every output is all zeros."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from v2a.bundle import GraphSpec, TensorSpec


def _value(spec: TensorSpec) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
    return helper.make_tensor_value_info(spec.name, kind, spec.shape)


def _save(nodes: list[onnx.NodeProto], graph: GraphSpec, path: Path) -> None:
    inputs, outputs = [_value(s) for s in graph.inputs], [_value(s) for s in graph.outputs]
    model = helper.make_model(
        helper.make_graph(nodes, graph.name, inputs, outputs),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, path)


def write_zeros(graph: GraphSpec, path: Path) -> None:
    """A graph with the inputs and outputs of `graph` that needs no input to know its answer."""
    nodes = [
        helper.make_node(
            "Constant",
            [],
            [spec.name],
            value=numpy_helper.from_array(np.zeros(spec.shape, spec.dtype)),
        )
        for spec in graph.outputs
    ]
    _save(nodes, graph, path)


def write_mixed(graph: GraphSpec, path: Path, offset: float = 0.0) -> None:
    """A graph whose every output is the mean of each input, each with a weight of its own, added
    up, plus `offset`: whatever goes in shows in all that comes out."""
    nodes, terms = [], []
    for index, spec in enumerate(graph.inputs, start=1):
        name = spec.name
        weight = numpy_helper.from_array(np.array(0.01 * index, np.float32))
        nodes += [
            helper.make_node("Cast", [name], [f"{name}_f"], to=onnx.TensorProto.FLOAT),
            helper.make_node("ReduceMean", [f"{name}_f"], [f"{name}_mean"], keepdims=0),
            helper.make_node("Constant", [], [f"{name}_weight"], value=weight),
            helper.make_node("Mul", [f"{name}_mean", f"{name}_weight"], [f"{name}_term"]),
        ]
        terms.append(f"{name}_term")
    constant = numpy_helper.from_array(np.array(offset, np.float32))
    nodes += [
        helper.make_node("Constant", [], ["offset"], value=constant),
        helper.make_node("Sum", [*terms, "offset"], ["total"]),
    ]
    for spec in graph.outputs:
        shape = numpy_helper.from_array(np.array(spec.shape, np.int64))
        nodes += [
            helper.make_node("Constant", [], [f"{spec.name}_shape"], value=shape),
            helper.make_node("Expand", ["total", f"{spec.name}_shape"], [spec.name]),
        ]
    _save(nodes, graph, path)


def write_double(path: Path, dtype: type = np.float32, size: int | str = 3) -> None:
    """y = x + x, [1, `size`]."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    x, y = (helper.make_tensor_value_info(name, kind, [1, size]) for name in ("x", "y"))
    model = helper.make_model(
        helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "double", [x], [y]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, path)


def external_tensor(name: str, values: npt.NDArray[Any], location: str) -> onnx.TensorProto:
    """A tensor whose values are the whole file `location`."""
    tensor = numpy_helper.from_array(values, name)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(values.nbytes))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def write_external(path: Path, values: npt.NDArray[Any], location: str) -> None:
    """y = x * w, [1, n], with the float32 weights w in the file `location`."""
    shape = [1, values.size]
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in "xy")
    weight = external_tensor("w", values, location)
    graph = helper.make_graph([helper.make_node("Mul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    path.write_bytes(model.SerializeToString())
