"""Runs graphs with ONNX Runtime on the CPU."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnxruntime as ort

from runtime.engines.base import Engine, LayerTime, Signature, Tensors, check_signature
from v2a.bundle import GraphSpec
from v2a.errors import EngineError

# ONNX Runtime's name of an element type -> the manifest's.
DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(int64)": "int64",
}


class OrtEngine(Engine):
    """One graph in one ONNX Runtime session, by default with one thread.

    The workers run in parallel, so a session needs no threads of its own. Idle threads do not
    spin, as spinning would take the core from the control loop.
    """

    def __init__(self, graph: GraphSpec, path: Path, threads: int = 1) -> None:
        self._graph = graph
        self._outputs = [spec.name for spec in graph.outputs]
        self._path, self._threads = path, threads
        try:
            self._session: Any = ort.InferenceSession(
                str(path), _options(threads), providers=["CPUExecutionProvider"]
            )
        except Exception as fault:  # ORT raises a dozen unrelated types, all below Exception
            raise EngineError(
                f"graph {graph.name}: ONNX Runtime {ort.__version__} can't load {path}: "
                f"{_first_line(fault)}"
            ) from fault
        check_signature(
            graph, _signatures(self._session.get_inputs()), _signatures(self._session.get_outputs())
        )

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
            session: Any = ort.InferenceSession(
                str(self._path), options, providers=["CPUExecutionProvider"]
            )
            for _ in range(1 + runs):
                session.run(self._outputs, dict(feeds))
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        return _layers(events)

    def close(self) -> None:
        """Free the session's memory. The engine can't run afterwards."""
        self._session = None


def _options(threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
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
