"""The planner: its devices against data sheets, its bounds, and the command with bad input."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from hypothesis import assume, given
from hypothesis import strategies as st
from safetensors.torch import save_file

from export.layers.costs import GraphCost, Part, PolicyCost, Work, linear
from export.own.config import PolicyConfig
from export.own.costs import policy_cost
from export.plan.cli import MARKS
from export.plan.devices import DEVICES, PRECISIONS, Device, Precision
from export.plan.plan import GB, GIB, Plan, plan
from export.release.config import ReleaseConfig
from export.release.costs import VAE, release_cost
from export.release.layout import ADAPTORS, CompressorLayout, Layout
from export.release.policy import ReleasedPolicy
from tests.conftest import REPOSITORY
from tests.export.release.conftest import random_policy, state_dicts, tiny_config
from tests.export.release.test_options import REFUSED as REFUSED_OPTIONS
from v2a.cli import cli
from v2a.config import load_yaml

RELEASED = REPOSITORY / "export" / "release" / "released.yaml"
DEMO = REPOSITORY / "demo" / "policy.yaml"
PAGE = REPOSITORY / "docs" / "plan.md"
NAMES = list(DEVICES)


def v2a(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["plan", *map(str, arguments)], prog_name="v2a")


def printed(*arguments: object) -> dict[str, Any]:
    result = v2a(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def refused(*arguments: object) -> str:
    """The one line that the command says when it refuses."""
    result = v2a(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


# Devices.

PRINTED = (  # device, power mode, precision, what a data sheet prints, of which share is dense
    ("orin-nano-4", "10W", "int8", 10, 1),
    ("orin-nano-8", "15W", "int8", 20, 1),
    ("orin-nano-8", "MAXN_SUPER", "int8", 67, 2),
    ("orin-nx-8", "MAXN", "int8", 50, 2),  # of 70, 20 are the DLA's
    ("orin-nx-8", "MAXN_SUPER", "fp32", 2.40, 1),
    ("orin-nx-16", "MAXN", "int8", 60, 2),  # of 100, 40 are the DLAs'
    ("orin-nx-16", "MAXN", "fp32", 1.88, 1),
    ("orin-nx-16", "MAXN_SUPER", "int8", 77, 2),  # of 157, 80 are the DLAs'
    ("orin-agx-32", "MAXN", "int8", 108, 2),
    ("orin-agx-32", "MAXN", "fp16", 54, 2),
    ("orin-agx-64", "MAXN", "int8", 170, 2),
    ("orin-agx-64", "MAXN", "fp16", 85, 2),
    ("orin-agx-64", "MAXN", "fp32", 5.32, 1),
    ("thor-t4000", "MAXN", "fp4", 1200, 2),
    ("thor-t4000", "MAXN", "fp8", 600, 2),
    ("thor-t4000", "MAXN", "fp32", 4.7, 1),
    ("thor-t5000", "MAXN", "fp4", 2070, 2),
    ("thor-t5000", "MAXN", "fp4", 1035, 1),
    ("thor-t5000", "MAXN", "fp8", 517, 1),
    ("thor-t5000", "MAXN", "int8", 1035, 2),
    ("thor-t5000", "MAXN", "fp16", 517, 2),
    ("rtx-4090", "boost", "fp16", 330.3, 1),
    ("rtx-4090", "boost", "bf16", 165.2, 1),
    ("rtx-4090", "boost", "int8", 1321.2, 2),
    ("rtx-4090", "boost", "fp32", 82.6, 1),
    ("rtx-5090", "boost", "fp4", 3352, 2),
    ("rtx-5090", "boost", "fp16", 838, 2),
    ("h100", "boost", "fp16", 1979, 2),
    ("h100", "boost", "fp8", 3958, 2),
    ("h100", "boost", "tf32", 989, 2),
)


@pytest.mark.parametrize(("name", "mode", "precision", "tera", "sparse"), PRINTED)
def test_rates_are_those_of_the_data_sheets(
    name: str, mode: str, precision: Precision, tera: float, sparse: int
) -> None:
    device = DEVICES[name]
    found = device.operations_per_s(precision, device.modes[mode])
    assert found == pytest.approx(tera * 1e12 / sparse, rel=0.03)


@pytest.mark.parametrize("device", DEVICES.values(), ids=NAMES)
def test_first_power_mode_is_the_fastest(device: Device) -> None:
    first, *others = device.modes.values()
    for mode in others:
        assert mode.sms * mode.gpu_mhz <= first.sms * first.gpu_mhz
        assert mode.bandwidth_gb_s <= first.bandwidth_gb_s


# Bounds.


def one_graph(work: Work, **options: Any) -> PolicyCost:
    """A policy of which each system is one graph with that work."""
    part = {"file": Part(work, "")}
    condition = GraphCost("condition", "system2", part, 0, 0)
    return PolicyCost("one", (condition, GraphCost("denoise", "denoise", part, **options)), 1, 1, 1)


def test_a_large_product_is_bound_by_compute_and_a_vector_by_memory() -> None:
    """By hand: 4096^3 products, and 4096^2 weights, at 16 SMs x 1301 MHz x 2048 and 204.8 GB/s."""
    device = DEVICES["orin-agx-64"]
    large = plan(one_graph(linear(4096, 4096, 4096), inputs=0, outputs=0), device, None, "fp16")
    vector = plan(one_graph(linear(1, 4096, 4096), inputs=0, outputs=0), device, None, "fp16")
    assert large.graphs[1].limit == "compute"
    assert large.graphs[1].time_s == pytest.approx(2 * 4096**3 / 42.631e12, rel=1e-4)
    assert vector.graphs[1].limit == "memory"
    assert vector.graphs[1].time_s == pytest.approx((4096**2 + 4096) * 2 / 204.8e9)


@pytest.mark.parametrize(("cache_mib", "times"), [(0, 5), (8, 1), (1 << 10, 1)])
def test_later_passes_read_what_the_cache_cannot_hold(cache_mib: float, times: int) -> None:
    device = replace(DEVICES["orin-agx-64"], cache_mib=cache_mib)
    weights = 4 * 2**20  # of 2 bytes: 8 MiB
    cost = one_graph(Work(weights=weights), inputs=0, outputs=0, passes=5)
    assert plan(cost, device, None, "fp16").graphs[1].moved_bytes == times * 2 * weights


def bounds(made: Plan) -> tuple[float, ...]:
    return made.system2_s, made.system1_s, made.frame_to_chunk_s


@given(st.sampled_from(NAMES), st.sampled_from(PRECISIONS), st.sampled_from([DEMO, RELEASED]))
def test_no_bound_is_broken(name: str, precision: Precision, file: Path) -> None:
    device, cost = DEVICES[name], COSTS[file]
    assume(precision in device.architecture.operations)
    made = plan(cost, device, None, precision)
    rate = device.operations_per_s(precision, made.mode)
    for graph in made.graphs:
        assert graph.time_s * rate >= graph.flops * (1 - 1e-12)
        assert graph.time_s * made.mode.bandwidth_gb_s * GB >= graph.moved_bytes * (1 - 1e-12)
        assert graph.moved_bytes >= graph.weight_bytes
    assert made.frame_to_chunk_s <= made.system1_s
    assert made.fits == (made.needed_bytes <= device.memory_gib * GIB)
    assert made.twice_bytes < made.weight_bytes < made.needed_bytes
    for mode in device.modes:
        slower = plan(cost, device, mode, precision)
        assert all(slow >= fast for slow, fast in zip(bounds(slower), bounds(made), strict=True))
        assert slower.needed_bytes == made.needed_bytes
    wide = plan(cost, device, None, "fp32")
    assert made.needed_bytes <= wide.needed_bytes
    assert all(slow >= fast for slow, fast in zip(bounds(wide), bounds(made), strict=True))


COSTS = {
    DEMO: policy_cost(load_yaml(DEMO, PolicyConfig)),
    RELEASED: release_cost(load_yaml(RELEASED, ReleaseConfig), Layout(ADAPTORS)),
}


# The command.


@pytest.mark.parametrize("arguments", [(RELEASED, "orin-agx-64"), (DEMO, "orin-nano-8")], ids=str)
def test_json_says_what_the_text_says(arguments: tuple[Path, str]) -> None:
    file, device = arguments
    found, text = printed(file, "--device", device), v2a(file, "--device", device).stdout
    assert found["device"]["name"] == device
    assert found["device"]["sources"]
    assert "a bound, not a promise" in found["notes"][-1]
    assert found["notes"][-1] in text
    for graph in found["graphs"]:
        assert re.search(rf"^{graph['name']} .* {graph['limit']}$", text, re.MULTILINE)
        assert graph["lower_bound_s"] == max(graph["compute_s"], graph["memory_s"])
    hertz = [float(text.replace(",", "")) for text in re.findall(r"([\d,.]+) Hz", text)]
    expected = [found[f"{system}_hz_at_most"] for system in ("system2", "system1", "both")]
    assert hertz == pytest.approx(expected, rel=0.01)
    assert ("fits:" in text) == found["memory"]["fits"]


def test_page_shows_what_the_command_prints() -> None:
    page = PAGE.read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert shown == v2a("export/release/released.yaml", "--device", "orin-agx-64").stdout
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| ([\d.]+) \| ([\d.]+) \|(.*)\| (.*) \|$", page, re.M)
    assert [row[0] for row in rows] == NAMES
    for name, memory_gib, bandwidth_gb_s, rates, modes in rows:
        device = DEVICES[name]
        mode = next(iter(device.modes.values()))
        assert float(memory_gib) == device.memory_gib
        assert float(bandwidth_gb_s) == mode.bandwidth_gb_s
        assert modes.split(", ") == list(device.modes)
        shown_rates = dict(zip(PRECISIONS, map(str.strip, rates.split("|")), strict=True))
        able = {precision for precision, rate in shown_rates.items() if rate != "-"}
        assert able == set(device.architecture.operations)
        for precision in able:
            rate = device.operations_per_s(precision, mode)
            assert float(shown_rates[precision]) == pytest.approx(rate / 1e12, rel=1e-3)


def test_the_small_board_is_told_that_the_large_policy_does_not_fit() -> None:
    assert "DOES NOT FIT: 21 GB of 8.59 GB" in v2a(RELEASED, "--device", "orin-nano-8").stdout
    assert not printed(RELEASED, "--device", "orin-nano-8")["memory"]["fits"]


def test_precision_that_the_device_has_not() -> None:
    line = refused(RELEASED, "--device", "orin-agx-64", "--precision", "fp8")
    assert line == (
        "error: Jetson AGX Orin 64GB (SM 8.7) cannot run fp8; give --precision "
        "fp32|tf32|fp16|bf16|int8, or a --device that can: thor-t4000, thor-t5000, rtx-4090, "
        "rtx-5090, h100"
    )


def test_names_that_are_not_known() -> None:
    assert "did you mean 'orin-agx-64'?" in refused(DEMO, "--device", "orin-agx")
    line = refused(DEMO, "--device", "orin-nx-16", "--power-mode", "60W")
    assert line.startswith("error: Jetson Orin NX 16GB has no power mode '60W'; ")
    assert "40W" in line


def test_policy_files_that_are_none(tmp_path: Path) -> None:
    device = ("--device", "orin-agx-64")
    line = refused(REPOSITORY / "demo" / "robot.yaml", *device)
    assert "not a policy file" in line
    assert "no such file" in refused(tmp_path / "missing.yaml", *device)
    broken = yaml.safe_load(RELEASED.read_text(encoding="utf-8")) | {"wan_layers_used": 31}
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump(broken))
    line = refused(tmp_path / "broken.yaml", *device)
    assert "wan_layers_used 31 exceeds wan.num_layers 30" in line


def test_planning_without_a_checkpoint_imports_no_torch() -> None:
    script = (
        "import sys; from v2a.cli import cli\n"
        "cli(sys.argv[1:], standalone_mode=False)\n"
        "print('torch' in sys.modules)"
    )
    arguments = ["plan", str(RELEASED), "--device", "thor-t5000"]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1:] == ["False"], done.stderr


# Checkpoints' headers.


def policy_file(folder: Path, **options: object) -> Path:
    file = folder / "policy.yaml"
    config = tiny_config(**options).model_dump(mode="json", exclude_none=True)
    file.write_text(yaml.safe_dump(config))
    return file


def test_own_checkpoint() -> None:
    checkpoint = REPOSITORY / "demo" / "policy.pt"
    found = printed(DEMO, "--device", "orin-nano-8", "--checkpoint", checkpoint)
    assert found["notes"][0] == f"weights are as in the header of {checkpoint}"


def test_released_checkpoints_and_those_of_another_size(tmp_path: Path) -> None:
    saved = state_dicts(random_policy(tiny_config()))
    for name in ("trained", "dit", "vae"):
        save_file(getattr(saved, name), tmp_path / f"{name}.safetensors")
    options = ["--device", "orin-agx-64"]
    for name in ("trained", "dit", "vae"):
        options += ["--checkpoint", str(tmp_path / f"{name}.safetensors")]
    found = printed(policy_file(tmp_path), *options)
    assert sum("as in the header" in note for note in found["notes"]) == 3
    line = refused(
        policy_file(tmp_path, core={"hidden_size": 32, "depth": 2, "num_heads": 2}), *options
    )
    assert "use the policy file that this checkpoint was trained with" in line
    line = refused(DEMO, *options)
    assert "no graph of" in line
    assert "leave it out" in line


def test_compressors_need_the_checkpoint_whose_shapes_tell_their_sizes(tmp_path: Path) -> None:
    file = policy_file(tmp_path, compressor={"depth": 1})
    line = refused(file, "--device", "orin-agx-64")
    assert "give this policy's --checkpoint" in line
    compressors = tuple(CompressorLayout(8, 1, 1, 1, tokens, 1, False) for tokens in (3, 4))
    with torch.device("meta"):
        policy = ReleasedPolicy(tiny_config(), Layout(ADAPTORS, (compressors[0], compressors[1])))
    shapes = {key: tuple(value.shape) for key, value in policy.trained.state_dict().items()}
    checkpoint = sparse(tmp_path / "trained.safetensors", shapes)
    with_it = printed(file, "--device", "orin-agx-64", "--checkpoint", checkpoint)
    kv = next(graph for graph in with_it["graphs"] if graph["name"] == "condition")
    assert kv["activation_bytes"] >= 2 * 2 * (3 + 4) * 16  # K/V of 7 tokens, 16 wide, 2 bytes


def sparse(file: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    """A checkpoint with that header and no values: the file system stores none of its zeros."""
    header, end = {}, 0
    for key, shape in shapes.items():
        start, end = end, end + 2 * torch.Size(shape).numel()
        header[key] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with file.open("wb") as content:
        content.write(struct.pack("<Q", len(text)) + text)
        content.truncate(8 + len(text) + end)
    return file


def test_full_size_checkpoint_is_not_loaded(tmp_path: Path) -> None:
    """By a process that may not take half as much memory as the file is long."""
    with torch.device("meta"):
        policy = ReleasedPolicy(load_yaml(RELEASED, ReleaseConfig), Layout(ADAPTORS))
    shapes = {key: tuple(value.shape) for key, value in policy.dit.state_dict().items()}
    checkpoint = sparse(tmp_path / "wan_dit.safetensors", shapes)
    length = checkpoint.stat().st_size
    assert length > 6 * GB
    script = (
        "import resource, sys; import torch; from v2a.cli import cli\n"
        "pages = int(open('/proc/self/statm').read().split()[5])\n"
        f"limit = pages * resource.getpagesize() + {length} // 2\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))\n"
        "cli(sys.argv[1:])"
    )
    arguments = ["plan", str(RELEASED), "--device", "orin-agx-64", "--checkpoint", str(checkpoint)]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"weights are as in the header of {checkpoint}" in done.stdout


WHOLE = {"encoder.conv1.weight": (8, 8), "conv1.weight": (8,)}


@given(st.data())
def test_checkpoint_that_is_cut_off(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = sparse(Path(folder) / "vae.safetensors", WHOLE)
        content = file.read_bytes()
        file.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        line = refused(RELEASED, "--device", "orin-agx-64", "--checkpoint", file)
        assert line.startswith(f"error: {file}: cut off, or not a checkpoint (")


FOUR = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
MALFORMED = {
    "a negative size": {**FOUR, "shape": [-4]},
    "a size that is no integer": {**FOUR, "shape": [4.0]},
    "a size that is a boolean": {**FOUR, "shape": [True], "data_offsets": [0, 4]},
    "more values than bytes": {**FOUR, "shape": [1 << 40]},
    "more values than an integer counts": {**FOUR, "shape": [1 << 62, 1 << 62]},
    "offsets beyond the file": {**FOUR, "data_offsets": [0, 1 << 40]},
    "offsets that begin after a gap": {**FOUR, "data_offsets": [16, 32]},
    "offsets that run backwards": {**FOUR, "data_offsets": [16, 0]},
    "an unknown type": {**FOUR, "dtype": "Q9"},
    "no type": {"shape": [4], "data_offsets": [0, 16]},
    "no table": [FOUR],
}


@pytest.mark.parametrize("tensor", MALFORMED.values(), ids=list(MALFORMED))
def test_header_that_is_malformed(tmp_path: Path, tensor: object) -> None:
    text = json.dumps({MARKS[VAE]: tensor}).encode()
    file = tmp_path / "vae.safetensors"
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(16))
    line = refused(RELEASED, "--device", "orin-agx-64", "--checkpoint", file)
    assert line.startswith(f"error: {file}: cut off, or not a checkpoint (")


@pytest.mark.parametrize("length", [1 << 20, 1 << 40, (1 << 64) - 1])
def test_header_that_is_longer_than_its_file(tmp_path: Path, length: int) -> None:
    file = tmp_path / "vae.safetensors"
    file.write_bytes(struct.pack("<Q", length) + b"{}")
    line = refused(RELEASED, "--device", "orin-agx-64", "--checkpoint", file)
    assert line.startswith(f"error: {file}: cut off, or not a checkpoint (")


@pytest.mark.parametrize(("options", "fault"), REFUSED_OPTIONS, ids=[f for _, f in REFUSED_OPTIONS])
def test_an_option_that_export_refuses(tmp_path: Path, options: dict[str, Any], fault: str) -> None:
    file = policy_file(tmp_path, **options)
    assert fault in refused(file, "--device", "orin-agx-64")


@given(st.binary(max_size=64))
def test_checkpoint_that_is_anything_else(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vae.safetensors"
        file.write_bytes(content)
        assert str(file) in refused(RELEASED, "--device", "orin-agx-64", "--checkpoint", file)


def test_checkpoint_of_something_else(tmp_path: Path) -> None:
    options = ("--device", "orin-agx-64", "--checkpoint")
    other = sparse(tmp_path / "other.safetensors", {"weight": (2, 2)})
    assert "not a policy's checkpoint" in refused(RELEASED, *options, other)
    assert "no such file" in refused(RELEASED, *options, tmp_path / "none.safetensors")
