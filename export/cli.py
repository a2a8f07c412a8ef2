"""`v2a export` exports a policy to a bundle. `v2a check-golden` checks a released policy."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

import click

from export.own.bundle import own_policy
from export.own.checkpoints import load_checkpoint
from export.own.config import PolicyConfig
from export.pipeline.bundle import Source, bundle_from_policy
from export.release.bundle import released_policy
from export.release.config import ExtraAllowed, unused_options
from export.release.golden import Result, compare_golden, load_golden
from export.release.options import load_policy_file
from export.release.policy_file import ReleasedFile
from v2a.config import load_yaml
from v2a.errors import ConfigError, V2AError
from v2a.terminal import Bar

_FILE = click.Path(path_type=Path)
_RELEASED_KEY = "wan"  # only the file of a released policy has this key


@click.command()
@click.argument("policy", type=_FILE)
@click.option("--checkpoint", type=_FILE, help="The trained weights, for a policy of your own.")
@click.option("-o", "--output", type=_FILE, required=True, help="Folder of the bundle.")
@click.option(
    "--no-check", is_flag=True, help="Skip the parity check, which needs the policy in memory."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def export(
    policy: Path, checkpoint: Path | None, output: Path, no_check: bool, as_json: bool
) -> None:
    """Export the policy that POLICY (a YAML or JSON file) describes to a bundle of ONNX graphs.

    The file of a released policy names its checkpoints. By default they are the three
    .safetensors files of a golden folder, beside the policy file. Every graph is compared with
    PyTorch. The errors are printed and written to the manifest.
    """
    source = _source(policy, checkpoint)
    graphs = {graph.name for graph in source.split.graphs}
    with Bar("exporting", len(graphs) + 1) as bar:  # and the whole chain
        report = partial(bar.done, err=as_json)
        manifest = bundle_from_policy(source, output, report, not no_check)
    if as_json:
        result = {
            "bundle": str(output),
            "policy": manifest.policy,
            "checkpoint_sha256": manifest.provenance["checkpoint_sha256"],
            "parity_max_abs_error": manifest.provenance["parity"],
        }
        click.echo(json.dumps(result, indent=1))


def _source(policy: Path, checkpoint: Path | None) -> Source:
    """Load a policy; the keys of its file tell whether it is a released one."""
    if _RELEASED_KEY in (load_yaml(policy, ExtraAllowed).model_extra or {}):
        if checkpoint is not None:
            raise ConfigError(f"{policy}: a released policy; name its 'checkpoints' in this file")
        for option in unused_options(load_policy_file(policy, ReleasedFile)):
            click.echo(f"note: {policy}: {option} is not used", err=True)
        return released_policy(policy)
    if checkpoint is None:
        raise ConfigError(f"{policy}: give the trained weights with --checkpoint")
    return own_policy(load_checkpoint(checkpoint, load_yaml(policy, PolicyConfig)))


@click.command()
@click.argument("folder", metavar="DIR", type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def check_golden(folder: Path, as_json: bool) -> None:
    """Recompute the golden tensors in DIR, a released policy's folder, and compare them.

    Every stage runs on golden tensors, once in PyTorch and once exported in ONNX Runtime. The exit
    code is 1 if any comparison fails.
    """
    golden = load_golden(folder)
    for option in golden.unused_options:
        click.echo(f"note: {folder / 'config.json'}: {option} is not used", err=True)
    results = []
    with Bar("comparing", golden.comparisons) as bar:
        for result in compare_golden(golden):
            results.append(result)
            bar.done(_line(result), err=as_json)
    failed = sum(not result.passed for result in results)
    if as_json:
        tensors = [{**asdict(result), "passed": result.passed} for result in results]
        report = {"folder": str(folder), "passed": not failed, "comparisons": tensors}
        click.echo(json.dumps(report, indent=1))
    if failed:
        raise V2AError(f"{folder}: {failed} of {len(results)} comparisons FAIL")


def _line(result: Result) -> str:
    found = result.fault or f"{result.max_abs_error:.1e}"
    verdict = "PASS" if result.passed else "FAIL"
    return f"{result.tensor:<28} {result.engine:<6} {found:>12} limit {result.limit:.1e}  {verdict}"
