"""The projector, which reduces video features to a small, fixed number of condition tokens."""

from __future__ import annotations

from torch import Tensor, nn

from export.layers.blocks import mlp, position_embedding


class Projector(nn.Module):
    """Applies LayerNorm and an MLP per token, then mixes `tokens_in` tokens into `tokens_out`."""

    def __init__(self, dim_in: int, tokens_in: int, dim: int, tokens_out: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim_in)
        self.mlp = mlp(dim_in, dim, dim)
        self.mix = nn.Linear(tokens_in, tokens_out)
        self.out_norm = nn.LayerNorm(dim)
        self.positions = position_embedding(tokens_out, dim)

    def forward(self, features: Tensor) -> Tensor:
        """Map features [B, T, h, w, dim_in] to tokens [B, tokens_out, dim]."""
        tokens = self.mlp(self.norm(features.flatten(1, 3)))
        mixed = self.mix(tokens.transpose(1, 2)).transpose(1, 2)
        out: Tensor = self.out_norm(mixed) + self.positions
        return out
