"""ONNX graphs from PyTorch stages: static shapes, opset 18, everything constant folded."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir
import onnxscript.optimizer
import torch
from onnx_ir.passes.common import DeduplicateInitializersPass
from torch import Tensor, nn

from export.rates import Graph, Stage
from v2a.bundle import TensorSpec
from v2a.errors import BundleError

OPSET = 18
"""In TensorRT 10's parser (opset 9 to 20) and 11's; 23's Attention op fails in fp32 builds."""

_FOLD_LIMIT_BYTES = 1 << 26

NOT_IN_TENSORRT = frozenset({"DFT", "STFT", "Col2Im", "ConvInteger", "MatMulInteger", "Unique"})


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
    policy: nn.Module, graph: Graph, specs: dict[str, TensorSpec], tensors: dict[str, Tensor]
) -> onnx.ModelProto:
    """Trace `graph` on example `tensors` (by key) into a checked ONNX model.

    What depends on weights alone (time embeddings of fixed steps, t = 0 modulation, rotary
    tables) is folded into initializers. Raises BundleError naming an operator TensorRT has not.
    """
    with _quiet():
        program = torch.onnx.export(
            Stage(policy, graph).eval(),
            tuple(tensors[key] for key in graph.inputs),
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            input_names=[specs[key].name for key in graph.inputs],
            output_names=[specs[key].name for key in graph.outputs],
            optimize=False,  # `_fold` does it, with weights counted as constants
            verbose=False,
        )
        assert program is not None  # it is None only for dynamo=False
        _fold(program.model)
    model = program.model_proto
    _strip(model)
    onnx.checker.check_model(model, full_check=True)
    foreign = {node.op_type for node in model.graph.node} & NOT_IN_TENSORRT
    if foreign:
        raise BundleError(
            f"graph {graph.name}: uses {', '.join(sorted(foreign))}, which TensorRT can't run; "
            "rewrite the stage without it"
        )
    return model


def _fold(model: onnx_ir.Model) -> None:
    limit = _FOLD_LIMIT_BYTES
    onnxscript.optimizer.optimize(model, input_size_limit=limit, output_size_limit=limit)
    # Folding wrote a transposed copy of a weight for each solver step that uses it.
    DeduplicateInitializersPass(size_limit=limit)(model)


def _strip(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes (stack traces with this machine's paths): as big as the weights."""
    del model.graph.value_info[:]
    del model.metadata_props[:], model.graph.metadata_props[:]
    for node in model.graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write atomically: a half-written graph never bears its final name."""
    scratch = path.with_suffix(".part")
    onnx.save(model, os.fspath(scratch))
    scratch.replace(path)
