"""Batches for training: pictures, joints and teacher's chunks of many steps, from episodes."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from demo import arm, expert, task
from demo.collect import CHUNK, FIELDS
from demo.expert import Manner
from demo.picture import HALF_VIEW_M

HELD_OUT: Final = 60  # last episodes of every set: never trained on
FIRST: Final = task.WARM_UP_STEPS - 1  # the first step with a whole clip behind it
Rows = npt.NDArray[np.int64]
Arrays = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Batch:
    """Times of System 1 (`now`) and of the newest frame System 2 saw (`seen`), as rows into an
    `Episodes`.
    """

    episode: Rows
    now: Rows
    seen: Rows


class Episodes:
    """One or several collected folders, drawn from with given shares. Where the teacher's
    `manner` is not the usual one its chunks are made anew.
    """

    def __init__(self, folders: dict[Path, float], manner: Manner = expert.USUAL) -> None:
        sets = [{name: np.load(folder / f"{name}.npy") for name in FIELDS} for folder in folders]
        if manner != expert.USUAL:
            for arrays in sets:
                arrays["chunk_rad"] = _relabelled(arrays, manner)
        self._sets: list[Arrays] = sets
        self._first = np.cumsum([0, *(len(arrays["valid"]) for arrays in sets)])
        self._shares = list(folders.values())
        self._rows = [_valid_rows(arrays["valid"], slice(None, -HELD_OUT)) for arrays in sets]
        self._held_out = [_valid_rows(arrays["valid"], slice(-HELD_OUT, None)) for arrays in sets]

    def held_out(self) -> Episodes:
        """The same folders, but drawing only from the episodes that training never draws from."""
        other = copy.copy(self)
        other._rows = self._held_out
        return other

    @property
    def count(self) -> int:
        return int(self._first[-1])

    def draw(self, rng: np.random.Generator, size: int) -> Batch:
        """Random states; the condition's age is mostly what a run has, with a tail as long as the
        study needs.
        """
        which = rng.choice(len(self._sets), size, p=self._shares)
        rows = [self._rows[k][rng.integers(len(self._rows[k]))] for k in which]
        episode, now = np.array(rows).T
        age = np.where(rng.random(size) < 0.7, rng.integers(0, 7, size), rng.integers(0, 35, size))
        return Batch(episode + self._first[which], now, np.maximum(now - age, FIRST))

    def take(self, name: str, episode: Rows, step: Rows) -> Tensor:
        """Values of field `name` at (episode, step), any equal shapes: [..., *field shape]."""
        which = np.searchsorted(self._first, episode, side="right") - 1
        out = [
            self._sets[k][name][e - self._first[k], s]
            for k, e, s in zip(which.ravel(), episode.ravel(), step.ravel(), strict=True)
        ]
        stacked = np.stack(out).reshape(*episode.shape, *np.shape(out[0]))
        return torch.from_numpy(stacked)

    def clip(self, name: str, episode: Rows, newest: Rows, frames: int) -> Tensor:
        """The `frames` steps that end at `newest`: [B, frames, *field shape]."""
        steps = newest[:, None] + np.arange(1 - frames, 1)
        return self.take(name, np.broadcast_to(episode[:, None], steps.shape), steps)


def _relabelled(arrays: Arrays, manner: Manner) -> npt.NDArray[np.float32]:
    """The teacher's chunks of all states anew, an episode at a time."""
    chunks = [
        expert.rollout(command, puck[:, :2], puck[:, 2:], CHUNK, manner)
        for command, puck in zip(
            arrays["command_rad"].astype(np.float64), arrays["puck"].astype(np.float64), strict=True
        )
    ]
    return np.stack(chunks).astype(np.float32)


def _valid_rows(valid: npt.NDArray[np.generic], part: slice) -> Rows:
    """(episode, step) of the valid states in a part of the episodes."""
    wanted = np.zeros(valid.shape, dtype=np.bool_)
    wanted[part] = valid[part]
    if not wanted.any():
        raise ValueError(f"no valid state in {len(valid)} episodes; collect more than {HELD_OUT}")
    return np.argwhere(wanted)


def in_picture(puck: Tensor, joints_rad: Tensor) -> Tensor:
    """Puck and ring as (column, row) in [-1, 1] of the picture, [..., 2, 2]; heights are left out
    of account.
    """
    ring = torch.from_numpy(arm.ring_position(joints_rad.double().numpy())).float()
    ground = torch.stack([puck[..., :2], ring[..., :2]], dim=-2)
    centre = torch.tensor(expert.CENTRE_M, dtype=torch.float32)
    return (centre - ground).flip(-1) / HALF_VIEW_M


def read_outs(puck: Tensor) -> Tensor:
    """What tokens must let a linear map read: position, velocity and plan, about unit scale. [...,
    4] -> [..., 7].
    """
    state = puck.double().numpy()
    position, velocity = state[..., :2], state[..., 2:]
    target = expert.ring_target(position, velocity)
    to_go = np.clip(expert.time_to_go_s(position, velocity), -0.5, 1.5)[..., None]
    parts = [
        (position - expert.CENTRE_M) / 0.2,
        velocity / 0.2,
        (target[..., :2] - expert.CENTRE_M) / 0.1,
        to_go,
    ]
    return torch.from_numpy(np.concatenate(parts, axis=-1)).float()
