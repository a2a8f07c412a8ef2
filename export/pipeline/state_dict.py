"""State dicts, as PyTorch saves them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

Weights = Mapping[str, Tensor]

_PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel, of torch.compile


def without_prefix(weights: Weights) -> Weights:
    """Return the weights without what a wrapper of the whole module put before every key."""
    for prefix in _PREFIXES * 2:  # either may be the outer one
        if weights and all(key.startswith(prefix) for key in weights):
            weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights
