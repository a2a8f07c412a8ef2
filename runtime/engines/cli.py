"""`v2a build` turns a bundle's graphs into TensorRT plans, on the machine that will run them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click

from runtime.engines.build import (
    Network,
    capability,
    check_plan,
    check_precisions,
    compile_plan,
    count,
    parse,
    reference,
)
from runtime.engines.cuda import Cuda, open_cuda
from runtime.engines.plan_cache import (
    Machine,
    PlanCache,
    PlanCheck,
    PlanKey,
    PlanNote,
    Recipe,
    graph_sha256,
    machine_of,
    write_whole,
)
from runtime.engines.tensorrt_api import FLAVOURS, open_tensorrt
from v2a.bundle import Bundle, GraphSpec
from v2a.bundle_cli import load_with_bar
from v2a.clock import MonotonicClock
from v2a.errors import BundleError, EngineError
from v2a.terminal import Bar


@dataclass(slots=True)
class Outcome:
    """The result for one graph.

    `bytes` is the plan's size, `asked` maps precisions to numbers of heavy layers. A plan that was
    kept has a `check`.
    """

    graph: str
    parsed: bool = False
    built: bool = False
    cached: bool = False
    seconds: float = 0.0
    bytes: int = 0
    asked: dict[str, int] = field(default_factory=dict)
    check: PlanCheck | None = None
    error: str | None = None

    def as_json(self) -> dict[str, object]:
        """The fields as JSON values."""
        return asdict(self) | {"check": self.check and self.check.model_dump(mode="json")}


@click.command()
@click.argument("directory", metavar="BUNDLE", type=click.Path(path_type=Path))
@click.option(
    "--engine",
    type=click.Choice(list(FLAVOURS)),
    default="trt",
    show_default=True,
    help="TensorRT, or TensorRT-RTX for desktop cards.",
)
@click.option(
    "--sm", "sms", type=int, multiple=True,
    help="Compile for this compute capability, such as 86, and discard the plan. Repeatable.",
)  # fmt: skip
@click.option(
    "--optimization-level", type=click.IntRange(0, 5), default=3, show_default=True,
    help="TensorRT's optimization level; a higher one takes longer to build.",
)  # fmt: skip
@click.option(
    "--workspace-mib", type=click.IntRange(min=16), default=2048, show_default=True,
    help="Scratch memory that a plan may use.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON on stdout.")
def build(
    directory: Path,
    engine: str,
    sms: tuple[int, ...],
    optimization_level: int,
    workspace_mib: int,
    as_json: bool,
) -> None:
    """Build the plans of BUNDLE for this machine's GPU, check them and cache them.

    A plan that is already in the cache is not built again.

    \b
    On the robot:       v2a build BUNDLE
    Without a GPU:      v2a build BUNDLE --engine rtx --sm 86
    """
    bundle = load_with_bar(directory)
    trt = open_tensorrt(engine)
    recipe = Recipe(optimization_level, workspace_mib)
    maker: Compiler | Keeper = (
        Compiler(trt, recipe, sms) if sms else Keeper(trt, recipe, engine, _gpu())
    )
    check_precisions(bundle.manifest.graphs, maker.sms)
    outcomes = []
    with Bar("building", len(bundle.manifest.graphs)) as bar:
        for graph in bundle.manifest.graphs:
            bar.begin(graph.name)
            outcomes.append(_make(graph, bundle, maker))
            bar.done(_line(outcomes[-1]), err=as_json)
    if as_json:
        graphs = {outcome.graph: outcome.as_json() for outcome in outcomes}
        report = {"engine": engine, "version": trt.__version__, "sm": maker.sms, "graphs": graphs}
        click.echo(json.dumps(report, indent=1))
    if failed := [outcome for outcome in outcomes if outcome.error]:
        summary = f"{directory}: {len(failed)} of {len(outcomes)} graphs could not be built"
        raise EngineError("\n".join([summary, *(str(outcome.error) for outcome in failed)]))


def _gpu() -> Cuda:
    try:
        return open_cuda()
    except EngineError as fault:
        raise EngineError(f"{fault}; without a GPU give --engine rtx --sm 86") from fault


class Compiler:
    """Compiles for GPUs that need not be in this machine, and keeps nothing."""

    def __init__(self, trt: Any, recipe: Recipe, sms: tuple[int, ...]) -> None:
        self._trt, self._recipe, self.sms = trt, recipe, sms
        for sm in sms:
            capability(trt, sm)  # refuse it once, not once per graph

    def make(self, graph: GraphSpec, path: Path, outcome: Outcome) -> None:
        network = _parsed(self._trt, graph, path, outcome)
        plan, _ = compile_plan(network, self._recipe, self.sms)
        outcome.bytes = plan.nbytes


class Keeper:
    """Builds plans for this machine's GPU, checks each and stores it in the cache."""

    def __init__(self, trt: Any, recipe: Recipe, engine: str, cuda: Cuda) -> None:
        self._trt, self._recipe, self._cuda = trt, recipe, cuda
        self._machine: Machine = machine_of(engine, trt.__version__, cuda.gpu)
        self._cache = PlanCache()
        self.sms = (cuda.gpu.sm,)

    def make(self, graph: GraphSpec, path: Path, outcome: Outcome) -> None:
        key = PlanKey(graph_sha256(graph), graph.precision, self._machine, self._recipe)
        note = self._cache.find(key)
        outcome.cached = outcome.parsed = note is not None
        if note is None:
            note = self._build(graph, path, key, outcome)
        outcome.bytes, outcome.asked, outcome.check = note.bytes, note.asked, note.check

    def _build(self, graph: GraphSpec, path: Path, key: PlanKey, outcome: Outcome) -> PlanNote:
        # First, so that ONNX Runtime's memory is free again when TensorRT needs it.
        expected = reference(graph, path)
        network = _parsed(self._trt, graph, path, outcome)
        timing_file = self._cache.timing_file(self._machine)
        timings = timing_file.read_bytes() if timing_file.is_file() else b""
        plan, timings = compile_plan(network, self._recipe, timings=timings)
        asked = network.asked()

        def check(written: bytes) -> PlanCheck:
            return check_plan(graph, written, expected, asked, self._trt, self._cuda)

        note = self._cache.store(key, plan, outcome.asked, check)
        if timings:
            write_whole(timing_file, timings)
        return note


def _parsed(trt: Any, graph: GraphSpec, path: Path, outcome: Outcome) -> Network:
    network = parse(trt, graph, path)
    outcome.parsed = True
    outcome.asked = count(network.asked())
    return network


def _make(graph: GraphSpec, bundle: Bundle, maker: Compiler | Keeper) -> Outcome:
    """Make one graph; a failure goes into its outcome, so that the others are still made."""
    clock, outcome = MonotonicClock(), Outcome(graph.name)
    start_ns = clock.now_ns()
    try:
        maker.make(graph, bundle.graph_path(graph.name), outcome)
        outcome.built = True
    except (BundleError, EngineError) as fault:
        outcome.error = str(fault)
    outcome.seconds = (clock.now_ns() - start_ns) / 1e9
    return outcome


def _line(outcome: Outcome) -> str:
    """One graph's lines for the terminal; the error of a failed graph comes at the end."""
    verdict = "cached" if outcome.cached else "built" if outcome.built else "FAILED"
    asked = ", ".join(f"{layers} {name}" for name, layers in sorted(outcome.asked.items()))
    lines = [
        f"{outcome.graph:<14} {verdict:<7} {outcome.seconds:>7.1f} s "
        f"{outcome.bytes / 1e6:>9.1f} MB  {asked}"
    ]
    if check := outcome.check:
        error = "not compared" if check.error is None else f"error {check.error:.1e}"
        lines.append(f"{'':<14} {check.gpu_ms:.2f} ms on the GPU, {error}")
        lines += [f"{'':<14} warning: {change}" for change in check.changed]
    return "\n".join(lines)
