"""`v2a plan`: estimates a policy's memory and highest rates on a device from data sheets."""

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
from export.release.config import ExtraAllowed
from export.release.costs import DIT, ENCODER, TRAINED, VAE, release_cost
from export.release.layout import layout_of
from export.release.options import load_policy_file
from export.release.policy_file import ReleasedFile
from v2a.config import load_yaml
from v2a.errors import ConfigError

MARKS = {
    FILE: "action_scale",
    TRAINED: "model.x_pos_embed",
    DIT: "patch_embedding.weight",
    VAE: "encoder.conv1.weight",
    ENCODER: "vision_model.post_layernorm.weight",
}
"""Checkpoint file -> a key that identifies it."""

_PATH = click.Path(path_type=Path)


@dataclass(frozen=True, slots=True)
class Header:
    """The shapes of a checkpoint's tensors."""

    path: Path
    shapes: Shapes


Headers = Mapping[str, Header]  # by file


@click.command("plan")
@click.argument("policy", type=_PATH)
@click.option("--device", required=True, help="For example orin-agx-64 (docs/plan.md).")
@click.option("--precision", type=click.Choice(PRECISIONS), default="fp16", show_default=True)
@click.option("--power-mode", help="nvpmodel's name of the mode; default: the fastest.")
@click.option("--checkpoint", type=_PATH, multiple=True, help="Checkpoint to check sizes against.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def plan_command(
    policy: Path,
    device: str,
    precision: Precision,
    power_mode: str | None,
    checkpoint: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Estimate memory and rates of the policy that POLICY (a YAML or JSON file) describes.

    The estimate uses sizes and data sheets only; nothing is loaded or run. Rates are upper bounds.
    Only the header of a checkpoint is read. Give each file of a released policy with its own
    --checkpoint.
    """
    found = find_device(device)
    made = plan(_cost(policy, _headers(checkpoint)), found, power_mode, precision)
    click.echo(as_json_text(made) if as_json else as_text(made))


def _cost(policy: Path, headers: Headers) -> PolicyCost:
    """Compute the cost of a policy; the keys of its file tell whether it is a released one."""
    keys = load_yaml(policy, ExtraAllowed).model_extra or {}
    if "wan" in keys:
        cost = _release_cost(policy, headers)
    elif "dit" in keys:
        cost = policy_cost(load_yaml(policy, PolicyConfig))
    else:
        raise ConfigError(
            f"{policy}: not a policy file; it needs the key 'dit' (a policy of this project) or "
            "'wan' (a released one, see export/release/released.yaml)"
        )
    for file, header in headers.items():
        _check(policy, cost, file, header)
    notes = tuple(f"weights are as in the header of {header.path}" for header in headers.values())
    return replace(cost, notes=cost.notes + notes)


def _release_cost(policy: Path, headers: Headers) -> PolicyCost:
    config = load_policy_file(policy, ReleasedFile)
    layout = layout_of(headers[TRAINED].shapes if TRAINED in headers else {})
    if (config.compressor in (None, False)) != (layout.compressors is None):
        fix = "give this policy's --checkpoint, whose shapes hold the compressors' sizes"
        raise ConfigError(f"{policy}: compressor is {config.compressor!r}; {fix}")
    return release_cost(config, layout)


def _headers(checkpoints: Sequence[Path]) -> Headers:
    return dict(_header(path) for path in checkpoints)


def _header(path: Path) -> tuple[str, Header]:
    from export.release.headers import read_shapes  # here, so a plan without one needs no torch

    shapes = read_shapes(path)
    for file, mark in MARKS.items():
        if mark in shapes:
            return file, Header(path, shapes)
    known = ", ".join(MARKS.values())
    raise ConfigError(f"{path}: not a policy's checkpoint; expected one of the keys {known}")


def _check(policy: Path, cost: PolicyCost, file: str, header: Header) -> None:
    """Raise ConfigError if the checkpoint's weights do not match the policy's sizes."""
    parts = [(graph.name, graph.parts[file]) for graph in cost.graphs if file in graph.parts]
    if not parts:
        raise ConfigError(f"{header.path}: no graph of {policy} has its weights; leave it out")
    for name, part in parts:
        found = part.weights_in(header.shapes)
        if found != part.work.weights:
            raise ConfigError(
                f"{header.path}: has {found} weights for graph {name}, but {policy} gives "
                f"{part.work.weights}; use the policy file that this checkpoint was trained with"
            )
