"""The counts of `v2a plan` against torch's own counter and against real state dicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from export.layers.costs import GraphCost, PolicyCost
from export.own.config import PolicyConfig
from export.own.costs import policy_cost
from export.own.policy import Video2ActPolicy
from export.own.rates import split_of
from export.pipeline.split import Split, Stage
from export.release import rates
from export.release.action_core import joined
from export.release.config import LANGUAGE_TOKENS, WAN_TEXT_TOKENS, ReleaseConfig, unused_options
from export.release.costs import release_cost
from export.release.layout import ADAPTORS, CompressorLayout, Layout
from export.release.network_costs import IMAGE_ENCODERS
from export.release.policy import ReleasedPolicy
from export.release.tensors import TextLengths
from tests.conftest import REPOSITORY
from tests.export.conftest import POLICY_FILE
from tests.export.release.conftest import tiny_config
from v2a.config import load_yaml

DEMO = REPOSITORY / "demo" / "policy.yaml"
RELEASED = REPOSITORY / "export" / "release" / "released.yaml"
DIRECT = Layout(ADAPTORS)
COMPRESSED = Layout(
    ADAPTORS,
    (CompressorLayout(32, 2, 2, 1, 7, 1, False), CompressorLayout(32, 3, 2, 3, 5, 6, True)),
)
# Their result is a constant in the exported graph: timesteps are fixed.
FOLDED = ("time_embedding", "time_projection", "core.time", "t_embedder", "freq_embedder")
COUNTED_WITHIN = 0.01


def counted(run: Callable[[], Any]) -> tuple[Any, int]:
    """What `run` gives, and torch's count of its FLOPs without those of constants."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        result = run()
    by_module = counter.get_flop_counts()
    folded = (sum(by_module[name].values()) for name in by_module if name.endswith(FOLDED))
    return result, counter.get_total_flops() - sum(folded)


def check_graphs(cost: PolicyCost, split: Split) -> None:
    """Each graph's FLOPs, inputs and outputs, run by run in the chain of the real ones."""
    costs = {graph.name: graph for graph in cost.graphs}
    assert set(costs) == {graph.name for graph in split.graphs}
    tensors = dict(split.inputs)
    for graph in split.graphs:
        made, flops = counted(partial(Stage(split.policy, graph).outputs, tensors))
        tensors |= made
        expected = costs[graph.name]
        assert expected.rate == graph.rate, graph.name
        assert expected.flops == pytest.approx(flops, rel=COUNTED_WITHIN), graph.name
        assert expected.inputs == elements(graph.inputs, tensors), graph.name
        assert expected.outputs == elements(graph.outputs, tensors), graph.name
        if graph.rate != "frame":  # of which a chunk takes one that is new
            rows = [other for other in split.graphs if other.name == graph.name]
            assert expected.runs == len(rows), graph.name


def elements(keys: Iterable[str], tensors: Mapping[str, Tensor]) -> int:
    floats = [tensors[key] for key in keys if tensors[key].is_floating_point()]
    return sum(tensor.numel() for tensor in floats)


def check_weights(graphs: Iterable[GraphCost], modules: Mapping[str, nn.Module]) -> None:
    """The arithmetic's weights are those that the keys find in real state dicts."""
    shapes = {
        file: {key: tuple(weight.shape) for key, weight in module.state_dict().items()}
        for file, module in modules.items()
    }
    for graph in graphs:
        for file, part in graph.parts.items():
            if file in shapes:
                assert part.work.weights == part.weights_in(shapes[file]) > 0, graph.name


@pytest.mark.parametrize("file", [POLICY_FILE, DEMO], ids=["tiny", "demo"])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"spatial": {"filter": "laplace", "place": "latent"}},
        {"spatial": {"filter": "none", "place": "latent"}},
    ],
    ids=str,
)
def test_own_policy(file: Path, change: dict[str, Any]) -> None:
    config = PolicyConfig.model_validate(load_yaml(file, PolicyConfig).model_dump() | change)
    policy = Video2ActPolicy(config).eval()
    cost = policy_cost(config)
    check_graphs(cost, split_of(policy))
    check_weights(cost.graphs, {"policy": policy})


def check_released(config: ReleaseConfig, layout: Layout) -> None:
    policy = ReleasedPolicy(config, layout).eval()
    texts = TextLengths(lang=min(LANGUAGE_TOKENS, config.max_lang_len), video=WAN_TEXT_TOKENS)
    cost = release_cost(config, layout)
    check_graphs(cost, rates.split_of(policy, texts, {}))
    files = {"trained": policy.trained, "dit": policy.dit, "vae": policy.vae}
    check_weights(cost.graphs, files)
    assert "not known and not counted" in cost.notes[0]  # the image encoder


@pytest.mark.parametrize("layout", [DIRECT, COMPRESSED], ids=["direct", "compressed"])
@pytest.mark.parametrize("place", ["latent", "feature"])
@pytest.mark.parametrize("extraction", ["fft", "fft+sobel", "moft"])
def test_released_policy(layout: Layout, place: str, extraction: str) -> None:
    stream = {"num_frames": 9, "video_size": [64, 32], "extraction": extraction}
    check_released(tiny_config(motion_stream=stream, filter_place=place), layout)


def test_golden_policy(shared_dir: Path) -> None:
    file = shared_dir / "golden" / "release_dual_stream" / "config.json"
    check_released(load_yaml(file, ReleaseConfig), DIRECT)


@pytest.fixture(scope="module")
def full() -> ReleaseConfig:
    return load_yaml(RELEASED, ReleaseConfig)


def test_full_size_file_holds_what_the_design_says(full: ReleaseConfig) -> None:
    assert list(unused_options(full)) == []
    grids = [stream.token_grid for stream in (full.raw_stream, full.motion_stream)]
    assert grids == [(1, 15, 26), (16, 7, 7)]  # 390 and 784 tokens
    assert full.image_tokens == 4374


def test_full_size_on_tensors_without_storage(full: ReleaseConfig) -> None:
    with torch.device("meta"):
        policy = ReleasedPolicy(full, DIRECT)
    policy = policy.to("meta")
    cost = release_cost(full, DIRECT)
    found = dict(full_size_flops(policy, full))
    for graph in cost.graphs:
        if graph.name != "frame_encode":  # has the image encoder, see below
            assert graph.flops == pytest.approx(found[graph.name], rel=COUNTED_WITHIN), graph.name
    files = {"trained": policy.trained, "dit": policy.dit, "vae": policy.vae}
    check_weights(cost.graphs, files)
    assert cost.notes == ()


def full_size_flops(policy: ReleasedPolicy, config: ReleaseConfig) -> Iterable[tuple[str, int]]:
    """Stage by stage, since constants of a graph cannot be mixed with tensors without storage."""

    def blank(*shape: int) -> Tensor:
        return torch.empty(1, *shape, device="meta")

    trained, raw, motion = policy.trained, config.raw_stream, config.motion_stream
    lang = blank(LANGUAGE_TOKENS, config.lang_token_dim)
    lang_kv, flops = counted(lambda: trained.language_kv(lang))
    yield "instruction", flops
    text = blank(WAN_TEXT_TOKENS, config.wan.text_dim)
    text_kv, flops = counted(lambda: policy.dit.text_kv(text))
    yield "instruction_video", flops
    features = []
    for name, stream, part in (("spatial", raw, policy.raw), ("motion", motion, policy.motion)):
        video = blank(3, stream.num_frames, *stream.video_size)
        latents, flops = counted(partial(policy.vae_encode, video))
        yield f"vae_{name}", flops
        tokens, flops = counted(partial(policy.features, part, latents, text_kv))
        yield f"vdm_{name}", flops
        features.append(tokens)
    video_kv, flops = counted(lambda: trained.model.video_kv(policy.condition(*features)))
    yield "condition", flops
    frame = blank(config.image_tokens // config.img_history, config.core.hidden_size)
    slot = torch.zeros(1, dtype=torch.int64, device="meta")
    image_kv, flops = counted(lambda: trained.model.frame_kv(frame, slot))
    yield "observe", flops
    visual = joined(*[image_kv] * config.img_history, video_kv)
    scalar, mask = torch.empty(1, device="meta"), blank(1, config.state_dim)
    noise, state = blank(config.action_chunk, config.state_dim), blank(1, config.core.hidden_size)
    _, flops = counted(
        lambda: trained.sample(
            noise, state, mask, scalar, joined(lang_kv), visual, blank(LANGUAGE_TOKENS)
        )
    )
    yield "denoise", flops


def test_one_chunk_of_the_full_size_core_takes_a_quarter_by_rate(full: ReleaseConfig) -> None:
    cost = release_cost(full, DIRECT)
    assert cost.naive_core_flops == pytest.approx(7.4e12, rel=0.01)
    assert cost.core_flops == pytest.approx(1.9e12, rel=0.02)


def test_image_encoder_is_a_plain_vision_transformer(full: ReleaseConfig) -> None:
    """Torch's own encoder layer has the shapes of SigLIP's."""
    (tokens, dim), encoder = next(iter(IMAGE_ENCODERS.items()))
    part = next(
        graph.parts["image encoder"]
        for graph in release_cost(full, DIRECT).graphs
        if graph.name == "frame_encode"
    )
    with torch.device("meta"):
        layer = nn.TransformerEncoderLayer(dim, 16, encoder.ffn, batch_first=True)
        layers = nn.TransformerEncoder(layer, encoder.layers, nn.LayerNorm(dim))
        patches = nn.Conv2d(3, dim, encoder.patch, stride=encoder.patch)
    side = encoder.patch * int(tokens**0.5)
    images = torch.empty(full.num_cameras, 3, side, side, device="meta")
    _, flops = counted(lambda: layers.train()(patches(images).flatten(2).transpose(1, 2)))
    assert part.work.flops == pytest.approx(flops, rel=COUNTED_WITHIN)
    weights = sum(weight.numel() for m in (layers, patches) for weight in m.parameters())
    assert part.work.weights == weights + tokens * dim  # and the positions
