"""The reader of ONNX's external tensors, compared with the `onnx` package that writes the files."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from v2a.errors import BundleError
from v2a.onnx_file import External, external_tensors

onnx = pytest.importorskip("onnx", reason="onnx writes the files of these tests")
from tests.runtime.onnx_files import external_tensor  # noqa: E402  it needs onnx

VALUES = np.arange(6, dtype=np.float16).reshape(2, 3)


def hidden(place: str) -> bytes:
    """A model with one external tensor, at `place`."""
    tensor = external_tensor("w", VALUES, "../secret")
    model, inner = onnx.ModelProto(ir_version=8, doc_string="a " * 50), onnx.GraphProto()
    node = model.graph.node.add(op_type="If", name="n")
    if place == "weight":
        model.graph.initializer.append(tensor)
    elif place == "sparse weight":
        model.graph.sparse_initializer.add(values=tensor)
    elif place == "attribute":
        node.attribute.add(name="value", t=tensor)
    elif place == "list in an attribute":
        node.attribute.add(name="value").tensors.append(tensor)
    elif place == "sparse attribute":
        node.attribute.add(name="value").sparse_tensor.indices.CopyFrom(tensor)
    elif place == "sparse list":
        node.attribute.add(name="value").sparse_tensors.add(values=tensor)
    elif place == "training":
        model.training_info.add().initialization.initializer.append(tensor)
    elif place == "function":
        function = model.functions.add(name="f")
        function.node.add(op_type="Constant").attribute.add(name="value", t=tensor)
    elif place == "default of a function":
        model.functions.add(name="f").attribute_proto.add(name="value", t=tensor)
    else:
        inner.initializer.append(tensor)
        if place == "graph in a graph":
            outer = onnx.GraphProto()
            outer.node.add(op_type="Loop").attribute.add(name="body", g=inner)
            inner = outer
        if place == "list of graphs":
            node.attribute.add(name="bodies").graphs.append(inner)
        else:
            node.attribute.add(name="then_branch", g=inner)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    "place",
    ["weight", "sparse weight", "attribute", "list in an attribute", "sparse attribute",
     "sparse list", "training", "function", "default of a function", "subgraph",
     "graph in a graph", "list of graphs"],
)  # fmt: skip
def test_an_external_tensor_is_found_wherever_it_is(place: str) -> None:
    (found,) = external_tensors(hidden(place))
    expected = External("w", "../secret", place == "weight", 10, (2, 3), 0, VALUES.nbytes)
    assert found == expected


def test_a_tensor_in_the_file_is_none() -> None:
    model = onnx.ModelProto(doc_string="its location is here")
    model.graph.initializer.append(onnx.numpy_helper.from_array(VALUES, "location"))
    assert external_tensors(model.SerializeToString()) == []


def test_pieces_of_one_message_count_together() -> None:
    """Protobuf merges a message that comes twice, so a parser sees both."""
    assert len(external_tensors(hidden("weight") + hidden("attribute"))) == 2


@pytest.mark.parametrize("key", ["location", "offset"])
def test_an_entry_that_comes_twice_is_refused(key: str) -> None:
    model = onnx.ModelProto()
    tensor = external_tensor("w", VALUES, "data")
    tensor.external_data.add(key=key, value="0")
    model.graph.initializer.append(tensor)
    with pytest.raises(BundleError, match="damaged"):
        external_tensors(model.SerializeToString())


@given(st.integers(0, 2**32), st.integers(1, 8))
def test_a_damaged_file_is_refused_or_read_and_never_a_crash(seed: int, bytes_changed: int) -> None:
    draws, model = random.Random(seed), bytearray(hidden("graph in a graph"))
    for _ in range(bytes_changed):
        model[draws.randrange(len(model))] = draws.randrange(256)
    for content in (bytes(model), bytes(model[: draws.randrange(len(model))])):
        found, refusal = [], ""
        try:  # any other exception is a fault
            found = external_tensors(content)
        except BundleError as error:
            refusal = str(error)
        assert len(refusal.splitlines()) == (1 if refusal else 0)
        assert all(each.offset_bytes >= 0 for each in found)
