"""`v2a plan`: what a policy can do at most on a device, from its file and data sheets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from export.layers.costs import PolicyCost, Shapes
from export.own.config import PolicyConfig
from export.own.costs import FILE, policy_cost
from export.plan.devices import PRECISIONS, Precision
from export.plan.plan import find_device, plan
from export.plan.report import as_json_text, as_text
from export.release.config import ReleaseConfig, Released
from export.release.costs import DIT, ENCODER, TRAINED, VAE, release_cost
from export.release.layout import layout_of
from v2a.config import load_yaml
from v2a.errors import ConfigError

MARKS = {
    FILE: "action_scale",
    TRAINED: "model.x_pos_embed",
    DIT: "patch_embedding.weight",
    VAE: "encoder.conv1.weight",
    ENCODER: "vision_model.post_layernorm.weight",
}
"""A key by which each checkpoint file is known."""

_PATH = click.Path(path_type=Path)


@dataclass(frozen=True, slots=True)
class Header:
    """A checkpoint's tensors without their values."""

    path: Path
    shapes: Shapes


Headers = Mapping[str, Header]  # by file


@click.command("plan")
@click.argument("policy", type=_PATH)
@click.option("--device", required=True, help="For example orin-agx-64 (docs/plan.md).")
@click.option("--precision", type=click.Choice(PRECISIONS), default="fp16", show_default=True)
@click.option("--power-mode", help="As nvpmodel names it; the fastest where left out.")
@click.option("--checkpoint", type=_PATH, multiple=True, help="Weights, to compare the sizes with.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def plan_command(
    policy: Path,
    device: str,
    precision: Precision,
    power_mode: str | None,
    checkpoint: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Bound memory and rates of the policy that POLICY (a YAML or JSON file) describes.

    From sizes and data sheets alone: nothing is loaded or run. Of a checkpoint only the header is
    read; a released policy's files are given with one --checkpoint each.
    """
    found = find_device(device)
    made = plan(_cost(policy, _headers(checkpoint)), found, power_mode, precision)
    click.echo(as_json_text(made) if as_json else as_text(made))


def _cost(policy: Path, headers: Headers) -> PolicyCost:
    """The keys of the policy's file tell which of the two kinds it is."""
    keys = load_yaml(policy, Released).model_extra or {}
    if "wan" in keys:
        cost = _release_cost(policy, headers)
    elif "dit" in keys:
        cost = policy_cost(load_yaml(policy, PolicyConfig))
    else:
        raise ConfigError(
            f"{policy}: neither a policy of this project (it has 'dit') nor a released one (it has "
            "'wan', see export/release/released.yaml); give one of these"
        )
    for file, header in headers.items():
        _check(policy, cost, file, header)
    notes = tuple(f"weights are as in the header of {header.path}" for header in headers.values())
    return replace(cost, notes=cost.notes + notes)


def _release_cost(policy: Path, headers: Headers) -> PolicyCost:
    config = load_yaml(policy, ReleaseConfig)
    layout = layout_of(headers[TRAINED].shapes if TRAINED in headers else {})
    if (config.compressor in (None, False)) != (layout.compressors is None):
        fix = "give the --checkpoint of this policy, whose shapes tell the compressors' sizes"
        raise ConfigError(f"{policy}: compressor is {config.compressor!r}; {fix}")
    return release_cost(config, layout)


def _headers(checkpoints: Sequence[Path]) -> Headers:
    return dict(_header(path) for path in checkpoints)


def _header(path: Path) -> tuple[str, Header]:
    from export.release.headers import read_shapes  # here: a plan without one needs no torch

    shapes = read_shapes(path)
    for file, mark in MARKS.items():
        if mark in shapes:
            return file, Header(path, shapes)
    known = ", ".join(MARKS.values())
    raise ConfigError(f"{path}: not a policy's checkpoint; expected one of the keys {known}")


def _check(policy: Path, cost: PolicyCost, file: str, header: Header) -> None:
    """Raises ConfigError where the header's weights are not those that the policy's sizes give."""
    parts = [(graph.name, graph.parts[file]) for graph in cost.graphs if file in graph.parts]
    if not parts:
        raise ConfigError(f"{header.path}: no graph of {policy} has its weights; leave it out")
    for name, part in parts:
        found = part.weights_in(header.shapes)
        if found != part.work.weights:
            raise ConfigError(
                f"{header.path}: has {found} weights for graph {name}, {policy} gives "
                f"{part.work.weights}; use the policy file that this checkpoint was trained with"
            )
