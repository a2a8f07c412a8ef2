"""Runs graphs with ONNX Runtime on the CPU."""

from __future__ import annotations

import json
import math
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from runtime.engines.base import Engine, LayerTime, Signature, Tensors, check_signature
from v2a.bundle import GraphSpec, weights_of
from v2a.bundle_files import read_sealed
from v2a.errors import BundleError, EngineError
from v2a.onnx_file import External

# ONNX Runtime's name of an element type -> the manifest's.
DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(int64)": "int64",
}


# ONNX's number of an element type -> numpy's (onnx/onnx.proto, TensorProto.DataType).
_ELEMENTS = {
    1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float16,
    11: np.float64,
}  # fmt: skip


class OrtEngine(Engine):
    """One graph in one ONNX Runtime session, by default with one thread.

    The workers run in parallel, so a session needs no threads of its own. Idle threads do not
    spin, as spinning would take the core from the control loop.
    """

    def __init__(self, graph: GraphSpec, path: Path, threads: int = 1) -> None:
        self._graph = graph
        self._outputs = [spec.name for spec in graph.outputs]
        self._path, self._threads = path, threads
        self._session: Any = self._load(_options(threads))
        check_signature(
            graph, _signatures(self._session.get_inputs()), _signatures(self._session.get_outputs())
        )

    def _load(self, options: Any) -> Any:
        """Make a session of the bytes that have the manifest's SHA-256.

        ONNX Runtime gets no path, so it opens no file. It shares the memory of external weights.
        """
        graph = self._graph
        model = read_sealed(self._path, graph)
        self._weights = _weights(graph, self._path, model)
        if self._weights:
            options.add_external_initializers(list(self._weights), list(self._weights.values()))
        try:
            return ort.InferenceSession(bytes(model), options, providers=["CPUExecutionProvider"])
        except Exception as fault:  # ORT raises a dozen unrelated types, all below Exception
            raise EngineError(
                f"graph {graph.name}: ONNX Runtime {ort.__version__} can't load {self._path}: "
                f"{_first_line(fault)}"
            ) from fault

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Tensors:
        """See `Engine.run`. Raises EngineError if a feed has another shape or dtype."""
        # An IOBinding was no faster (1 % of 0.82 ms, within noise), and it would overwrite arrays
        # that a message still holds.
        try:
            arrays = self._session.run(self._outputs, dict(feeds))
        except Exception as fault:  # see __init__
            raise EngineError(f"graph {self._graph.name}: {_first_line(fault)}") from fault
        return dict(zip(self._outputs, arrays, strict=True))

    def layer_times(self, feeds: Mapping[str, npt.NDArray[Any]], runs: int) -> list[LayerTime]:
        """See `TimesLayers`; feeds as for `run`, in their specs' shapes.

        A second session does the timing, as profiling can't be switched off again.
        """
        with tempfile.TemporaryDirectory() as folder:
            options = _options(self._threads)
            options.enable_profiling = True
            options.profile_file_prefix = f"{folder}/layers"
            session = self._load(options)
            for _ in range(1 + runs):
                session.run(self._outputs, dict(feeds))
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        return _layers(events)

    def close(self) -> None:
        """Free the session's memory. The engine can't run afterwards."""
        self._session = None
        self._weights = {}


def _weights(graph: GraphSpec, path: Path, model: bytearray) -> dict[str, Any]:
    """Return name -> `OrtValue` of each weight in the graph's data file, in one copy in memory."""
    found = weights_of(graph, path, model)
    if not found or graph.data is None:
        return {}
    file = path.with_name(Path(graph.data.file).name)
    content = read_sealed(file, graph.data)
    return {weight.tensor: _value(weight, content, file) for weight in found}


def _value(weight: External, content: bytearray, file: Path) -> Any:
    dtype = _ELEMENTS.get(weight.dtype)
    size = math.prod(weight.shape)
    nbytes = size * np.dtype(dtype).itemsize
    inside = 0 <= weight.offset_bytes <= len(content) - nbytes
    if dtype is None or not inside or weight.length_bytes not in (None, nbytes):
        raise BundleError(
            f"{file}: weight {weight.tensor} does not fit into the file; export the bundle again"
        )
    array: npt.NDArray[Any] = np.frombuffer(content, dtype, size, weight.offset_bytes).reshape(
        weight.shape
    )
    return ort.OrtValue.ortvalue_from_numpy(array)


def _options(threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Its other format is none of a bundle's, and `weights_of` does not read it.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.log_severity_level = 3  # errors only: a robot's stderr is for its operator
    return options


def _layers(events: list[dict[str, Any]]) -> list[LayerTime]:
    """Return each node's mean time without its first run, which allocates memory."""
    taken: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event["cat"] == "Node":
            name = event["name"].removesuffix("_kernel_time")
            taken[name, event["args"]["op_name"]].append(event["dur"] / 1e3)
    return [LayerTime(*key, sum(ms[1:]) / len(ms[1:])) for key, ms in taken.items()]


def _signatures(nodes: Any) -> list[Signature]:
    return [
        (
            node.name,
            DTYPES.get(node.type, node.type),
            # A dynamic axis is a name or None; -1 matches no shape of a manifest.
            tuple(size if isinstance(size, int) else -1 for size in node.shape),
        )
        for node in nodes
    ]


def _first_line(fault: Exception) -> str:
    return (str(fault).splitlines() or [type(fault).__name__])[0]
