"""ONNX graphs from PyTorch stages: static shapes, opset 18, everything constant folded.

Weights stay where they are, mapped into memory from their checkpoint, until each is written: of a
policy that is larger than the memory, only its largest weight has to fit.
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
"""In TensorRT 10's parser (opset 9 to 20) and 11's; 23's Attention op fails in fp32 builds."""

_FOLD_LIMIT = 1 << 26  # elements
INLINE_LIMIT_BYTES = 1 << 26
"""Largest weights inside a graph's file. Protobuf ends at 2 GiB; well before that, a file that is
built in memory as a whole costs more than it is worth."""
_SCOPES = "pkg.torch.onnx.name_scopes"  # a list: modules from outside in, then the operator
_SMALL_BYTES = 1 << 10  # axes and shapes stay in the graph, where shape inference reads them

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
"""All but the one that compares every Slice with every other: of a thousand in an unrolled solver,
a million pairs, and no engine needs two Slices as one Split."""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Swallow what torch's exporter prints, warns and logs on success; errors still raise."""
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
    """Trace `graph` on example `tensors` (by key) into an ONNX model; `save` checks and writes it.

    What depends on weights alone (time embeddings of fixed steps, t = 0 modulation, rotary
    tables) is folded into initializers. Raises BundleError naming an operator TensorRT has not.
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
            optimize=False,  # `_fold` does it, with weights counted as constants
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
    """Linear layers read their weight transposed: made when it is written, and once, though every
    solver step asks for it."""
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
    """The steps of `onnxscript.optimizer.optimize`, with `_RULES`."""
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
    """Drop the exporter's notes (stack traces with this machine's paths): as big as the weights.
    The module of a node stays, in its name: engines report the time of layers by it."""
    del model.graph.value_info[:]
    del model.metadata_props[:], model.graph.metadata_props[:]
    for node in model.graph.node:
        node.name = f"{_module_of(node)}/{node.name.removeprefix('node_')}"
        node.ClearField("doc_string")
        del node.metadata_props[:]


def _module_of(node: onnx.NodeProto) -> str:
    """`policy.core.blocks.0.attn.qkv`, the innermost module of the exporter's note on it; empty for
    what belongs to none, such as the solver's own arithmetic."""
    noted = {prop.key: prop.value for prop in node.metadata_props}
    scopes: list[str] = ast.literal_eval(noted.get(_SCOPES, "[]"))
    return scopes[-2] if len(scopes) > 1 else ""


def save(model: ir.Model, path: Path, inline_limit_bytes: int = INLINE_LIMIT_BYTES) -> Path | None:
    """Check the model and write it; a half-written graph never bears its final name.

    Weights of more than `inline_limit_bytes` go one by one into a second file beside it, of which
    the path is returned.
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
        if isinstance(cause, BundleError):  # a weight that could not be made
            raise cause from None
        raise
