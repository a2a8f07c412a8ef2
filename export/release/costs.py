"""Computes the cost of each graph of a released policy, split by rate (docs/architecture.md)."""

from __future__ import annotations

from math import prod

from export.layers.costs import (
    CORE_BLOCK_KEYS,
    DIT_BLOCK_KEYS,
    DIT_TEXT_KEYS,
    GraphCost,
    Part,
    PolicyCost,
    Work,
    band_pass,
    blocks,
    convolve,
    cross_block,
    dit_block,
    gradient_filter,
    kv,
    kv_elements,
    mlp,
    norm,
    text_kv,
)
from export.release.config import (
    LANGUAGE_TOKENS,
    WAN_TEXT_TOKENS,
    ReleaseConfig,
    StreamConfig,
)
from export.release.layout import Layout
from export.release.network_costs import (
    IMAGE_ENCODERS,
    ImageEncoder,
    image_encoder,
    token_compressor,
    vae_encoder,
)

TRAINED, DIT, VAE, ENCODER = "trained", "dit", "vae", "image encoder"  # the checkpoint files

PLAIN_TOKENS = 2  # the core's tokens for timestep and control frequency

_CORE_KV = r"cross_attn\.(kv|k_norm)\..*"


def release_cost(config: ReleaseConfig, layout: Layout) -> PolicyCost:
    """Return the costs of the policy's graphs.

    `layout` holds the adaptors and compressors, which the policy file does not describe.
    """
    encoder = IMAGE_ENCODERS.get((config.patches_per_image, config.img_token_dim))
    core, steps = config.core, config.denoise_steps
    dim, heads, odd = core.hidden_size, core.num_heads, core.depth // 2
    condition = _condition_tokens(config, layout)
    image_kv = kv(config.image_tokens, dim, heads) * odd
    denoise = _core_step(config, condition)
    per_step = denoise + _language_kv(config) + image_kv + kv(condition, dim, heads) * odd
    raw, motion = config.raw_stream, config.motion_stream
    unknown = f"the image encoder ({config.patches_per_image} tokens of {config.img_token_dim})"
    return PolicyCost(
        name=str((config.model_extra or {}).get("name", "released")),
        graphs=(
            _instruction(config, layout),
            _instruction_video(config),
            _frame_encode(config, layout, encoder),
            _vae(config, "vae_spatial", raw),
            _vae(config, "vae_motion", motion),
            _vdm(config, "vdm_spatial", raw),
            _vdm(config, "vdm_motion", motion),
            _condition(config, layout),
            _observe(config),
            _denoise(config, layout),
        ),
        chunk_s=config.action_chunk / config.ctrl_freq,
        naive_core_flops=steps * per_step.flops,
        core_flops=image_kv.flops + steps * denoise.flops,
        notes=() if encoder else (f"{unknown} is not known and not counted",),
    )


def _language_tokens(config: ReleaseConfig) -> int:
    return min(LANGUAGE_TOKENS, config.max_lang_len)


def _condition_tokens(config: ReleaseConfig, layout: Layout) -> int:
    if layout.compressors is None:
        return prod(config.raw_stream.token_grid) + prod(config.motion_stream.token_grid)
    return sum(compressor.frames * compressor.tokens for compressor in layout.compressors)


def _adaptor(tokens: int, layers: int, inputs: int, outputs: int) -> Work:
    return mlp(tokens, inputs, *[outputs] * max(layers, 1))


def _language_kv(config: ReleaseConfig) -> Work:
    core = config.core
    return kv(_language_tokens(config), core.hidden_size, core.num_heads) * ((core.depth + 1) // 2)


def _instruction(config: ReleaseConfig, layout: Layout) -> GraphCost:
    core, tokens = config.core, _language_tokens(config)
    dim, even = core.hidden_size, (core.depth + 1) // 2
    work = _adaptor(tokens, layout.adaptors["lang"], config.lang_token_dim, dim)
    work += norm(config.max_lang_len * dim) + _language_kv(config)
    even_blocks = blocks(range(0, core.depth, 2))
    keys = rf"lang_adaptor\..*|model\.(lang_cond_pos_embed|{even_blocks}{_CORE_KV})"
    inputs, outputs = tokens * config.lang_token_dim, kv_elements(even, tokens, dim) + tokens
    parts = {TRAINED: Part(work, keys)}
    return GraphCost("instruction", "instruction", parts, inputs, outputs)


def _instruction_video(config: ReleaseConfig) -> GraphCost:
    wan, used = config.wan, config.wan_layers_used
    work = mlp(WAN_TEXT_TOKENS, wan.text_dim, wan.dim, wan.dim)
    work += text_kv(WAN_TEXT_TOKENS, wan.dim) * used
    parts = {DIT: Part(work, rf"text_embedding\..*|{blocks(range(used))}{DIT_TEXT_KEYS}")}
    inputs = WAN_TEXT_TOKENS * wan.text_dim
    outputs = kv_elements(used, WAN_TEXT_TOKENS, wan.dim)
    return GraphCost("instruction_video", "instruction", parts, inputs, outputs)


def _frame_encode(config: ReleaseConfig, layout: Layout, encoder: ImageEncoder | None) -> GraphCost:
    """Cost of one frame of every camera. An unknown image encoder is not counted."""
    tokens, dim = config.image_tokens // config.img_history, config.core.hidden_size
    work = _adaptor(tokens, layout.adaptors["img"], config.img_token_dim, dim)
    parts = {TRAINED: Part(work, r"img_adaptor\..*")}
    inputs = tokens * config.img_token_dim
    if encoder:
        keys = r"(vision_model\.)?(embeddings|encoder|post_layernorm)\..*"
        parts[ENCODER] = Part(image_encoder(config, encoder), keys)
        inputs = 0
    return GraphCost("frame_encode", "frame", parts, inputs, tokens * dim)


def _vae(config: ReleaseConfig, name: str, stream: StreamConfig) -> GraphCost:
    work, dim = vae_encoder(config, stream), config.wan.in_dim
    parts = {VAE: Part(work, r"(encoder|conv1)\..*")}
    latents = dim * stream.encoded_frames * prod(stream.latent_size)
    return GraphCost(name, "system2", parts, 0, latents)


def _vdm(config: ReleaseConfig, name: str, stream: StreamConfig) -> GraphCost:
    wan, used = config.wan, config.wan_layers_used
    tokens = prod(stream.token_grid)
    latents = stream.latent_frames * prod(stream.latent_size)
    work = convolve(latents, tokens, wan.in_dim, wan.dim, prod(config.dit.patch))
    work += dit_block(tokens, WAN_TEXT_TOKENS, wan.dim, wan.ffn_dim) * used
    elements = latents * wan.in_dim if config.filter_place == "latent" else tokens * wan.dim
    work += _filter(stream, elements)
    keys = rf"patch_embedding\..*|{blocks(range(used))}{DIT_BLOCK_KEYS}"
    inputs = latents * wan.in_dim + kv_elements(used, WAN_TEXT_TOKENS, wan.dim)
    return GraphCost(name, "system2", {DIT: Part(work, keys)}, inputs, tokens * wan.dim)


def _filter(stream: StreamConfig, elements: int) -> Work:
    kind = stream.extraction or ""
    work = band_pass(stream.latent_frames, elements) if "fft" in kind else Work()
    if kind == "laplace":
        return work + gradient_filter(1, elements)
    # A gradient filter runs alone or after the temporal filter.
    return work + (gradient_filter(2, elements) if "sobel" in kind or kind == "scharr" else Work())


def _condition(config: ReleaseConfig, layout: Layout) -> GraphCost:
    core, features = config.core, config.wan.dim
    dim, odd, tokens = core.hidden_size, core.depth // 2, _condition_tokens(config, layout)
    grids = [prod(stream.token_grid) for stream in (config.raw_stream, config.motion_stream)]
    work = norm(features, vectors=2) * 2 + kv(tokens, dim, core.num_heads) * odd
    if layout.compressors is None:
        for name, grid in zip(("video", "motion"), grids, strict=True):
            work += _adaptor(grid, layout.adaptors[name], features, dim)
    else:
        for compressor, grid in zip(layout.compressors, grids, strict=True):
            work += token_compressor(compressor, grid, features)
        width = layout.compressors[0].dim
        work += _adaptor(tokens, layout.adaptors["video"], width, dim)
    keys = (
        r"(video|motion)_(layernorm|adaptor|token_compressor)\..*"
        rf"|model\.{blocks(range(1, core.depth, 2))}{_CORE_KV}"
    )
    outputs = kv_elements(odd, tokens, dim)
    parts = {TRAINED: Part(work, keys)}
    return GraphCost("condition", "system2", parts, sum(grids) * features, outputs)


def _observe(config: ReleaseConfig) -> GraphCost:
    """Cost of one frame's K/V at one place of the history. A chunk needs every place."""
    core, tokens = config.core, config.image_tokens // config.img_history
    dim, odd = core.hidden_size, core.depth // 2
    work = kv(tokens, dim, core.num_heads) * odd + norm(config.image_tokens * dim)
    keys = rf"model\.(img_cond_pos_embed|{blocks(range(1, core.depth, 2))}{_CORE_KV})"
    return GraphCost(
        name="observe",
        rate="observe",
        parts={TRAINED: Part(work, keys)},
        inputs=tokens * dim,
        outputs=kv_elements(odd, tokens, dim),
        runs=config.img_history,
    )


def _core_step(config: ReleaseConfig, condition: int) -> Work:
    """Cost of one call of the action core over cached K/V."""
    core, dim = config.core, config.core.hidden_size
    tokens = PLAIN_TOKENS + 1 + config.action_chunk
    visual, language = config.image_tokens + condition, _language_tokens(config)
    work = cross_block(tokens, language, dim, core.num_heads, dim) * ((core.depth + 1) // 2)
    work += cross_block(tokens, visual, dim, core.num_heads, dim) * (core.depth // 2)
    work += norm(tokens * dim)
    return work + norm(dim) + mlp(tokens, dim, dim, config.state_dim)


def _denoise(config: ReleaseConfig, layout: Layout) -> GraphCost:
    core, dim = config.core, config.core.hidden_size
    condition = _condition_tokens(config, layout)
    work = _core_step(config, condition)
    actions, state, joints = config.action_chunk, config.state_dim, len(config.agilex_state_indices)
    work += _adaptor(actions, layout.adaptors["state"], 2 * state, dim)
    keys = (
        r"state_adaptor\..*"
        rf"|model\.(x_pos_embed|final_layer\..*|{blocks(range(core.depth))}{CORE_BLOCK_KEYS})"
    )
    cached = kv_elements((core.depth + 1) // 2, _language_tokens(config), dim)
    cached += kv_elements(core.depth // 2, config.image_tokens + condition, dim)
    return GraphCost(
        name="denoise",
        rate="denoise",
        parts={TRAINED: Part(work, keys)},
        inputs=cached + _language_tokens(config) + joints + actions * (2 * state + 1),
        outputs=actions * joints,
        passes=config.denoise_steps,
        reread=cached,
    )
