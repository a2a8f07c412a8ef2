"""Turns one graph into one plan: parses it, compiles it, and checks the plan.

Networks are strongly typed: a tensor has the type that the ONNX file gives it. TensorRT 11 has no
other kind of network. So the precision is chosen when the bundle is exported or calibrated.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.engines.base import Signature, Tensors, check_signature, load
from runtime.engines.cuda import Cuda
from runtime.engines.plan_cache import PlanCheck, Recipe
from runtime.engines.precisions import asked_precisions, built_precisions, read_back
from runtime.engines.tensorrt_api import first_error, flag, is_rtx, make_log, title
from runtime.engines.trt import DTYPES, TrtEngine
from v2a.bundle import GraphSpec, TensorSpec, weights_of
from v2a.bundle_files import read_sealed
from v2a.errors import EngineError

# Largest |engine - ONNX Runtime| on random feeds, relative to the output's largest magnitude. This
# only finds kernels that compute something else; calibration judges a precision.
# bf16 has no entry, as ONNX Runtime's CPU has no kernels for it.
TOLERANCES = {"fp32": 1e-3, "fp16": 2e-2, "int8": 1e-1}

# The first compute capability that has a precision. All that TensorRT supports have the others
# (docs.nvidia.com/deeplearning/tensorrt, Support Matrix, Hardware and Precision).
FIRST_SM = {"bf16": 80}

# ONNX operator -> what to do if TensorRT rejects it.
_FIXES = {
    "DFT": "write it as a product with a constant matrix",
    "QuantizeLinear": "quantise to symmetric INT8 (zero point 0)",
    "DequantizeLinear": "quantise to symmetric INT8 (zero point 0)",
}
_FIX = "use operators of TensorRT 10.3 at opset 18"


@dataclass(frozen=True, slots=True)
class Network:
    """A parsed graph, with everything that TensorRT's objects point to.

    If Python collected the builder or the logger, the next call would crash.
    """

    trt: Any
    log: Any
    builder: Any
    definition: Any
    parser: Any
    graph: GraphSpec

    def asked(self) -> dict[str, str]:
        """Return ONNX node -> the precision that its type asks for."""
        return asked_precisions(self.definition)


def parse(trt: Any, graph: GraphSpec, path: Path) -> Network:
    """Parse an ONNX file with NVIDIA's parser.

    Raises EngineError with the node that the parser rejects, and BundleError if the file's inputs
    and outputs differ from the manifest's.
    """
    log = make_log(trt)
    builder = trt.Builder(log)
    typed = flag(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
    definition = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(definition, log)
    network = Network(trt, log, builder, definition, parser, graph)
    if not _parse_sealed(parser, graph, path):
        raise EngineError(_refusal(network))
    inputs = [definition.get_input(index) for index in range(definition.num_inputs)]
    outputs = [definition.get_output(index) for index in range(definition.num_outputs)]
    check_signature(graph, [_signature(t) for t in inputs], [_signature(t) for t in outputs])
    return network


def _parse_sealed(parser: Any, graph: GraphSpec, path: Path) -> bool:
    """Parse the bytes that have the manifest's SHA-256.

    TensorRT 10.3 takes external weights from files only. So they are copied to a private folder.
    """
    model = read_sealed(path, graph)
    if not weights_of(graph, path, model) or graph.data is None:
        return bool(parser.parse(bytes(model)))
    with tempfile.TemporaryDirectory() as folder:
        data = path.with_name(Path(graph.data.file).name)
        (Path(folder) / data.name).write_bytes(read_sealed(data, graph.data))
        return bool(parser.parse(bytes(model), str(Path(folder) / path.name)))


def _signature(tensor: Any) -> Signature:
    return tensor.name, DTYPES.get(tensor.dtype.name, tensor.dtype.name), tuple(tensor.shape)


def _refusal(network: Network) -> str:
    who = f"graph {network.graph.name}: {title(network.trt)}"
    if not network.parser.num_errors:
        return f"{who} can't read it ({first_error(network.log)}); export the bundle again"
    error = network.parser.get_error(0)
    reason = error.desc().splitlines()[0]
    if not error.node_operator():
        return f"{who} can't read it ({reason}); export the bundle again"
    fix = _FIXES.get(error.node_operator(), _FIX)
    return (
        f"{who} does not support node {error.node_name()} ({error.node_operator()}): {reason}; "
        f"{fix}, and export the bundle again"
    )


def compile_plan(
    network: Network, recipe: Recipe, sms: Sequence[int] = (), timings: bytes = b""
) -> tuple[memoryview, bytes]:
    """The plan, and the kernel timings for the next build.

    `sms` are compute capabilities: TensorRT-RTX compiles one plan for all of them, without a GPU.
    Without `sms` the plan is for this machine's GPU. Raises EngineError.
    """
    trt = network.trt
    config = network.builder.create_builder_config()
    config.builder_optimization_level = recipe.optimization_level
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, recipe.workspace_mib << 20)
    # The engine inspector needs this to show precisions.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    # Keep fp32 exact: by default TensorRT rounds the factors of a product to TF32, ten bits.
    config.clear_flag(trt.BuilderFlag.TF32)
    if sms:
        config.num_compute_capabilities = len(sms)
        for index, sm in enumerate(sms):
            config.set_compute_capability(capability(trt, sm), index)
    if not is_rtx(trt):
        _use_timings(config, timings)
    plan = network.builder.build_serialized_network(network.definition, config)
    if plan is None:
        target = " and ".join(f"SM{sm}" for sm in sms) or "this GPU"
        raise EngineError(
            f"graph {network.graph.name}: {title(trt)} can't build it for {target}: "
            f"{first_error(network.log)}; if memory is short, set a smaller --workspace-mib"
        )
    return memoryview(plan), b"" if is_rtx(trt) else bytes(config.get_timing_cache().serialize())


def _use_timings(config: Any, timings: bytes) -> None:
    if not config.set_timing_cache(config.create_timing_cache(timings), False):
        config.set_timing_cache(config.create_timing_cache(b""), False)  # another TensorRT's


def capability(trt: Any, sm: int) -> Any:
    """Return TensorRT-RTX's enum member for a compute capability.

    Raises EngineError if this TensorRT has none.
    """
    if not is_rtx(trt):
        raise EngineError(
            f"{title(trt)} builds only for this machine's GPU; leave --sm out, or use --engine rtx"
        )
    found = flag(trt.ComputeCapability, f"SM{sm}")
    if found is None:
        names = trt.ComputeCapability.__members__
        known = ", ".join(sorted((name[2:] for name in names if name.startswith("SM")), key=int))
        raise EngineError(f"{title(trt)} can't build for SM{sm}; give --sm one of {known}")
    return found


def check_precisions(graphs: Sequence[GraphSpec], sms: Sequence[int]) -> None:
    """Raise EngineError if a GPU of one of `sms` lacks the precision of a graph."""
    for sm in sms:
        lacking = [graph for graph in graphs if FIRST_SM.get(graph.precision, 0) > sm]
        if lacking:
            precision = lacking[0].precision
            raise EngineError(
                f"SM{sm} has no {precision}; graphs in {precision}: {len(lacking)} "
                f"({lacking[0].name}, ...); set their `precision` in the policy's file to fp16 or "
                f"fp32 and export again, or use a GPU of SM{FIRST_SM[precision]} or newer"
            )


def random_feeds(specs: list[TensorSpec]) -> Tensors:
    """Reproducible random inputs in the shape and dtype of each spec.

    Floats are normally distributed, uint8 is uniform, and int64 (an index) is zero.
    """
    draws = np.random.default_rng(0)

    def draw(spec: TensorSpec) -> npt.NDArray[Any]:
        """Return one array in the shape and dtype of `spec`."""
        if spec.dtype == "uint8":
            return draws.integers(0, 256, spec.shape, dtype=np.uint8)
        if spec.dtype == "int64":
            return np.zeros(spec.shape, np.int64)
        return draws.standard_normal(spec.shape).astype(spec.dtype)

    return {spec.name: draw(spec) for spec in specs}


def reference(graph: GraphSpec, path: Path) -> Tensors | None:
    """ONNX Runtime's outputs for the random feeds, in the shapes of the graph's specs.

    None if ONNX Runtime has no CPU kernels for the graph's precision.
    """
    if graph.precision not in TOLERANCES:
        return None
    with load(graph, path, "ort") as engine:
        return engine.run(random_feeds(graph.inputs))


def check_plan(
    graph: GraphSpec,
    plan: bytes,
    expected: Tensors | None,
    asked: Mapping[str, str],
    trt: Any,
    cuda: Cuda,
) -> PlanCheck:
    """Run a plan, and compare its outputs with `expected` and its precisions with `asked`.

    `expected` has the shapes of the graph's outputs; None skips that comparison.
    Raises EngineError if the plan must not be used.
    """
    with TrtEngine(graph, plan, trt, cuda) as engine:
        outputs = engine.run(random_feeds(graph.inputs))
        built = read_back(asked, built_precisions(engine.inspected()))
        captured, gpu_ms = engine.captured, engine.gpu_ms()
    if built.lost:
        raise EngineError(
            f"graph {graph.name}: no layer has the asked precision {', '.join(built.lost)} "
            f"({'; '.join(f'{c.node}: {c.built}' for c in built.changed[:3])}, ...); this GPU or "
            f"{title(trt)} lacks it: use another precision"
        )
    return PlanCheck(
        cuda_graph=captured,
        gpu_ms=gpu_ms,
        error=None if expected is None else _error(graph, outputs, expected),
        kept=built.kept,
        changed=tuple(f"{c.node}: {c.asked} asked, {c.built} built" for c in built.changed),
        unseen=built.unseen,
    )


def _error(graph: GraphSpec, outputs: Tensors, expected: Tensors) -> float:
    """Return the largest relative error. Raises EngineError if it is above the tolerance."""
    errors = {name: relative_error(outputs[name], expected[name]) for name in expected}
    worst = max(errors, key=lambda name: np.nan_to_num(errors[name], nan=np.inf))
    limit = TOLERANCES[graph.precision]
    if not errors[worst] <= limit:
        raise EngineError(
            f"graph {graph.name}: {worst} differs from ONNX Runtime by {errors[worst]:.2g} of its "
            f"largest magnitude, limit {limit:g} for {graph.precision}; build with another "
            "--optimization-level, or use another precision"
        )
    return errors[worst]


def relative_error(found: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> float:
    """max |found - wanted| / max |wanted|, of arrays of one shape; NaN if either is not finite."""
    a, b = found.astype(np.float64), wanted.astype(np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("nan")
    return float(np.max(np.abs(a - b)) / np.max(np.abs(b), initial=np.finfo(np.float32).tiny))


def count(asked: Mapping[str, str]) -> dict[str, int]:
    """Precision -> number of layers."""
    return dict(Counter(asked.values()))
