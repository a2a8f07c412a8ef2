"""Writes a sealed bundle of a trained policy: graphs, embeddings, parity and manifest."""

from __future__ import annotations

import fcntl
import glob
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from export.pipeline.fp16_range import FP16_MAX, largest_narrow
from export.pipeline.onnx_from_torch import onnx_from_torch, save
from export.pipeline.parity import UNCHECKED, chain_error, graph_error
from export.pipeline.split import Graph, Split, chain
from runtime.engines import load
from v2a.bundle import (
    MANIFEST,
    FileRef,
    GraphSpec,
    Manifest,
    seal,
)
from v2a.errors import BundleError

CHAIN = "whole_chain"
_RECORDED = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Source:
    """The content of a bundle. `manifest` is a draft without graphs, texts and parity.

    `instructions` maps each text to its embedding, float32 [tokens, width]. `video_texts` does so
    for a video model with its own text encoder.
    """

    split: Split
    manifest: Manifest
    instructions: Mapping[str, Tensor]
    video_texts: Mapping[str, Tensor] = field(default_factory=dict)
    check_unchanged: Callable[[], None] = lambda: None
    """Raises if a checkpoint, which stays mapped, was rewritten since it was opened."""


def bundle_from_policy(source: Source, out: Path, report: Report, check: bool = True) -> Manifest:
    """Export every graph, check its parity and write a sealed bundle to `out`.

    `report` is called with one line per graph. A finished bundle replaces `out` as a whole. The
    parity check loads every graph and runs the policy, so both must fit into memory.
    Raises BundleError if a graph differs from PyTorch, if `out` exists and is no bundle, if another
    export writes there, or if there is no room.
    """
    if out.is_symlink():
        raise BundleError(f"{out}: is a link; give the folder that it leads to")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with _alone(out):
            _refuse_foreign(out)
            return _replace(out, source, report, check)
    except OSError as error:
        raise BundleError(
            f"{out}: the bundle cannot be written: {error.strerror or error}; make room or choose "
            "another folder"
        ) from error


def _replace(out: Path, source: Source, report: Report, check: bool) -> Manifest:
    """Write the bundle to a draft of this process, and put it in the place of `out`."""
    for left in out.parent.glob(f".{glob.escape(out.name)}.*.part"):  # by an export that was killed
        if not (left / "old").exists():
            shutil.rmtree(left)
    with TemporaryDirectory(prefix=f".{out.name}.", suffix=".part", dir=out.parent) as folder:
        draft = Path(folder) / "bundle"
        (draft / "graphs").mkdir(parents=True)
        manifest = _write(source, draft, report, check)
        source.check_unchanged()
        if out.exists():
            out.rename(Path(folder) / "old")
        draft.rename(out)
    return manifest


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold a lock beside `out`. Raises BundleError if another export holds it.

    The file stays: whoever deleted it could delete the lock of a third process.
    """
    with (out.parent / f".{out.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BundleError(
                f"{out}: another export is writing there; wait for it, or choose another folder"
            ) from None
        yield


def _refuse_foreign(out: Path) -> None:
    if out.exists() and not (out / MANIFEST).is_file():
        raise BundleError(f"{out}: exists and is not a bundle; remove it or choose another folder")


def _write(source: Source, folder: Path, report: Report, check: bool) -> Manifest:
    split = source.split
    tensors = chain(split.policy, split.inputs, split.graphs) if check else _blank(split)
    files: dict[str, GraphSpec] = {}
    parity: dict[str, float] = {}
    largest: dict[str, float] = {}
    for graph in split.graphs:
        if graph.name in files:  # a second run of the same graph, on other tensors
            continue
        spec = files[graph.name] = _export(split, graph, folder, tensors)
        if check and spec.precision != UNCHECKED:
            with load(spec, folder / spec.file) as engine:
                parity[graph.name] = graph_error(split, graph, engine, tensors)
        if check and spec.precision == "fp16":
            largest[graph.name] = largest_narrow(split, graph, tensors).value
        line = _line(graph.name, _size_bytes(folder, spec), parity.get(graph.name))
        report(line + _range(largest.get(graph.name)))
    if parity.keys() == files.keys():
        parity[CHAIN] = chain_error(split, files, folder)
    size_bytes = sum(_size_bytes(folder, spec) for spec in files.values())
    report(_line(CHAIN, size_bytes, parity.get(CHAIN)))
    (folder / "embeddings").mkdir()
    manifest = source.manifest.model_copy(
        update={
            "graphs": list(files.values()),
            "instructions": _write_texts(source.instructions, folder, "embeddings/{}.npy"),
            "video_texts": _write_texts(source.video_texts, folder, "embeddings/video_{}.npy"),
            "provenance": source.manifest.provenance
            | {"parity": parity, "fp16_largest": largest}
            | _versions(),
        }
    )
    seal(folder, manifest)
    return manifest


def _blank(split: Split) -> dict[str, Tensor]:
    """Return uninitialised tensors, which take no memory: tracing needs types and shapes only."""
    types = {"uint8": torch.uint8, "int64": torch.int64}
    return {
        key: torch.empty(spec.shape, dtype=types.get(spec.dtype, torch.float32))
        for key, spec in split.specs.items()
    }


def _line(name: str, size_bytes: int, error: float | None) -> str:
    found = "not checked" if error is None else f"{error:.1e}"
    return f"{name:<17} {size_bytes / 1024:8.0f} KiB  max |onnx - torch| {found}"


def _range(largest: float | None) -> str:
    return "" if largest is None else f", fp16 reaches {largest:.3g} of {FP16_MAX:.0f}"


def _size_bytes(folder: Path, spec: GraphSpec) -> int:
    files = (spec, spec.data) if spec.data else (spec,)
    return sum((folder / ref.file).stat().st_size for ref in files)


def _export(split: Split, graph: Graph, folder: Path, tensors: dict[str, Tensor]) -> GraphSpec:
    precision = split.precision[graph.name]
    file = f"graphs/{graph.name}.onnx"
    model = onnx_from_torch(split.policy, graph, split.specs, tensors, precision)
    data = save(model, folder / file)
    ref = None if data is None else FileRef(file=f"graphs/{data.name}")
    return graph.spec(split.specs, file, precision=precision, data=ref)


def _write_texts(texts: Mapping[str, Tensor], folder: Path, pattern: str) -> dict[str, FileRef]:
    files = {}
    for index, (text, tokens) in enumerate(texts.items()):
        files[text] = FileRef(file=pattern.format(index))
        np.save(folder / files[text].file, tokens[None].numpy())
    return files


def _versions() -> dict[str, dict[str, str]]:
    recorded = {name: version(name) for name in _RECORDED}
    return {"versions": recorded | {"python": platform.python_version()}}
