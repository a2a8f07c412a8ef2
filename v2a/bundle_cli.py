"""`v2a bundle`: verifies a bundle and shows its contents."""

from __future__ import annotations

from pathlib import Path

import click

from v2a.bundle import Bundle, GraphSpec, Manifest, TensorSpec, load_bundle
from v2a.terminal import Bar

_DIR = click.argument("directory", type=click.Path(path_type=Path))


def load_with_bar(path: Path) -> Bundle:
    """Load a bundle behind a progress bar, as hashing gigabytes takes seconds.

    Raises BundleError with one line per fault.
    """
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    with Bar("checking the bundle", size) as bar:
        return load_bundle(path, bar.advance)


@click.group()
def bundle() -> None:
    """Check a bundle, show its contents, or make an example."""


@bundle.command()
@_DIR
def check(directory: Path) -> None:
    """Verify the manifest and the SHA-256 of every file."""
    manifest = load_with_bar(directory).manifest
    click.echo(f"{directory}: good; {len(list(manifest.files()))} files verified")


@bundle.command()
@_DIR
def show(directory: Path) -> None:
    """Verify the bundle, then print its policy, action space, cameras, instructions and graphs."""
    for line in _lines(load_with_bar(directory).manifest):
        click.echo(line)


def _lines(manifest: Manifest) -> list[str]:
    space = manifest.action_space
    chunk = f"{space.chunk_length} steps of {space.step_s:g} s"
    return [
        f"{manifest.policy}: {manifest.description}",
        f"action: {chunk}",
        *(
            f"joint: {j.name} {j.lower:g} to {j.upper:g} {j.unit}, {j.velocity_limit:g} {j.unit}/s"
            for j in space.joints
        ),
        *(
            f"camera: {camera.name} {camera.width}x{camera.height} {camera.colour}, "
            f"{camera.history} frames every {camera.interval_s:g} s"
            for camera in manifest.cameras
        ),
        *(f"instruction: {text}" for text in manifest.instructions),
        *(line for graph in manifest.graphs for line in _graph_lines(graph)),
    ]


def _graph_lines(graph: GraphSpec) -> list[str]:
    return [
        f"graph: {graph.name} at rate {graph.rate}, {graph.precision}",
        *(f"  in  {_tensor(spec)}" for spec in graph.inputs),
        *(f"  out {_tensor(spec)}" for spec in graph.outputs),
    ]


def _tensor(spec: TensorSpec) -> str:
    unit = f" [{spec.unit}]" if spec.unit else ""
    return f"{spec.name} {spec.dtype}{spec.shape}: {spec.meaning}{unit}"
