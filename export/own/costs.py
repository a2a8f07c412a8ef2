"""Computes the cost of each graph of this project's own policy from its sizes."""

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
    linear,
    mlp,
    norm,
    text_kv,
)
from export.own.config import PolicyConfig
from v2a.names import Rate

FILE = "policy"  # the policy has a single checkpoint file
STATE_TOKENS = 2  # of the observer: joint state, condition age
AGE_VALUES = 17  # the age and its 16 sinusoids
STEM_KERNEL, COARSE_KERNEL = 8, 4  # of the image encoder
STEM_STRIDE, COARSE_STRIDE = 4, 2

_CORE_KV = r"cross_attn\.(to_kv|k_norm)\..*"


def policy_cost(config: PolicyConfig) -> PolicyCost:
    """Return the costs of the graphs in `export.own.rates.GRAPHS`, in their order."""
    core = config.core
    odd = core.blocks // 2
    image, condition = _image_tokens(config), 2 * config.former.tokens
    visual_kv = kv(image + core.registers + condition, core.dim, core.heads) * odd
    steps = config.sampler.steps
    per_step = _language(config) + visual_kv + _denoise_step(config)
    observed = kv(image + core.registers, core.dim, core.heads) * odd
    return PolicyCost(
        name=config.name,
        graphs=(
            _instruction(config),
            _frame_encode(config),
            _vae(config, "vae_spatial", 1),
            _vae(config, "vae_motion", config.motion.frames),
            _vdm(config, "vdm_spatial", 1),
            _vdm(config, "vdm_motion", config.motion.frames),
            _condition(config),
            _observe(config),
            _denoise(config),
        ),
        chunk_s=config.chunk * config.step_s,
        naive_core_flops=steps * per_step.flops,
        core_flops=observed.flops + steps * _denoise_step(config).flops,
    )


def _graph(name: str, rate: Rate, work: Work, keys: str, inputs: int, outputs: int) -> GraphCost:
    return GraphCost(name, rate, {FILE: Part(work, keys)}, inputs, outputs)


def _image_tokens(config: PolicyConfig) -> int:
    stride = STEM_STRIDE * COARSE_STRIDE**2
    patches = (config.image.height // stride) * (config.image.width // stride)
    return patches + config.image_encoder.keypoints


def _language(config: PolicyConfig) -> Work:
    core = config.core
    return kv(config.language.tokens, core.dim, core.heads) * ((core.blocks + 1) // 2)


def _instruction(config: PolicyConfig) -> GraphCost:
    core, dit, language = config.core, config.dit, config.language
    work = mlp(language.tokens, language.dim, core.dim, core.dim) + _language(config)
    work += mlp(language.tokens, language.dim, dit.dim, dit.dim)
    work += text_kv(language.tokens, dit.dim) * dit.blocks
    keys = (
        rf"core\.language\..*|core\.{blocks(range(0, core.blocks, 2))}{_CORE_KV}"
        rf"|video_dit\.(text_embedding\..*|{blocks(range(dit.blocks))}{DIT_TEXT_KEYS})"
    )
    outputs = kv_elements((core.blocks + 1) // 2, language.tokens, core.dim)
    outputs += kv_elements(dit.blocks, language.tokens, dit.dim)
    return _graph("instruction", "instruction", work, keys, language.tokens * language.dim, outputs)


def _frame_encode(config: PolicyConfig) -> GraphCost:
    pixels, encoder, dim = (
        config.image.height * config.image.width,
        config.image_encoder,
        config.core.dim,
    )
    (fine, middle, coarse), keypoints = encoder.channels, encoder.keypoints
    stem = pixels // STEM_STRIDE**2
    half, quarter = stem // COARSE_STRIDE**2, stem // COARSE_STRIDE**4
    work = convolve(pixels, stem, 3, fine, STEM_KERNEL**2) + convolve(stem, stem, fine, fine, 9)
    work += convolve(stem, half, fine, middle, COARSE_KERNEL**2)
    work += convolve(half, quarter, middle, coarse, COARSE_KERNEL**2)
    work += convolve(stem, stem, fine, keypoints, 1)
    # Each keypoint reads its position (x, y) and the mean feature there.
    work += Work(flops=2 * keypoints * stem * (2 + fine))
    work += linear(quarter, coarse, dim) + linear(keypoints, fine + 2, dim)
    tokens = _image_tokens(config)
    work += norm(tokens * dim)  # learned positions
    return _graph("frame_encode", "frame", work, r"image_encoder\..*", 0, tokens * dim)


def _vae(config: PolicyConfig, name: str, frames: int) -> GraphCost:
    vae = config.vae
    height, width = config.image.height, config.image.width
    work, channels, positions = Work(), 3, frames * height * width
    for outputs, kernel, stride in zip(vae.channels, vae.kernels, vae.strides, strict=True):
        work += convolve(positions, positions // stride**2, channels, outputs, kernel**2)
        channels, positions = outputs, positions // stride**2
    latent = vae.latent_channels
    work += convolve(positions, positions, channels, latent, 1)
    work += convolve(positions, positions, latent, latent, 9 * vae.temporal_kernel)
    return _graph(name, "system2", work, r"video_vae\..*", 0, positions * latent)


def _vdm(config: PolicyConfig, name: str, frames: int) -> GraphCost:
    dit, language = config.dit, config.language.tokens
    latents = frames * prod(config.latent_size)
    tokens = frames * prod(config.token_grid)
    channels = config.vae.latent_channels
    work = convolve(latents, tokens, channels, dit.dim, prod(dit.patch))
    work += dit_block(tokens, language, dit.dim, dit.ffn) * dit.blocks
    work += _filter(config, name, latents * channels, tokens * dit.dim)
    keys = rf"video_dit\.(patch_embedding\..*|{blocks(range(dit.blocks))}{DIT_BLOCK_KEYS})"
    inputs = latents * channels + kv_elements(dit.blocks, language, dit.dim)
    return _graph(name, "system2", work, keys, inputs, tokens * dit.dim)


def _filter(config: PolicyConfig, name: str, latents: int, features: int) -> Work:
    spatial = name == "vdm_spatial"
    options = config.spatial if spatial else config.motion
    if options.filter == "none":
        return Work()
    elements = latents if options.place == "latent" else features
    if spatial:
        return gradient_filter(1 if options.filter == "laplace" else 2, elements)
    return band_pass(config.motion.frames, elements)


def _condition(config: PolicyConfig) -> GraphCost:
    core, dim = config.core, config.dit.dim
    grid, tokens = prod(config.token_grid), config.former.tokens
    work = Work()
    for inputs in (grid, config.motion.frames * grid):
        work += norm(dim, vectors=2) + mlp(inputs, dim, core.dim, core.dim)
        work += linear(core.dim, inputs, tokens)  # the mix of tokens, equal for all channels
        work += norm(core.dim, vectors=2) + norm(tokens * core.dim)
    count = core.blocks // 2 + core.register_blocks
    work += kv(2 * tokens, core.dim, core.heads) * count
    keys = (
        rf"(spatial|motion)_former\..*|core\.{blocks(range(1, core.blocks, 2))}{_CORE_KV}"
        rf"|observer\.{blocks(range(core.register_blocks))}{_CORE_KV}"
    )
    inputs = (1 + config.motion.frames) * grid * dim
    outputs = kv_elements(count, 2 * tokens, core.dim)
    return _graph("condition", "system2", work, keys, inputs, outputs)


def _observe(config: PolicyConfig) -> GraphCost:
    core, joints = config.core, len(config.joints)
    dim, odd, condition = core.dim, core.blocks // 2, 2 * config.former.tokens
    image, own = _image_tokens(config), core.registers + STATE_TOKENS
    work = mlp(1, 3 * joints, dim, dim) + mlp(1, AGE_VALUES, dim, dim) + norm(own * dim)
    work += kv(image, dim, core.heads) * core.register_blocks
    block = cross_block(own, image + condition, dim, core.heads, core.ffn_ratio * dim)
    work += block * core.register_blocks + kv(image + core.registers, dim, core.heads) * odd
    keys = rf"observer\..*|core\.{blocks(range(1, core.blocks, 2))}{_CORE_KV}"
    inputs = image * dim + 2 * joints + 1 + kv_elements(core.register_blocks, condition, dim)
    outputs = kv_elements(odd, image + core.registers, dim) + STATE_TOKENS * dim
    return _graph("observe", "observe", work, keys, inputs, outputs)


def _denoise_step(config: PolicyConfig) -> Work:
    core, joints = config.core, len(config.joints)
    dim, hidden = core.dim, core.ffn_ratio * core.dim
    tokens = 1 + STATE_TOKENS + config.chunk
    work = mlp(config.chunk, joints, dim, dim) + norm(tokens * dim)
    visual = _image_tokens(config) + core.registers + 2 * config.former.tokens
    language_blocks = (core.blocks + 1) // 2
    work += cross_block(tokens, config.language.tokens, dim, core.heads, hidden) * language_blocks
    work += cross_block(tokens, visual, dim, core.heads, hidden) * (core.blocks // 2)
    scale = norm(config.chunk * joints)  # rad per unit of output
    return work + norm(dim) + linear(config.chunk, dim, joints) + scale


def _denoise(config: PolicyConfig) -> GraphCost:
    core, joints, chunk = config.core, len(config.joints), config.chunk
    visual = _image_tokens(config) + core.registers + 2 * config.former.tokens
    cached = kv_elements((core.blocks + 1) // 2, config.language.tokens, core.dim)
    cached += kv_elements(core.blocks // 2, visual, core.dim)
    keys = (
        r"core\.(action\..*|positions|norm_final\..*|out\..*)|action_scale"
        rf"|core\.{blocks(range(core.blocks))}{CORE_BLOCK_KEYS}"
    )
    return GraphCost(
        name="denoise",
        rate="denoise",
        parts={FILE: Part(_denoise_step(config), keys)},
        inputs=cached + STATE_TOKENS * core.dim + (chunk + 1) * joints,
        outputs=chunk * joints,
        passes=config.sampler.steps,
        reread=cached,
    )
