"""Draws training batches of images, joints and the teacher's chunks from collected episodes."""

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

HELD_OUT: Final = 60  # the last episodes of every folder, never used for training
FIRST: Final = task.WARM_UP_STEPS - 1  # the first step with a complete clip
Rows = npt.NDArray[np.int64]
Arrays = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Batch:
    """Indices into an `Episodes`, int64 [B] each.

    `now` is the step of System 1, `seen` the step of the newest frame of its condition.
    """

    episode: Rows
    now: Rows
    seen: Rows


class Episodes:
    """One or several collected folders, folder -> its share of the drawn states.

    For a `manner` other than the usual one, the teacher's chunks are recomputed.
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
        """Return the same folders, restricted to the held-out episodes."""
        other = copy.copy(self)
        other._rows = self._held_out
        return other

    @property
    def count(self) -> int:
        return int(self._first[-1])

    def draw(self, rng: np.random.Generator, size: int) -> Batch:
        """Draw random states. Most condition ages are as in a run, some as long as in the study.

        Raises ValueError if a folder has no valid state.
        """
        which = rng.choice(len(self._sets), size, p=self._shares)
        rows = [self._rows[k][rng.integers(len(self._rows[k]))] for k in which]
        episode, now = np.array(rows).T
        age = np.where(rng.random(size) < 0.7, rng.integers(0, 7, size), rng.integers(0, 35, size))
        return Batch(episode + self._first[which], now, np.maximum(now - age, FIRST))

    def take(self, name: str, episode: Rows, step: Rows) -> Tensor:
        """Return field `name` at (episode, step), two index arrays of one shape [...].

        The result has shape [..., *field shape].
        """
        which = np.searchsorted(self._first, episode, side="right") - 1
        out = [
            self._sets[k][name][e - self._first[k], s]
            for k, e, s in zip(which.ravel(), episode.ravel(), step.ravel(), strict=True)
        ]
        stacked = np.stack(out).reshape(*episode.shape, *np.shape(out[0]))
        return torch.from_numpy(stacked)

    def clip(self, name: str, episode: Rows, newest: Rows, frames: int) -> Tensor:
        """Return the `frames` steps that end at `newest`, [B] each: [B, frames, *field shape]."""
        steps = newest[:, None] + np.arange(1 - frames, 1)
        return self.take(name, np.broadcast_to(episode[:, None], steps.shape), steps)


def _relabelled(arrays: Arrays, manner: Manner) -> npt.NDArray[np.float32]:
    """Recompute the teacher's chunks of all states, float32 [episodes, steps, K, 5] rad."""
    chunks = [
        expert.rollout(command, puck[:, :2], puck[:, 2:], CHUNK, manner)
        for command, puck in zip(
            arrays["command_rad"].astype(np.float64), arrays["puck"].astype(np.float64), strict=True
        )
    ]
    return np.stack(chunks).astype(np.float32)


def _valid_rows(valid: npt.NDArray[np.generic], part: slice) -> Rows:
    """Return (episode, step) of the valid states in a part of the episodes, int64 [n, 2].

    Raises ValueError if there are none.
    """
    wanted = np.zeros(valid.shape, dtype=np.bool_)
    wanted[part] = valid[part]
    if not wanted.any():
        raise ValueError(f"no valid state in {len(valid)} episodes; collect more than {HELD_OUT}")
    return np.argwhere(wanted)


def in_picture(puck: Tensor, joints_rad: Tensor) -> Tensor:
    """Return where puck and ring are in the image, (column, row) in -1..1, [B, T, 2, 2].

    `puck` is [B, T, 4] (position in m and velocity in m/s), `joints_rad` is [B, T, 5]; other
    leading axes work, too. Heights are ignored.
    """
    ring = torch.from_numpy(arm.ring_position(joints_rad.double().numpy())).float()
    ground = torch.stack([puck[..., :2], ring[..., :2]], dim=-2)
    centre = torch.tensor(expert.CENTRE_M, dtype=torch.float32)
    return (centre - ground).flip(-1) / HALF_VIEW_M


def read_outs(puck: Tensor) -> Tensor:
    """Return the targets of the linear read-outs: position [2], velocity [2] and plan [3].

    `puck` has shape [..., 4] and the result [..., 7], at about unit scale.
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
