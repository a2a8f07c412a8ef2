"""The release's unified state: a long vector with fixed slots for joints; unused slots are zero.

The two AgileX arms have six joints and a gripper each, left arm first (RDT's state vector,
`configs/state_vec.py`). Joints are in rad and grippers in 0..1, without scaling.
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
"""The slots that hold joint positions (RDT's `configs/state_vec.py`)."""


def slot_name(slot: int) -> str:
    """Return a slot's name, such as `left_arm_joint_0`, or `slot_N` for a slot of no joint."""
    for slots, name in PARTS:
        if slot in slots:
            return name.format(slot - slots.start)
    return f"slot_{slot}"


def is_gripper(slot: int) -> bool:
    """Whether the slot is a gripper's."""
    return "gripper" in slot_name(slot)


class Slots(nn.Module):
    """Converts between joints [B, N, J] and state vectors [B, N, S]."""

    scatter: Tensor

    def __init__(self, indices: Sequence[int], size: int) -> None:
        super().__init__()
        self.indices = tuple(indices)
        one_hot = functional.one_hot(torch.tensor(self.indices), size).float()
        self.register_buffer("scatter", one_hot, persistent=False)

    def to_state(self, joints: Tensor) -> tuple[Tensor, Tensor]:
        """Return joints [B, N, J] as state [B, N, S], and `action_mask` [B, 1, S], 1 for joints."""
        mask = self.scatter.sum(0).expand(joints.shape[0], 1, -1)
        return joints @ self.scatter, mask

    def to_joints(self, actions: Tensor) -> Tensor:
        """Return the joints [B, K, J] of actions [B, K, S]."""
        return actions[..., self.indices]
