"""`v2a export` of a released policy end to end: its files to a bundle that onnxruntime runs."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import save_file
from torch import Tensor

from export.pipeline import bundle as writer
from export.pipeline.onnx_from_torch import NOT_IN_TENSORRT, save
from export.pipeline.parity import MAX_ABS_ERROR
from export.pipeline.split import Graph, Split
from export.release import checkpoints
from export.release.bundle import released_policy
from export.release.policy import ReleasedPolicy
from export.release.rates import COMPONENT_OF, graphs_of
from runtime.engines import load
from tests.conftest import REPOSITORY
from tests.export.conftest import POLICY_FILE as OWN_POLICY
from tests.export.release.conftest import random_policy, state_dicts, tiny_config
from v2a.bundle import Bundle, load_bundle
from v2a.cli import cli
from v2a.errors import BundleError, ConfigError

OPTIONS = {"img_history": 2}
SHORT, LONG = "stop", "put the cup down"


@dataclass(frozen=True)
class Exported:
    file: Path
    bundle: Bundle
    report: dict[str, Any]


def v2a(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def write_policy(folder: Path, policy: ReleasedPolicy, **options: object) -> Path:
    """A released policy's file with its checkpoints beside it and two instructions."""
    states = state_dicts(policy)
    save_file(states.trained, folder / "policy.safetensors")
    save_file(states.dit, folder / "wan_dit.safetensors")
    save_file(states.vae, folder / "vae_encoder.safetensors")
    torch.save(torch.randn(1, 3, 7), folder / "short.pt")
    torch.save({"instruction": LONG, "embeddings": torch.randn(1, 5, 7)}, folder / "long.pt")
    torch.save({"llama_vec": torch.randn(1, 6, 8)}, folder / "text.pkl")
    instructions = {
        text: {"lang": lang, "video": "text.pkl"}
        for text, lang in ((SHORT, "short.pt"), (LONG, "long.pt"))
    }
    given = policy.config.model_dump(mode="json") | {"instructions": instructions} | options
    file = folder / "policy.yaml"
    file.write_text(json.dumps(given))  # JSON is YAML
    return file


@pytest.fixture(scope="module")
def policy() -> ReleasedPolicy:
    return random_policy(tiny_config(**OPTIONS))


@pytest.fixture(scope="module")
def exported(policy: ReleasedPolicy, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("released")
    file = write_policy(folder, policy, name="tiny")
    result = v2a("export", file, "-o", folder / "bundle", "--json")
    assert result.exit_code == 0, result.output
    return Exported(file, load_bundle(folder / "bundle"), json.loads(result.stdout))


@pytest.fixture(scope="module")
def split(exported: Exported) -> Split:
    return released_policy(exported.file).split


def test_the_bundle_is_sealed_and_says_what_it_is(exported: Exported) -> None:
    manifest = exported.bundle.manifest
    checked = v2a("bundle", "check", exported.bundle.path)
    assert checked.exit_code == 0, checked.output
    assert {graph.name for graph in manifest.graphs} == set(COMPONENT_OF)
    names = [joint.name for joint in manifest.action_space.joints]
    assert names == ["right_arm_joint_5", "right_arm_joint_0", "right_arm_joint_1"]
    assert manifest.action_space.step_s == pytest.approx(1 / 25)
    assert [(c.width, c.height, c.history) for c in manifest.cameras] == [(64, 32, 1), (32, 64, 9)]
    hashes = manifest.provenance["checkpoint_sha256"]
    assert hashes == {
        name: hashlib.sha256(
            (exported.file.parent / f"{file}.safetensors").read_bytes()
        ).hexdigest()
        for name, file in (("policy", "policy"), ("dit", "wan_dit"), ("vae", "vae_encoder"))
    }


def test_parity_is_measured_and_kept(exported: Exported) -> None:
    parity = exported.bundle.manifest.provenance["parity"]
    assert set(parity) == {*COMPONENT_OF, "whole_chain"}
    assert max(parity.values()) <= MAX_ABS_ERROR
    assert exported.report["parity_max_abs_error"] == parity


def run_chain(bundle: Bundle, split: Split, inputs: dict[str, Tensor]) -> Tensor:
    known = {key: value.numpy() for key, value in inputs.items()}
    for graph in split.graphs:
        specs = graph.specs(split.specs)
        with load(bundle.graph(graph.name), bundle.graph_path(graph.name)) as engine:
            made = engine.run({specs[key].name: known[key] for key in graph.inputs})
        known |= {key: made[specs[key].name] for key in graph.outputs}
    return torch.from_numpy(known["chunk_rad"])


def agilex_indices(split: Split) -> list[int]:
    assert isinstance(split.policy, ReleasedPolicy)
    return list(split.policy.config.agilex_state_indices)


def other_inputs(split: Split, instruction: str, bundle: Bundle) -> dict[str, Tensor]:
    """Other tensors than those that the exporter checked itself with, and a real instruction."""
    generator = torch.Generator().manual_seed(99)
    moved = {
        key: value + torch.randn(value.shape, generator=generator)
        for key, value in split.inputs.items()
        if value.is_floating_point() and key != "prefix_mask"
    }
    text = bundle.manifest.video_texts[instruction]
    return split.inputs | moved | {
        "lang_tokens": torch.from_numpy(bundle.instruction_tokens(instruction)),
        "text_tokens": torch.from_numpy(np.load(bundle.path / text.file)),
    }  # fmt: skip


@pytest.mark.parametrize("held", [0, 3])
def test_graphs_chained_over_new_inputs_equal_the_whole_policy(
    exported: Exported, split: Split, held: int
) -> None:
    inputs = other_inputs(split, LONG, exported.bundle)
    inputs["prefix_mask"] = (torch.arange(4) < held).float()[None, :, None]
    chunk = run_chain(exported.bundle, split, inputs)
    torch.testing.assert_close(chunk, split.plain(inputs), atol=MAX_ABS_ERROR, rtol=0)
    decided = inputs["prefix"][:, :held, agilex_indices(split)]
    torch.testing.assert_close(chunk[:, :held], decided)


def test_a_short_instruction_is_padded_and_reads_as_if_it_were_not(
    exported: Exported, split: Split
) -> None:
    inputs = other_inputs(split, SHORT, exported.bundle)
    assert not inputs["lang_tokens"][:, 3:].any()
    chunk = run_chain(exported.bundle, split, inputs)
    alone = split.plain(inputs | {"lang_tokens": inputs["lang_tokens"][:, :3]})
    torch.testing.assert_close(chunk, alone, atol=MAX_ABS_ERROR, rtol=0)


def test_graphs_are_what_tensorrt_takes(exported: Exported) -> None:
    for graph in exported.bundle.manifest.graphs:
        model = onnx.load(exported.bundle.graph_path(graph.name))
        assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)], graph.name
        assert not {node.op_type for node in model.graph.node} & NOT_IN_TENSORRT
        assert not model.functions
        for value in (*model.graph.input, *model.graph.output):
            assert all(dim.dim_value for dim in value.type.tensor_type.shape.dim), value.name


def test_what_no_input_changes_is_folded(exported: Exported) -> None:
    model = onnx.load(exported.bundle.graph_path("denoise"))
    assert not {node.op_type for node in model.graph.node} & {"Cos", "Sin"}
    names = [name for weight in model.graph.initializer if "t_embedder" in (name := weight.name)]
    assert not names  # the embedding of each step's time is a constant, its network is not here


def test_weights_beside_the_graph_are_sealed_too(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "save", partial(save, inline_limit_bytes=0))
    monkeypatch.setattr("export.release.rates.graphs_of", _first_graph)
    out = tmp_path / "bundle"
    result = v2a("export", exported.file, "-o", out, "--no-check")
    assert result.exit_code == 0, result.output
    (graph,) = load_bundle(out).manifest.graphs
    assert graph.data is not None
    inside = exported.bundle
    tokens = {"lang_tokens": inside.instruction_tokens(LONG)}
    with (
        load(graph, out / graph.file) as beside,
        load(inside.graph("instruction"), inside.graph_path("instruction")) as engine,
    ):
        np.testing.assert_array_equal(beside.run(tokens)["lang_kv"], engine.run(tokens)["lang_kv"])
    data = out / graph.data.file
    data.write_bytes(data.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"instruction\.onnx\.data: sha256 is"):
        load_bundle(out)


def _first_graph(*arguments: Any) -> tuple[Graph, ...]:
    return graphs_of(*arguments)[:1]


# Faults.


def refused(*arguments: object) -> str:
    result = v2a("export", *arguments, "-o", "never")
    assert result.exit_code == ConfigError.exit_code, result.output
    return result.stderr


def test_each_kind_of_policy_says_where_its_weights_are(exported: Exported) -> None:
    fault = refused(exported.file, "--checkpoint", "some.pt")
    assert "name its 'checkpoints' in this file" in fault
    assert "give the trained weights with --checkpoint" in refused(OWN_POLICY)


def test_a_name_for_each_joint(policy: ReleasedPolicy, tmp_path: Path) -> None:
    joint = {"name": "a", "lower_rad": -1, "upper_rad": 1, "velocity_limit_rad_s": 1}
    file = write_policy(tmp_path, policy, joints=[joint])
    assert "1 joints for 3 agilex_state_indices: name one joint per index" in refused(file)


def test_the_vae_has_no_bf16(policy: ReleasedPolicy, tmp_path: Path) -> None:
    file = write_policy(tmp_path, policy, precision={"vae": "bf16"})
    assert "precision.vae: Input should be 'fp32' or 'fp16' (got 'bf16')" in refused(file)


BAD_EMBEDDINGS = {
    "is not there": (None, "no such file; give one that torch.save wrote"),
    "is empty": (b"", "cut off, or not a checkpoint"),
    "is cut off": (b"PK\x03\x04", "cut off, or not a checkpoint"),
    "has no tokens": (
        torch.zeros(0, 7),
        r"\[0, 7\], but the policy file gives finite \[tokens, 7\]",
    ),
    "is something else": ({"tokens": 1}, "holds no tensor, alone or under 'embeddings'"),
    "is of another encoder": (
        torch.zeros(1, 3, 9),
        r"\[1, 3, 9\], but the policy file gives finite \[tokens, 7\]",
    ),
    "is no number": (torch.full((3, 7), torch.nan), "gives finite"),
    "is too long": (torch.zeros(10, 7), "an instruction has 10 tokens, but max_lang_len is 9"),
    "runs code": (Path, "holds other things than tensors"),
}


@pytest.mark.parametrize("case", BAD_EMBEDDINGS)
def test_an_embedding_that_is_none(case: str, policy: ReleasedPolicy, tmp_path: Path) -> None:
    content, fault = BAD_EMBEDDINGS[case]
    file = write_policy(tmp_path, policy)
    (tmp_path / "long.pt").unlink()
    if isinstance(content, bytes):
        (tmp_path / "long.pt").write_bytes(content)
    elif content is not None:
        torch.save(content, tmp_path / "long.pt")
    assert re.search(fault, refused(file)), refused(file)


def test_texts_of_the_video_model_are_equally_long(policy: ReleasedPolicy, tmp_path: Path) -> None:
    texts = {t: {"lang": "short.pt", "video": f"{n}.pkl"} for n, t in enumerate((SHORT, LONG))}
    file = write_policy(tmp_path, policy, instructions=texts)
    for number in range(2):
        torch.save({"llama_vec": torch.randn(1, 4 + number, 8)}, tmp_path / f"{number}.pkl")
    assert "the video model's texts have [4, 5] tokens" in refused(file)


# Two exports, full disks, and checkpoints that change.


@pytest.fixture
def written(policy: ReleasedPolicy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_policy(tmp_path_factory.mktemp("written"), policy)


def test_a_second_export_to_the_same_folder_is_refused(written: Path, tmp_path: Path) -> None:
    with writer._alone(tmp_path / "bundle"):
        result = v2a("export", written, "-o", tmp_path / "bundle", "--no-check")
    assert result.exit_code == BundleError.exit_code
    assert "bundle: another export is writing there; wait for it" in result.stderr
    assert not (tmp_path / "bundle").exists()


def test_a_link_as_output_is_refused(written: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    result = v2a("export", written, "-o", tmp_path / "link", "--no-check")
    assert "link: is a link; give the folder that it leads to" in result.stderr


def no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_one_line_and_leaves_nothing(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "save", no_room)
    result = v2a("export", written, "-o", tmp_path / "bundle", "--no-check")
    assert "the bundle cannot be written: No space left on device" in result.stderr
    assert [file.name for file in tmp_path.iterdir()] == [".bundle.lock"]


def test_a_weight_without_room_in_the_temporary_folder_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.posix_fallocate", no_room)
    with pytest.raises(ConfigError, match=r"no room for 8388608 bytes .* set TMPDIR to a folder"):
        checkpoints._widened(torch.zeros(2 << 20, dtype=torch.bfloat16))


def test_a_checkpoint_that_was_rewritten_is_refused(policy: ReleasedPolicy, tmp_path: Path) -> None:
    source = released_policy(write_policy(tmp_path, policy))
    source.check_unchanged()
    file = tmp_path / "policy.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    with pytest.raises(ConfigError, match=r"policy\.safetensors: was rewritten during the export"):
        source.check_unchanged()


def test_a_checkpoint_that_is_truncated_meanwhile_is_one_line(
    policy: ReleasedPolicy, tmp_path: Path
) -> None:
    """A mapped file would kill the process by SIGBUS. Nothing of the export stays."""
    file = write_policy(tmp_path, policy)
    script = (
        "import os, sys\n"
        "from export.release import bundle\n"
        "from v2a.cli import main\n"
        "read = bundle.read_instructions\n"
        "def truncate(config, files, folder):\n"
        "    os.truncate(folder / 'wan_dit.safetensors', 0)\n"
        "    return read(config, files, folder)\n"
        "bundle.read_instructions = truncate\n"
        "main()"
    )
    arguments = ["export", str(file), "-o", str(tmp_path / "bundle")]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == ConfigError.exit_code, done.stderr
    *_, line = done.stderr.splitlines()
    assert line.startswith("error: a checkpoint was truncated while v2a read it; ")
    assert not (tmp_path / "bundle").exists()


def test_what_a_killed_export_left_goes(policy: ReleasedPolicy, tmp_path: Path) -> None:
    left = tmp_path / ".bundle.abc.part"
    (left / "bundle").mkdir(parents=True)
    done = v2a("export", write_policy(tmp_path, policy), "-o", tmp_path / "bundle", "--no-check")
    assert done.exit_code == 0, done.output
    assert not left.exists()
