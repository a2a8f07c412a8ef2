"""Finds the tensors of an ONNX file whose values are in another file, without the `onnx` package.

An engine opens every file that a graph names, wherever it is. So a bundle is only safe if each name
is known before the engine sees the graph. This reads just enough of the protobuf wire format
(protobuf.dev/programming-guides/encoding) and of ONNX's messages (onnx/onnx.proto) for that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from v2a.errors import BundleError

# Message -> field number -> message, for the fields that lead to a tensor.
_MESSAGES = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_WEIGHT = ("model", "graph", "tensor")  # the way to a tensor that engines take as a weight
_DIMS, _DATA_TYPE, _NAME, _EXTERNAL_DATA = 1, 2, 8, 13  # fields of a tensor
_KEY, _VALUE = 1, 2  # fields of an entry of external_data
_DEEPEST_NESTING = 100  # protobuf's own limit

_VARINT, _BYTES = 0, 2  # wire types
_FIXED_BYTES = {1: 8, 5: 4}  # wire type -> size


class External(NamedTuple):
    """A tensor with its values in another file.

    `location` is that file, relative to the folder of the ONNX file. `dtype` is ONNX's number of an
    element type. `length_bytes` is None if the values reach to the end of the file.
    """

    tensor: str
    location: str
    is_weight: bool  # a weight of the main graph, so an engine takes its values from memory
    dtype: int
    shape: tuple[int, ...]
    offset_bytes: int
    length_bytes: int | None


def external_tensors(model: bytes | bytearray) -> list[External]:
    """Return the external tensors of the ONNX file with the content `model`.

    Raises BundleError if the content is not an ONNX file, or if a tensor names its file twice.
    """
    if b"location" not in model:  # the key in every external tensor: this saves the walk
        return []
    try:
        return list(_walk(memoryview(model), ("model",)))
    except (IndexError, ValueError, AttributeError, TypeError):
        raise BundleError("damaged, or not an ONNX file; export the bundle again") from None


def _walk(message: memoryview, way: tuple[str, ...]) -> Iterator[External]:
    if len(way) > _DEEPEST_NESTING:
        raise IndexError
    if way[-1] == "tensor":
        yield from _external(message, way == _WEIGHT)
        return
    children = _MESSAGES[way[-1]]
    for number, content in _fields(message):
        if number in children:
            yield from _walk(_bytes(content), (*way, children[number]))


def _external(tensor: memoryview, is_weight: bool) -> Iterator[External]:
    found: dict[int, list[int | memoryview]] = defaultdict(list)
    for number, content in _fields(tensor):
        found[number].append(content)
    if not found[_EXTERNAL_DATA]:
        return
    entries = [_entry(content) for content in found[_EXTERNAL_DATA]]
    said = dict(entries)
    if len(said) < len(entries):  # parsers differ in which of two they take
        raise ValueError("an entry twice")
    yield External(
        _text(found[_NAME][-1]) if found[_NAME] else "",
        said.get("location", ""),
        is_weight,
        _number(found[_DATA_TYPE][-1]) if found[_DATA_TYPE] else 0,
        tuple(size for content in found[_DIMS] for size in _sizes(content)),
        int(said.get("offset", 0)),
        int(said["length"]) if "length" in said else None,
    )


def _entry(content: int | memoryview) -> tuple[str, str]:
    texts = {number: _text(text) for number, text in _fields(_bytes(content))}
    return texts.get(_KEY, ""), texts.get(_VALUE, "")


def _sizes(content: int | memoryview) -> Iterator[int]:
    """Yield the sizes in one field: a number, or several that are packed."""
    if isinstance(content, int):
        yield content
        return
    at = 0
    while at < len(content):
        size, at = _varint(content, at)
        yield size


def _bytes(content: int | memoryview) -> memoryview:
    if isinstance(content, int):
        raise ValueError("a number for a message")
    return content


def _number(content: int | memoryview) -> int:
    if not isinstance(content, int):
        raise ValueError("a message for a number")
    return content


def _text(content: int | memoryview) -> str:
    return str(_bytes(content), "utf-8")


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield number and content of each field, in their order.

    Raises IndexError for a message that is cut off or not protobuf.
    """
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        wire = tag & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield tag >> 3, value
        elif wire == _BYTES:
            size, at = _varint(message, at)
            yield tag >> 3, message[at : at + size]
            at += size
        elif wire in _FIXED_BYTES:
            at += _FIXED_BYTES[wire]
        else:  # ONNX has no groups
            raise IndexError
    if at != len(message):
        raise IndexError


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise IndexError
