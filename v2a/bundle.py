"""The bundle: the one folder that passes from the training side to the robot.

manifest.json       the contents, their meaning, and how they were made
graphs/*.onnx       one graph per stage
embeddings/*.npy    one embedding per instruction, float32 [1, L, D]
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import (
    AfterValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from v2a.bundle_files import Hashed, check_sha256, read_sealed, sha256_of, unlisted
from v2a.config import Strict, describe_fault, suggest
from v2a.errors import BundleError
from v2a.names import AGES, MACHINE_STAGES, Rate, stages_of
from v2a.onnx_file import External, external_tensors

SCHEMA_VERSION = 2
MANIFEST = "manifest.json"

_EXPORT_AGAIN = "export the bundle again"


def _inside(file: str) -> str:
    if Path(file).is_absolute() or ".." in Path(file).parts:
        raise ValueError("must be a path inside the bundle")
    return file


BundleFile = Annotated[str, AfterValidator(_inside)]


class FileRef(Strict):
    """A file of the bundle and the SHA-256 it had when the bundle was sealed."""

    file: BundleFile
    sha256: str = ""  # filled by `seal`


RefT = TypeVar("RefT", bound=FileRef)


class TensorSpec(Strict):
    """One input or output of a graph. Shapes are static and the batch size is 1."""

    name: str
    dtype: Literal["float32", "float16", "uint8", "int64"]
    shape: list[PositiveInt]
    meaning: str
    unit: str | None = None


class GraphSpec(FileRef):
    """One ONNX graph and the rate at which its inputs change."""

    name: str
    rate: Rate
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    precision: Literal["fp32", "fp16", "bf16", "int8"] = "fp32"
    data: FileRef | None = None  # a second file of weights: one ONNX file holds at most 2 GB


class JointSpec(Strict):
    """One joint of the action space. Limits are in `unit`, the velocity limit in `unit`/s.

    Unit "1" marks a gripper: 0 is closed, 1 is open.
    """

    name: str
    unit: Literal["rad", "1"] = "rad"
    lower: float
    upper: float
    velocity_limit: PositiveFloat

    @model_validator(mode="after")
    def _ordered(self) -> JointSpec:
        if self.lower >= self.upper:
            raise ValueError(f"lower {self.lower} must be below upper {self.upper}")
        return self


class ActionSpace(Strict):
    """The joints that a chunk moves, and the times of its rows.

    A chunk is float32 [chunk_length, len(joints)]. Row k is the target for t + k * step_s.
    """

    joints: list[JointSpec] = Field(min_length=1)
    chunk_length: int = Field(ge=2)  # motion needs two rows
    step_s: PositiveFloat


class CameraSpec(Strict):
    """The images that the policy expects: their size, their number and the interval between."""

    name: str
    width: PositiveInt
    height: PositiveInt
    colour: Literal["rgb"] = "rgb"
    history: PositiveInt
    interval_s: PositiveFloat


class Manifest(Strict):
    """The content of `manifest.json`. An unknown or missing key is a fault."""

    schema_version: int = SCHEMA_VERSION
    policy: str
    description: str
    graphs: list[GraphSpec]
    action_space: ActionSpace
    cameras: list[CameraSpec] = Field(min_length=1)
    instructions: dict[str, FileRef]
    video_texts: dict[str, FileRef] = Field(default_factory=dict)
    """Embeddings of the same instructions for a video model with its own text encoder."""
    condition_age_max_s: PositiveFloat
    provenance: dict[str, Any]

    @model_validator(mode="after")
    def _unique_names(self) -> Manifest:
        for kind in ("graphs", "cameras"):
            names = [spec.name for spec in getattr(self, kind)]
            if len(set(names)) < len(names):
                raise ValueError(f"{kind} with the same name: {', '.join(sorted(names))}")
        taken = {*MACHINE_STAGES, *AGES} & {graph.name for graph in self.graphs}
        if taken:
            what = "a stage or an age of every run has this name; rename the graph"
            raise ValueError(f"graphs named {', '.join(sorted(taken))}: {what}")
        return self

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of a run of this bundle, in the order of their index in a span."""
        return stages_of(graph.name for graph in self.graphs)

    def files(self) -> Iterator[FileRef]:
        """Yield every file that the manifest names."""
        for graph in self.graphs:
            yield from (graph, graph.data) if graph.data else (graph,)
        yield from self.instructions.values()
        yield from self.video_texts.values()


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle after `load_bundle` has verified it."""

    path: Path
    manifest: Manifest

    def graph(self, name: str) -> GraphSpec:
        """Return the spec of a graph. Raises BundleError for an unknown name."""
        graphs = {graph.name: graph for graph in self.manifest.graphs}
        _require(name, graphs, f"{self.path}: no graph {name!r}")
        return graphs[name]

    def graph_path(self, name: str) -> Path:
        """Return the path of a graph's ONNX file. Raises BundleError for an unknown name."""
        return self.path / self.graph(name).file

    def instruction_tokens(self, text: str) -> npt.NDArray[np.float32]:
        """Return the embedding of an instruction, float32 [1, L, D].

        Raises BundleError if the instruction is unknown or its file holds another shape.
        """
        known = self.manifest.instructions
        _require(text, known, f"{self.path}: no embedding for the instruction {text!r}")
        file = self.path / known[text].file
        tokens = _array(file, read_sealed(file, known[text]))
        if tokens.dtype != np.float32 or tokens.ndim != 3 or tokens.shape[0] != 1:
            raise BundleError(
                f"{file}: {tokens.dtype} {list(tokens.shape)}, expected float32 [1, L, D]; "
                f"{_EXPORT_AGAIN}"
            )
        return tokens


def load_bundle(path: Path, hashed: Hashed = lambda size: None) -> Bundle:
    """Read and verify a bundle: schema version, manifest, and the SHA-256 of every file.

    The folder holds the files of the manifest and no other, and no link. A graph names no file but
    its own data.
    A progress bar can pass `hashed`: it is called with the size of each block in bytes.
    Raises BundleError with one line per fault; each line says what to do.
    """
    manifest = _read_manifest(path / MANIFEST)
    if faults := list(_file_faults(path, manifest, hashed)):
        raise BundleError("\n".join(faults))
    return Bundle(path, manifest)


def seal(path: Path, manifest: Manifest) -> None:
    """Fill in the SHA-256 of every file and write `manifest.json` atomically.

    Raises BundleError if a file is missing.
    """
    sealed = manifest.model_copy(
        update={
            "graphs": [_hashed_graph(path, graph) for graph in manifest.graphs],
            "instructions": _hashed_all(path, manifest.instructions),
            "video_texts": _hashed_all(path, manifest.video_texts),
        }
    )
    draft = path / f"{MANIFEST}.part"
    with draft.open("w", encoding="utf-8") as file:
        file.write(sealed.model_dump_json(indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path / MANIFEST)


def _require(name: str, known: Iterable[str], fault: str) -> None:
    if name not in known:
        raise BundleError(f"{fault}; {suggest(name, sorted(known))}")


def _array(file: Path, content: bytearray) -> npt.NDArray[np.float32]:
    try:
        array: npt.NDArray[np.float32] = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise BundleError(f"{file}: not a file of numpy.save ({error}); {_EXPORT_AGAIN}") from None
    return array


def _hashed(path: Path, ref: RefT) -> RefT:
    return ref.model_copy(update={"sha256": sha256_of(path / ref.file)})


def _hashed_all(path: Path, refs: dict[str, FileRef]) -> dict[str, FileRef]:
    return {text: _hashed(path, ref) for text, ref in refs.items()}


def _hashed_graph(path: Path, graph: GraphSpec) -> GraphSpec:
    data = None if graph.data is None else _hashed(path, graph.data)
    return _hashed(path, graph).model_copy(update={"data": data})


def _read_manifest(file: Path) -> Manifest:
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(f"{file}: no such file; give the folder of a bundle") from None
    except OSError as error:
        raise BundleError(f"{file}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{file}: is not JSON ({error}); {_EXPORT_AGAIN}") from None
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{file}: schema version {version}, this v2a reads {SCHEMA_VERSION}; "
            f"{_EXPORT_AGAIN} with this v2a, or install the v2a that wrote it"
        )
    try:
        return Manifest.model_validate(raw)
    except ValidationError as error:
        faults = [describe_fault(details, Manifest) for details in error.errors(include_url=False)]
        raise BundleError("\n".join(f"{file}: {f}; {_EXPORT_AGAIN}" for f in faults)) from None


def _file_faults(path: Path, manifest: Manifest, hashed: Hashed) -> Iterator[str]:
    for ref in manifest.files():
        try:
            if isinstance(ref, GraphSpec) and ref.sha256:
                weights_of(ref, path / ref.file, read_sealed(path / ref.file, ref, hashed))
            else:
                check_sha256(path / ref.file, sha256_of(path / ref.file, hashed), ref)
        except BundleError as fault:
            yield str(fault)
    yield from unlisted(path, {MANIFEST, *(ref.file for ref in manifest.files())})


def weights_of(graph: GraphSpec, file: Path, model: bytes | bytearray) -> list[External]:
    """Return the weights that `model`, the content of a graph's `file`, keeps in `graph.data`.

    Raises BundleError if it names any other file, as an engine would open that.
    """
    try:
        found = external_tensors(model)
    except BundleError as fault:
        raise BundleError(f"{file}: {fault}") from None
    data = Path(graph.data.file) if graph.data else None
    beside = data.name if data and data.parent == Path(graph.file).parent else ""
    for tensor in found:
        if not tensor.is_weight or tensor.location != beside or not beside:
            raise BundleError(
                f"{file}: tensor {tensor.tensor!r} is in the file {tensor.location!r}, which the "
                f"manifest does not name as this graph's data; {_EXPORT_AGAIN}"
            )
    return found
