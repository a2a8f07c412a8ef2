"""Writes small ONNX files without the `onnx` package, which a robot does not have.

Field numbers are those of onnx/onnx.proto; the wire format is protobuf's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from v2a.bundle import GraphSpec, TensorSpec

OPSET = 17
_IR_VERSION = 8  # the version of opset 17
_ELEMENT = {"float32": 1, "uint8": 2, "int64": 7, "float16": 10}  # TensorProto.DataType
_INT, _INTS = 2, 7  # AttributeProto.AttributeType

Field = tuple[int, "int | str | bytes"]


class Node(NamedTuple):
    """One operator. An attribute is an integer or a list of integers."""

    operator: str
    inputs: Sequence[str]
    output: str
    attributes: Mapping[str, int | list[int]] = {}


def onnx_bytes(
    graph: GraphSpec, nodes: Iterable[Node], weights: Mapping[str, npt.NDArray[Any]]
) -> bytes:
    """Return an ONNX file with the inputs and outputs of `graph`.

    `weights` maps names to arrays of float32 or int64 in any shape.
    """
    content = _message(
        *((1, _node(node)) for node in nodes),
        (2, graph.name),
        *((5, _weight(name, array)) for name, array in weights.items()),
        *((11, _value(spec)) for spec in graph.inputs),
        *((12, _value(spec)) for spec in graph.outputs),
    )
    opset = _message((1, ""), (2, OPSET))
    return _message((1, _IR_VERSION), (2, "v2a"), (7, content), (8, opset))


def _node(node: Node) -> bytes:
    return _message(
        *((1, name) for name in node.inputs),
        (2, node.output),
        (3, node.output),  # the node's own name
        (4, node.operator),
        *((5, _attribute(name, value)) for name, value in node.attributes.items()),
    )


def _attribute(name: str, value: int | list[int]) -> bytes:
    if isinstance(value, int):
        return _message((1, name), (3, value), (20, _INT))
    return _message((1, name), *((8, item) for item in value), (20, _INTS))


def _weight(name: str, array: npt.NDArray[Any]) -> bytes:
    kind = _ELEMENT[array.dtype.name]
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return _message(
        *((1, size) for size in array.shape), (2, kind), (8, name), (9, little.tobytes())
    )


def _value(spec: TensorSpec) -> bytes:
    shape = _message(*((1, _message((1, size))) for size in spec.shape))
    tensor = _message((1, _ELEMENT[spec.dtype]), (2, shape))
    return _message((1, spec.name), (2, _message((1, tensor))))


def _message(*fields: Field) -> bytes:
    return b"".join(_field(number, value) for number, value in fields)


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))
