"""SigLIP as part of a released policy: a random one, small, as `transformers` saves it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from export.pipeline.onnx_from_torch import onnx_from_torch, save
from export.pipeline.parity import MAX_ABS_ERROR, graph_error
from export.pipeline.split import chain
from export.release.config import ReleaseConfig
from export.release.image_encoder import SiglipEncoder
from export.release.rates import split_of
from export.release.tensors import TextLengths
from runtime.engines import load
from tests.export.release.conftest import random_policy, tiny_config
from v2a.bundle import GraphSpec
from v2a.errors import ConfigError

transformers = pytest.importorskip("transformers", reason="the extra [siglip] is not installed")

WIDTH, SIDE, PATCH = 8, 32, 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = transformers.SiglipVisionConfig(
        hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        image_size=SIDE, patch_size=PATCH,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("siglip")
    transformers.SiglipVisionModel(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def config() -> ReleaseConfig:
    return tiny_config(patches_per_image=(SIDE // PATCH) ** 2, img_token_dim=WIDTH)


def test_tokens_are_those_of_the_processor_and_model(folder: Path, config: ReleaseConfig) -> None:
    """The release's way: image processor, then the model, camera by camera."""
    image = torch.randint(0, 256, (1, 2, SIDE, SIDE, 3), dtype=torch.uint8)
    model = transformers.SiglipVisionModel.from_pretrained(folder)
    pixels = (image[0].permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    expected = torch.cat([model(p[None]).last_hidden_state for p in pixels], dim=1)
    torch.testing.assert_close(SiglipEncoder(folder, config)(image), expected)


def test_it_becomes_part_of_frame_encode(
    folder: Path, config: ReleaseConfig, tmp_path: Path
) -> None:
    policy = random_policy(config)
    policy.image_encoder = SiglipEncoder(folder, config)
    split = split_of(policy, TextLengths(lang=5, video=3), {})
    tensors = chain(policy, split.inputs, split.graphs)
    torch.testing.assert_close(tensors["chunk_rad"], split.plain(split.inputs))
    graph = next(graph for graph in split.graphs if graph.name == "frame_encode")
    specs = graph.specs(split.specs)
    (image,), (out,) = graph.inputs, graph.outputs
    assert (specs[image].name, specs[image].shape) == ("image", [1, 2, SIDE, SIDE, 3])
    spec = GraphSpec(name="frame_encode", rate="frame", file="frame_encode.onnx",
                     inputs=[specs[image]], outputs=[specs[out]])  # fmt: skip
    save(onnx_from_torch(policy, graph, split.specs, tensors), tmp_path / spec.file)
    with load(spec, tmp_path / spec.file) as engine:
        assert graph_error(split, graph, engine, tensors) <= MAX_ABS_ERROR


def test_another_encoder_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gives 4 tokens of 8, but the policy reads 3 of 6"):
        SiglipEncoder(folder, tiny_config())
    with pytest.raises(ConfigError, match="no SigLIP model; give a folder"):
        SiglipEncoder(tmp_path, tiny_config())


def test_an_encoder_that_is_not_whole(
    folder: Path, config: ReleaseConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers itself would go on, with random weights in place of those that miss."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    file, whole = tmp_path / "model.safetensors", load_file(folder / "model.safetensors")
    key = next(key for key in whole if key.endswith("post_layernorm.weight"))
    save_file({k: w for k, w in whole.items() if k != key}, file, {"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks 1 key: .*post_layernorm\.weight; copy it again"):
        SiglipEncoder(tmp_path, config)
    save_file({**whole, key: whole[key] * torch.nan}, file, {"format": "pt"})
    with pytest.raises(ConfigError, match=r"NaN or infinity in 1 key: .*post_layernorm\.weight"):
        SiglipEncoder(tmp_path, config)
    file.write_bytes((folder / "model.safetensors").read_bytes()[:-9])
    with pytest.raises(ConfigError, match=r"cut off, or not a checkpoint .*copy it again"):
        SiglipEncoder(tmp_path, config)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"pip install .*\[siglip\]"):
        SiglipEncoder(folder, config)
