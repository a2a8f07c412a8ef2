"""The losses of each training stage, as named terms whose sum is minimised."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from demo.dataset import FIRST, Episodes, Rows, in_picture, read_outs
from demo.learner import Learner
from export.layers.blocks import pixels_to_unit
from export.layers.sampler import q_sample

FUTURE: Final = 3
LATENT_NOISE: Final = 0.05
NOISES: Final = 2  # noise draws per state, which share the encoders' work
# Position, velocity, plan (aim and time to go).
_WEIGHTS: Final = torch.tensor([0.5, 0.5, 2.0, 2.0, 1.0, 1.0, 1.0])
Terms = dict[str, Tensor]


def eyes(
    learner: Learner, episodes: Episodes, rng: np.random.Generator, size: int, step: int
) -> Terms:
    """Losses of the VAE and System 1's image encoder.

    Both learn to find puck and ring and to read the joints. The VAE also reconstructs clips of
    three frames, with more weight near the puck.
    """
    batch = episodes.draw(rng, size)
    images, puck, joints = (
        episodes.clip(name, batch.episode, batch.now, 3)
        for name in ("image", "puck", "position_rad")
    )
    where = in_picture(puck, joints)
    latents = learner.policy.video_vae(images)
    noisy = latents + LATENT_NOISE * torch.randn_like(latents)
    wanted = images.permute(0, 1, 4, 2, 3).float() / 127.5 - 1
    error = (learner.vae_heads["decoder"](noisy) - wanted).square().mean(2)
    maps = noisy.transpose(1, 2).flatten(0, 1)
    return {
        "reconstruction": 8 * (error * (1 + 20 * _near(error, where[..., 0, :]))).mean(),
        "size": 0.5 * (latents.square().mean() - 1.0).square(),
        "puck": 4 * _miss(learner.vae_heads["puck"](maps)[0], where[..., 0, :].flatten(0, 1)),
        "ring": _miss(learner.vae_heads["ring"](maps)[0], where[..., 1, :].flatten(0, 1)),
        "joints": functional.mse_loss(
            learner.vae_heads["joints"](maps.flatten(1)), joints.flatten(0, 1)
        ),
    } | _image_terms(learner, images[:, -1], where[:, -1], joints[:, -1])


def _image_terms(learner: Learner, image: Tensor, where: Tensor, joints: Tensor) -> Terms:
    """Losses of System 1's image encoder: two keypoints find puck and ring, tokens hold joints."""
    encoder = learner.policy.image_encoder
    points = encoder.look(encoder.fine(pixels_to_unit(image).permute(0, 3, 1, 2)))[..., :2]
    tokens = encoder(image).flatten(1)
    read = torch.cat([where.flatten(1), joints], dim=1)
    return {
        "keypoints": 4 * _miss(points[:, :2], where),
        "image_reads": functional.mse_loss(learner.image_heads["reads"](tokens), read),
    }


def _miss(found: Tensor, where: Tensor) -> Tensor:
    """Return the squared distance in half image sizes, without objects outside the image."""
    seen = (where.abs() < 1.0).all(-1, keepdim=True)
    return ((found - where).square() * seen).sum() / seen.sum().clamp(min=1)


def _near(like: Tensor, where: Tensor) -> Tensor:
    """Return a mask [B, T, H, W], 1 within about four pixels of `where` [B, T, 2], else 0."""
    size = like.shape[-1]
    grid = torch.linspace(-1, 1, size)
    columns, rows = ((grid - where[..., k : k + 1]).abs() < 9.0 / size for k in (0, 1))
    return (rows[..., :, None] & columns[..., None, :]).float()


def video(
    learner: Learner, episodes: Episodes, rng: np.random.Generator, size: int, step: int
) -> Terms:
    """Losses of the video DiT and its projectors.

    The DiT predicts the next frames' latents from a clean clip (flow matching, sample prediction).
    Position, velocity and plan are read out from features and tokens.
    """
    frames = learner.policy.config.motion.frames
    batch = episodes.draw(rng, size)
    newest = np.maximum(batch.now, FIRST + FUTURE)
    pictures = episodes.clip("image", batch.episode, newest, frames + FUTURE)
    latents = learner.latents(pictures)
    # The VAE is causal, so the first frames' latents contain nothing of the later ones.
    features = learner.features(pictures[:, :frames], latents[:, :, :frames])
    terms = _video_terms(learner, episodes, batch.episode, newest - FUTURE, *features)
    return terms | {"future": _predicts(learner, latents, frames)}


def _predicts(learner: Learner, latents: Tensor, frames: int) -> Tensor:
    """Return the error of the predicted frames, relative to the prediction "nothing moves"."""
    dit, size = learner.policy.video_dit, len(latents)
    t = torch.rand(size, 1).expand(-1, FUTURE) ** 0.7
    known, future = latents[:, :, :frames], latents[:, :, frames:]
    mixed = torch.lerp(future, torch.randn_like(future), t[:, None, :, None, None])
    timestep = torch.cat([torch.zeros(size, frames), 1000 * t], dim=1)
    text_kv = dit.text_kv(learner.lang.expand(size, -1, -1))
    guess = dit(torch.cat([known, mixed], dim=2), timestep, text_kv)[:, :, frames:]
    residual = future - known[:, :, -1:]
    return functional.mse_loss(guess, residual) / residual.square().mean()


def _video_terms(
    learner: Learner,
    episodes: Episodes,
    episode: Rows,
    seen: Rows,
    spatial: Tensor,
    motion: Tensor,
) -> Terms:
    """Losses of read-outs from System 2's features and tokens at the steps `seen`."""
    puck = episodes.take("puck", episode, seen)
    steady = episodes.take("steady", episode, seen)
    where = in_picture(puck, episodes.take("position_rad", episode, seen))[:, 0]
    wanted = read_outs(puck)
    spatial_tokens, motion_tokens = learner.policy.condition_tokens(spatial, motion)
    heads = learner.video_heads
    still, _ = heads["spatial_map"](spatial[:, 0].movedim(-1, 1))
    moving, velocity = heads["motion_map"](motion.movedim(-1, 2).flatten(1, 2))
    return {
        "spatial_map": 2 * _miss(still, where),
        "motion_map": 2 * _miss(moving, where) + _moves(velocity, wanted[:, 2:4], steady),
        "motion_reads": _reads(heads["motion"](motion_tokens.flatten(1)), wanted, steady),
        "spatial_reads": functional.mse_loss(
            heads["spatial"](spatial_tokens.flatten(1)), wanted[:, :2]
        ),
    }


def _moves(velocity: Tensor, wanted: Tensor, steady: Tensor) -> Tensor:
    return ((velocity - wanted).square() * steady[:, None]).mean()


def _reads(read: Tensor, wanted: Tensor, steady: Tensor) -> Tensor:
    """Return the weighted squared error. Velocity and plan count only at a constant velocity."""
    weights = _WEIGHTS * torch.where(steady[:, None], 1.0, torch.tensor([1.0, 1, 0, 0, 0, 0, 0]))
    return ((read - wanted).square() * weights).mean()


def joint(
    learner: Learner, episodes: Episodes, rng: np.random.Generator, size: int, step: int
) -> Terms:
    """Losses of System 1, which denoises the teacher's chunks.

    Its inputs are the current image and state and an aged condition. System 2 is trained, too, in
    every third step.
    """
    policy = learner.policy
    batch = episodes.draw(rng, size)
    with torch.set_grad_enabled(step % 3 == 0):
        clip = episodes.clip("image", batch.episode, batch.seen, policy.config.motion.frames)
        features = learner.features(clip, learner.latents(clip))
        condition = drop_streams(rng, *policy.condition_tokens(*features))
    image, position, command, chunk = (
        episodes.take(name, batch.episode, batch.now)
        for name in ("image", "position_rad", "command_rad", "chunk_rad")
    )
    age_s = torch.from_numpy((batch.now - batch.seen) * policy.config.step_s).float()
    tokens = policy.frame_encode(image)
    register_kv = policy.observer.register_kv(condition)
    registers, state = policy.observer(tokens, position, command, age_s, register_kv)
    visual_kv = policy.core.visual_kv(torch.cat([tokens, registers, condition], dim=1))
    puck = episodes.take("puck", batch.episode, batch.now)
    steady = episodes.take("steady", batch.episode, batch.now)
    read = learner.act_heads["registers"](registers.flatten(1))
    terms = {
        "diffusion": _denoises(learner, policy.to_actions(chunk, command), visual_kv, state),
        "register_reads": 0.5 * _reads(read, read_outs(puck), steady),
    }
    terms |= _image_terms(learner, image, in_picture(puck, position), position)
    if step % 3 == 0:
        terms |= _video_terms(learner, episodes, batch.episode, batch.seen, *features)
    return terms


def _denoises(learner: Learner, actions: Tensor, visual_kv: Tensor, state: Tensor) -> Tensor:
    """Return the mean squared error of predicted actions over `NOISES` noise draws per state."""
    core = learner.policy.core
    actions = actions.repeat(NOISES, 1, 1)
    timestep = torch.randint(0, 1000, (len(actions),))
    noisy = q_sample(actions, torch.randn_like(actions), timestep)
    lang_kv = core.language_kv(learner.lang).expand(-1, -1, len(actions), -1, -1, -1)
    visual_kv, state = visual_kv.repeat(1, 1, NOISES, 1, 1, 1), state.repeat(NOISES, 1, 1)
    return functional.mse_loss(core(noisy, timestep, lang_kv, visual_kv, state), actions)


def drop_streams(rng: np.random.Generator, spatial: Tensor, motion: Tensor) -> Tensor:
    """Join both streams' tokens [B, N, D] to [B, 2N, D] and drop streams at random.

    So the policy learns what each stream alone contains. Without the motion stream, the spatial
    tokens come from another episode: an old image beside the current one would reveal the velocity.
    """
    size = len(spatial)
    kind = torch.from_numpy(rng.choice(4, size, p=[0.80, 0.12, 0.04, 0.04]))
    no_motion, no_spatial, nothing = kind == 1, kind == 2, kind == 3
    spatial = torch.where(no_motion[:, None, None], spatial.roll(1, 0), spatial)
    spatial = spatial * ~(no_spatial | nothing)[:, None, None]
    motion = motion * ~(no_motion | nothing)[:, None, None]
    return torch.cat([spatial, motion], dim=1)
