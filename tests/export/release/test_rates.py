"""The graphs of a released policy, chained in PyTorch, against the policy that caches nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from export.pipeline.split import Split, chain
from export.release.layout import ADAPTORS, Layout
from export.release.policy import ReleasedPolicy
from export.release.rates import COMPONENT_OF, split_of
from export.release.tensors import TextLengths
from export.release.trained import Prefix
from tests.export.release.conftest import random_inputs, random_policy, tiny_config
from tests.export.release.test_variants import OVER_TIME, PLAIN

TEXTS = TextLengths(lang=5, video=3)
HISTORY = {"img_history": 2}


@pytest.fixture(scope="module")
def policy() -> ReleasedPolicy:
    return random_policy(tiny_config(**HISTORY))


@pytest.fixture(scope="module")
def split(policy: ReleasedPolicy) -> Split:
    return split_of(policy, TEXTS, {})


def chunk_of(split: Split, **changes: Tensor) -> Tensor:
    return chain(split.policy, split.inputs | changes, split.graphs)["chunk_rad"]


@pytest.mark.parametrize(
    ("options", "layout"),
    [
        (HISTORY, Layout(ADAPTORS)),
        ({"filter_place": "feature"}, Layout(ADAPTORS)),
        ({"compressor": {}}, Layout(ADAPTORS, (PLAIN, OVER_TIME))),
    ],
)
def test_the_chain_equals_the_whole_policy(options: dict[str, object], layout: Layout) -> None:
    split = split_of(random_policy(tiny_config(**options), layout), TEXTS, {})
    assert not torch.equal(split.inputs["prefix_mask"], torch.zeros(1, 4, 1))
    torch.testing.assert_close(chunk_of(split), split.plain(split.inputs))


def test_every_tensor_has_the_shape_and_type_of_the_manifest(split: Split) -> None:
    tensors = chain(split.policy, split.inputs, split.graphs)
    for graph in split.graphs:
        for key, spec in graph.specs(split.specs).items():
            assert list(tensors[key].shape) == spec.shape, key
            assert str(tensors[key].dtype) == f"torch.{spec.dtype}", key


def test_every_input_moves_the_chunk(split: Split) -> None:
    chunk = chunk_of(split)
    for key, value in split.inputs.items():
        other = 255 - value if value.dtype == torch.uint8 else value + 0.3
        if key.startswith("slot_"):
            other = 1 - value
        assert (chunk_of(split, **{key: other}) - chunk).abs().max() > 1e-5, key


def test_each_graph_has_a_component(split: Split) -> None:
    assert {graph.name for graph in split.graphs} == set(COMPONENT_OF)


def test_a_frame_is_encoded_alike_in_both_places(split: Split) -> None:
    """So its tokens can wait for the next frame: only its keys and values know the place."""
    tokens = split.inputs["image_tokens_0"]
    both = {"image_tokens_0": tokens, "image_tokens_1": tokens}
    tensors = chain(split.policy, split.inputs | both, split.graphs)
    assert torch.equal(tensors["frame_tokens_0"], tensors["frame_tokens_1"])
    assert not torch.equal(tensors["image_kv_0"], tensors["image_kv_1"])


def test_padding_of_an_instruction_is_not_read(policy: ReleasedPolicy, split: Split) -> None:
    longer = split_of(policy, TextLengths(lang=9, video=3), {})
    tokens = split.inputs["lang_tokens"]
    padded = torch.cat([tokens, torch.zeros(1, 4, tokens.shape[2])], dim=1)
    inputs = split.inputs | {"lang_tokens": padded}
    chunk = chain(policy, inputs, longer.graphs)["chunk_rad"]
    torch.testing.assert_close(chunk, chunk_of(split), atol=1e-6, rtol=0)


def test_channels_are_turned_round_as_released(policy: ReleasedPolicy, split: Split) -> None:
    as_trained = split_of(policy, TEXTS, {}, channels="rgb")
    frames = {key: split.inputs[key].flip(-1) for key in ("frames_spatial", "frames_motion")}
    torch.testing.assert_close(chunk_of(as_trained, **frames), chunk_of(split))


# The prefix: actions that are already decided.


@pytest.fixture(scope="module")
def sample(policy: ReleasedPolicy) -> Callable[[Prefix | None], Tensor]:
    inputs = random_inputs(policy.config)
    keys = ("noise", "state", "action_mask", "ctrl_freq", "lang_tokens", "lang_mask", "img_tokens")
    video_tokens = torch.randn(1, policy.trained.condition_tokens, 16)

    def run(prefix: Prefix | None) -> Tensor:
        given = {key: inputs[key] for key in keys}
        return policy.denoise(**given, video_tokens=video_tokens, prefix=prefix)

    return run


def test_an_empty_prefix_is_plain_sampling(sample: Callable[[Prefix | None], Tensor]) -> None:
    prefix = Prefix(torch.randn(1, 4, 8), torch.zeros(1, 4, 1))
    assert torch.equal(sample(prefix), sample(None))


@settings(max_examples=20, deadline=None)
@given(held=st.lists(st.booleans(), min_size=4, max_size=4), seed=st.integers(0, 2**31))
def test_what_is_decided_comes_out_and_the_rest_follows(
    sample: Callable[[Prefix | None], Tensor], held: list[bool], seed: int
) -> None:
    actions = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(seed))
    chunk = sample(Prefix(actions, torch.tensor(held).float()[None, :, None]))
    decided = torch.tensor(held)
    torch.testing.assert_close(chunk[:, decided], actions[:, decided])
    if 0 < sum(held) < 4:  # free actions look at the decided ones
        assert not torch.equal(chunk[:, ~decided], sample(None)[:, ~decided])
