"""The release's unified state: a robot's joints in fixed slots of a long vector, others zero.

For the two AgileX arms: six joints and a gripper each, left arm first (RDT's state vector,
`configs/state_vec.py`). The release scales no joint: radians, and grippers in 0..1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

PARTS = (
    (range(0, 10), "right_arm_joint_{}"),
    (range(10, 15), "right_gripper_{}"),
    (range(50, 60), "left_arm_joint_{}"),
    (range(60, 65), "left_gripper_{}"),
)
"""Which slots hold joint positions (RDT's `configs/state_vec.py`)."""


def slot_name(slot: int) -> str:
    """`left_arm_joint_0`; the number alone where the slot is no joint's."""
    for slots, name in PARTS:
        if slot in slots:
            return name.format(slot - slots.start)
    return f"slot_{slot}"


def is_gripper(slot: int) -> bool:
    return "gripper" in slot_name(slot)


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
