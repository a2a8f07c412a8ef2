"""What options do, by what they must leave as it is; their arithmetic is in test_reference.py."""

from __future__ import annotations

import pytest
import torch

from export.layers.filters import on_features
from export.release.compressor import TokenCompressor
from export.release.filters import MOTION, SPATIAL, Moft, stream_filter, temporal_filter
from export.release.layout import ADAPTORS, CompressorLayout, Layout, layout_of
from export.release.policy import ReleasedPolicy
from tests.export.release.conftest import random_policy, tiny_config

PLAIN = CompressorLayout(8, depth=2, heads=2, frames=1, tokens=3, time_embeds=1, temporal=False)
OVER_TIME = CompressorLayout(8, depth=2, heads=2, frames=3, tokens=2, time_embeds=3, temporal=True)
EMPTY = CompressorLayout(8, depth=0, heads=1, frames=1, tokens=4, time_embeds=1, temporal=False)
LAYOUTS = (
    Layout(ADAPTORS, (PLAIN, OVER_TIME)),
    Layout(ADAPTORS, (EMPTY, EMPTY)),
    Layout({**ADAPTORS, "video": 0, "motion": 0}),
)
STREAMS = {
    "raw_stream": {"num_frames": 1, "video_size": [32, 64]},
    "motion_stream": {"num_frames": 9, "video_size": [64, 32]},
}


def test_the_layout_is_read_back_from_the_shapes() -> None:
    for layout in LAYOUTS:
        trained = random_policy(tiny_config(), layout).trained
        found = layout_of({key: tuple(w.shape) for key, w in trained.state_dict().items()})
        assert found == layout


def test_a_compressor_reads_each_frame_by_itself_without_time_attention() -> None:
    torch.manual_seed(0)
    alone = TokenCompressor(
        CompressorLayout(8, depth=2, heads=2, frames=3, tokens=2, time_embeds=3, temporal=False), 6
    ).eval()
    together = TokenCompressor(OVER_TIME, 6).eval()
    features = torch.randn(1, 12, 6)
    changed = features.clone()
    changed[:, 8:] += 1  # the last of three frames
    for compressor, reaches_others in ((alone, False), (together, True)):
        moved = (compressor(features) - compressor(changed)).abs().amax(dim=(0, 2))
        assert moved.shape == (6,)
        assert (moved[4:] > 1e-4).all()
        assert (moved[:4] > 1e-5).any() == reaches_others


def test_lowpass_keeps_what_stands_still_and_bandpass_does_not() -> None:
    still = torch.rand(1, 4, 1, 2, 2).expand(1, 4, 8, 2, 2)
    for filter_type, kept in (("lowpass", still), ("bandpass", torch.zeros_like(still))):
        config = tiny_config(motion_extraction={"filter_type": filter_type, "freq_high": 7.0})
        keep = temporal_filter(config.motion_extraction, 8, config.filter_fps)
        torch.testing.assert_close(keep(still), kept, atol=1e-6, rtol=0)


def test_moft_keeps_the_channels_that_change_most() -> None:
    maps = torch.ones(1, 6, 4, 2, 2) * torch.arange(6.0)[:, None, None, None]
    maps[:, 1, ::2] += 5
    maps[:, 4, 1] += 9
    kept = Moft(0.4)(maps)
    assert kept.abs().amax(dim=(0, 2, 3, 4)).nonzero().flatten().tolist() == [1, 4]
    assert torch.equal(kept[:, [1, 4]], maps[:, [1, 4]])


@pytest.mark.parametrize("name", [*SPATIAL, *MOTION])
def test_every_filter_takes_features_channel_by_channel(name: str) -> None:
    keep = stream_filter(name, 3, tiny_config())
    features = torch.randn(1, 3, 2, 5, 7)
    assert on_features(keep, features).shape == features.shape


def test_only_the_newest_latent_frames_are_used() -> None:
    streams = {**STREAMS["motion_stream"], "latent_num_frames": 2, "extraction": "moft"}
    policy = random_policy(tiny_config(motion_stream=streams))
    latents, text = torch.randn(1, 4, 3, 4, 2), torch.randn(1, 3, 8)
    newest = policy.vdm_motion(latents[:, :, 1:], text)
    assert torch.equal(policy.vdm_motion(latents, text), newest)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"wan_layers_used": 4}, "wan_layers_used 4 exceeds wan.num_layers 3"),
        ({"core": {"hidden_size": 15, "depth": 2, "num_heads": 2}}, "core.hidden_size 15 must be"),
        ({"core": {"hidden_size": 16, "depth": 1, "num_heads": 2}}, "core.depth"),
        ({"motion_extraction": {"prop_motion": 1.5}}, "motion_extraction.prop_motion"),
        ({"raw_stream": {**STREAMS["raw_stream"], "latent_source": "motion_current"}}, "'raw'"),
        (
            {"motion_stream": {**STREAMS["motion_stream"], "latent_frame_select": "first"}},
            "'last'",
        ),
        ({"agilex_state_indices": [1, 1]}, "must be different, in 0..7"),
        ({"agilex_state_indices": [8]}, "must be different, in 0..7"),
        ({"raw_stream": {"num_frames": 1, "video_size": [40, 32]}}, "must be multiples of 16"),
        ({"raw_stream": {"num_frames": 1, "video_size": [16, 32]}}, "of 16 and at least 32"),
        (
            {"motion_stream": {**STREAMS["motion_stream"], "latent_num_frames": 4}},
            "latent_num_frames 4 exceeds the 3 that the VAE makes of 9 frames",
        ),
        ({"raw_stream": {**STREAMS["raw_stream"], "extraction": "moft"}}, "use at least 5 frames"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text.replace(".", r"\.")):
        tiny_config(**changes)


def test_released_sizes_make_the_released_shapes() -> None:
    """Wan2.2 TI2V-5B and the action core of the release's template, without storage."""
    config = tiny_config(
        wan={"dim": 3072, "in_dim": 48, "ffn_dim": 14336, "text_dim": 4096, "freq_dim": 256,
             "num_heads": 24, "num_layers": 30},
        wan_layers_used=20,
        core={"hidden_size": 2048, "depth": 28, "num_heads": 32},
        vae={"dim": 160},
        raw_stream={"num_frames": 1, "video_size": [480, 832], "extraction": "sobel"},
        motion_stream={"num_frames": 61, "video_size": [224, 224], "extraction": "fft"},
    )  # fmt: skip
    with torch.device("meta"):
        policy = ReleasedPolicy(config, Layout(ADAPTORS))
    assert config.raw_stream.token_grid == (1, 15, 26)  # 390 tokens
    assert config.motion_stream.token_grid == (16, 7, 7)  # 784 tokens
    shapes = {key: tuple(weight.shape) for key, weight in policy.state_dict().items()}
    assert shapes["dit.blocks.19.ffn.0.weight"] == (14336, 3072)
    assert shapes["dit.patch_embedding.weight"] == (3072, 48, 1, 2, 2)
    assert shapes["vae.encoder.middle.1.to_qkv.weight"] == (1920, 640, 1, 1)
    assert shapes["trained.model.blocks.27.cross_attn.kv.weight"] == (4096, 2048)
    assert policy.motion.rotary.cos.device.type == "cpu"
    assert len(policy.dit.blocks) == 20
