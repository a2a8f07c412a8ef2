"""The release's unified state: a robot's joints in fixed slots of a long vector, others zero.

For the two AgileX arms: six joints and a gripper each, left arm first (RDT's state vector,
`configs/state_vec.py`). The release scales no joint: radians, and grippers in 0..1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class Slots(nn.Module):
    """Joints [B, N, J] to state vectors [B, N, S] and back."""

    scatter: Tensor

    def __init__(self, indices: Sequence[int], size: int) -> None:
        super().__init__()
        self.indices = tuple(indices)
        one_hot = functional.one_hot(torch.tensor(self.indices), size).float()
        self.register_buffer("scatter", one_hot, persistent=False)

    def to_state(self, joints: Tensor) -> tuple[Tensor, Tensor]:
        """Joints [B, N, J] -> state [B, N, S] and `action_mask` [B, 1, S], 1 where a joint is."""
        mask = self.scatter.sum(0).expand(joints.shape[0], 1, -1)
        return joints @ self.scatter, mask

    def to_joints(self, actions: Tensor) -> Tensor:
        """Actions [B, K, S] -> joints [B, K, J]."""
        return actions[..., self.indices]
