"""Exports PyTorch stages to ONNX graphs with static shapes, opset 18 and folded constants.

Weights stay memory-mapped in their checkpoint until each is written. So only the largest weight,
not the whole policy, must fit into memory.
"""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxscript.optimizer
import torch
from onnx_ir.passes import common
from onnxscript import rewriter
from onnxscript.rewriter.rules.common import slice_split_rule
from torch import Tensor, nn

from export.pipeline.config import FULL, Precision
from export.pipeline.precision import narrow
from export.pipeline.split import Graph, Stage
from v2a.bundle import TensorSpec
from v2a.errors import BundleError

OPSET = 18
"""TensorRT 10 parses opset 9 to 20. Opset 23's Attention fails in fp32 builds of TensorRT 11."""

_FOLD_LIMIT = 1 << 26  # elements
INLINE_LIMIT_BYTES = 1 << 26
"""Most bytes of weights inside a graph's file. Protobuf allows 2 GiB, but a file of that size would
have to be built in memory."""
_SCOPES = "pkg.torch.onnx.name_scopes"  # a list: modules from outside in, then the operator
_SMALL_BYTES = 1 << 10  # smaller tensors (axes, shapes) stay in the graph for shape inference

NOT_IN_TENSORRT = frozenset(
    {"AffineGrid", "Bernoulli", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr",
     "BitwiseXor", "BlackmanWindow", "CenterCropPad", "Col2Im", "Compress", "ConcatFromSequence",
     "ConvInteger", "DFT", "DeformConv", "Det", "DynamicQuantizeLinear", "HammingWindow",
     "HannWindow", "ImageDecoder", "MatMulInteger", "MaxRoiPool", "MaxUnpool", "MelWeightMatrix",
     "Multinomial", "NegativeLogLikelihoodLoss", "Optional", "OptionalGetElement",
     "OptionalHasElement", "QLinearConv", "QLinearMatMul", "RegexFullMatch", "STFT",
     "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert",
     "SequenceLength", "SequenceMap", "SoftmaxCrossEntropyLoss", "SplitToSequence",
     "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer", "Unique"}
)  # fmt: skip
"""Standard operators that TensorRT 10's parser refuses (onnx-tensorrt, docs/operators.md)."""

_RULES = [rule for rule in rewriter._DEFAULT_REWRITE_RULES if rule is not slice_split_rule]
"""All rules but one, which compares each Slice with each other. An unrolled solver has a thousand
of them, so a million pairs, and no engine needs two Slices merged into one Split."""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the prints, warnings and logs of torch's exporter. Errors still raise."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def onnx_from_torch(
    policy: nn.Module,
    graph: Graph,
    specs: Mapping[str, TensorSpec],
    tensors: Mapping[str, Tensor],
    precision: Precision = FULL,
) -> ir.Model:
    """Trace `graph` into an ONNX model; `save` checks and writes it.

    `tensors` are examples for the inputs, key -> tensor in the shape of its spec. Values that
    depend on weights alone (time embeddings, modulation at t = 0, rotary tables) become constants.
    Raises BundleError if the graph uses an operator that TensorRT lacks.
    """
    own = graph.specs(specs)
    with _quiet():
        program = torch.onnx.export(
            Stage(policy, graph).eval(),
            tuple(tensors[key] for key in graph.inputs),
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            input_names=[own[key].name for key in graph.inputs],
            output_names=[own[key].name for key in graph.outputs],
            optimize=False,  # `_fold` does it and treats weights as constants
            verbose=False,
        )
        assert program is not None  # it is None only for dynamo=False
        model = program.model
        common.InlinePass()(model)
        _transpose_weights(model)
        _fold(model)
    foreign = {node.op_type for node in model.graph.all_nodes()} & NOT_IN_TENSORRT
    if foreign:
        raise BundleError(
            f"graph {graph.name}: uses {', '.join(sorted(foreign))}, which TensorRT can't run; "
            "rewrite the stage without it"
        )
    if precision != FULL:
        narrow(model, precision, {spec.name: spec.dtype for spec in own.values()})
        common.RemoveUnusedNodesPass()(model)
    return model


def _transpose_weights(model: ir.Model) -> None:
    """Replace the Transpose of each linear layer's weight by a transposed weight.

    It is made once, on writing, and shared by all solver steps.
    """
    done: dict[tuple[ir.Value, tuple[int, ...]], ir.Value] = {}
    for node in list(model.graph.all_nodes()):
        weight = node.inputs[0] if node.op_type == "Transpose" else None
        if weight is None or not weight.is_initializer() or weight.const_value is None:
            continue
        order = tuple(node.attributes["perm"].as_ints())
        if (weight, order) not in done:
            done[weight, order] = _transposed(weight, weight.const_value, order)
            model.graph.register_initializer(done[weight, order])
        node.outputs[0].replace_all_uses_with(done[weight, order])
        assert node.graph is not None
        node.graph.remove(node, safe=True)


def _transposed(weight: ir.Value, tensor: ir.TensorProtocol, order: tuple[int, ...]) -> ir.Value:
    def make() -> ir.TensorProtocol:
        return ir.Tensor(np.ascontiguousarray(tensor.numpy().transpose(order)), name=name)

    name = f"{weight.name}_transposed"
    sizes = tensor.shape.numpy()
    shape = ir.Shape([sizes[axis] for axis in order])
    lazy = ir.LazyTensor(make, tensor.dtype, shape, name=name)
    return ir.Value(name=name, shape=shape, type=ir.TensorType(tensor.dtype), const_value=lazy)


def _fold(model: ir.Model) -> None:
    """Run the steps of `onnxscript.optimizer.optimize` with `_RULES`."""
    fold = partial(
        onnxscript.optimizer.fold_constants_ir,
        onnx_shape_inference=True,
        input_size_limit=_FOLD_LIMIT,
        output_size_limit=_FOLD_LIMIT,
    )
    for _ in range(2):
        fold(model)
        rewriter.rewrite(model, pattern_rewrite_rules=_RULES)
    for step in (
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    ):
        step(model)


def _strip(model: onnx.ModelProto) -> None:
    """Drop the exporter's stack traces, which are as big as the weights and hold local paths.

    A node keeps its module in its name, so that engines report times by module.
    """
    del model.graph.value_info[:]
    del model.metadata_props[:], model.graph.metadata_props[:]
    for node in model.graph.node:
        node.name = f"{_module_of(node)}/{node.name.removeprefix('node_')}"
        node.ClearField("doc_string")
        del node.metadata_props[:]


def _module_of(node: onnx.NodeProto) -> str:
    """Return a node's innermost module, such as `policy.core.blocks.0.attn.qkv`.

    It is empty for nodes outside any module, such as the solver's arithmetic.
    """
    noted = {prop.key: prop.value for prop in node.metadata_props}
    scopes: list[str] = ast.literal_eval(noted.get(_SCOPES, "[]"))
    return scopes[-2] if len(scopes) > 1 else ""


def save(model: ir.Model, path: Path, inline_limit_bytes: int = INLINE_LIMIT_BYTES) -> Path | None:
    """Check the model and write it atomically.

    If the weights exceed `inline_limit_bytes`, they are written one by one to a second file beside
    it. Returns that file's path, or None.
    """
    weights = [value.const_value for value in model.graph.initializers.values()]
    data = None
    if sum(weight.nbytes for weight in weights if weight is not None) > inline_limit_bytes:
        data = path.with_name(path.name + ".data")
        ir.external_data.unload_from_model(
            model, path.parent, data.name, size_threshold_bytes=_SMALL_BYTES
        )
    proto = _serialised(model)
    _strip(proto)
    scratch = path.with_suffix(".part")
    onnx.save(proto, os.fspath(scratch))
    onnx.checker.check_model(os.fspath(scratch), full_check=True)
    scratch.replace(path)
    return data


def _serialised(model: ir.Model) -> onnx.ModelProto:
    try:
        return ir.to_proto(model)
    except ir.serde.SerdeError as error:
        cause: BaseException | None = error
        while isinstance(cause, ir.serde.SerdeError):
            cause = cause.__cause__
        if isinstance(cause, BundleError):  # from the conversion of a weight
            raise cause from None
        raise
