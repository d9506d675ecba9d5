"""How the tokens of a ViT lie in their tensor: what an exit branch must know of its backbone."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class TokenLayout:
    """Prefix tokens first (class token, then distillation or register tokens), then patches in raster order.

    `num_heads` and `mlp_dim` are those of the backbone's blocks, for branches that add a block of its kind.
    """

    embed_dim: int
    num_heads: int
    mlp_dim: int
    grid_height: int
    grid_width: int
    num_prefix_tokens: int
    class_token: bool

    @property
    def num_patches(self) -> int:
        """How many patches there are."""
        return self.grid_height * self.grid_width

    @property
    def num_tokens(self) -> int:
        """Prefix tokens and patches."""
        return self.num_prefix_tokens + self.num_patches

    def patches(self, tokens: Tensor) -> Tensor:
        """Shapes: (B, P + N, D) to (B, N, D)."""
        return tokens[:, self.num_prefix_tokens :]

    def summary(self, tokens: Tensor) -> Tensor:
        """The class token, or the mean of the patches where the backbone has none.

        Shapes: (B, P + N, D) to (B, D).
        """
        if self.class_token:
            return tokens[:, 0]  # B P+N D -> B D
        return tokens.mean(dim=1) if self.num_prefix_tokens == 0 else self.patches(tokens).mean(dim=1)

    def feature_map(self, patches: Tensor) -> Tensor:
        """Shapes: (B, N, D) to (B, D, grid_height, grid_width)."""
        rows = patches.transpose(1, 2)  # B N D -> B D N
        return rows.reshape(-1, self.embed_dim, self.grid_height, self.grid_width)  # B D N -> B D h w
