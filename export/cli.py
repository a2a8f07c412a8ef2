"""`v2a export`: a trained policy to a bundle."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import click

from export.bundle_from_policy import bundle_from_policy
from export.checkpoints import load_checkpoint
from export.models.config import PolicyConfig
from v2a.config import load_yaml

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("policy", type=_FILE)
@click.option("--checkpoint", type=_FILE, required=True, help="Weights that training saved.")
@click.option("-o", "--output", type=_FILE, required=True, help="Folder of the bundle.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def export(policy: Path, checkpoint: Path, output: Path, as_json: bool) -> None:
    """Export the policy that POLICY (a YAML file) describes to ONNX graphs in a bundle.

    Every graph is checked against PyTorch; the errors are printed and kept in the manifest.
    """
    trained = load_checkpoint(checkpoint, load_yaml(policy, PolicyConfig))
    manifest = bundle_from_policy(trained, output, partial(click.echo, err=as_json))
    if as_json:
        result = {
            "bundle": str(output),
            "policy": manifest.policy,
            "checkpoint_sha256": trained.sha256,
            "parity_max_abs_error": manifest.provenance["parity"],
        }
        click.echo(json.dumps(result, indent=1))
