"""`v2a profile`, `compare` and `sweep` refuse bad input in one line, with the right exit code."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from v2a.cli import cli


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ("profile", 2, "give either a BUNDLE or --run RECORDING"),
        ("profile bundle --run run", 2, "give either a BUNDLE or --run RECORDING"),
        ("profile bundle bundle", 2, "Got unexpected extra argument"),
        ("profile bundle --sweep threads=1", 2, "No such option"),
        ("profile --against a b", 2, "No such option"),
        ("profile nowhere", 3, "nowhere"),
        ("profile --run nowhere", 2, "nowhere"),
        ("profile bundle --budgets budgets.yaml", 2, "did you mean 'denoise'?"),
        ("compare bundle", 2, "Missing argument 'B'"),
        ("compare bundle a.json", 2, "bundle is a bundle, a.json is not; give two profiles or two"),
        ("compare a.json a.json --threads 2", 2, "only apply to two bundles"),
        ("sweep bundle", 2, "Missing argument 'KEY=A,B ...'"),
        ("sweep bundle threads=1 steps=3,5", 2, "unrolled in denoise.onnx"),
        ("sweep nowhere threads=1", 3, "nowhere"),
    ],
)
def test_bad_input_is_refused_in_a_line(folder: Path, arguments: str, code: int, says: str) -> None:
    (folder / "budgets.yaml").write_text("denoize: {p50_ms: 1}\n")
    refused = CliRunner().invoke(cli, arguments.split(), prog_name="v2a")
    assert refused.exit_code == code
    assert says in refused.stderr.splitlines()[-1]
