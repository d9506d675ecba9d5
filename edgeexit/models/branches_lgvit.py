"""The exit heads of LGViT: convolutions see what is near, attention over few patches what is far.

Source: Xu et al., LGViT: Dynamic Early Exiting for Accelerating Vision Transformer, ACM Multimedia 2023.
"""

from __future__ import annotations

from torch import Tensor, nn

from edgeexit.models.branches import Features
from edgeexit.models.encoder import EncoderAttention
from edgeexit.models.tokens import TokenLayout

# Heads of the global branch where they divide the width; else as many as the backbone's blocks have.
GLOBAL_HEADS = 8


class LocalFeatures(Features):
    """Local head: convolutions over the patches on their grid; their mean and the class token, added.

    `light` leaves the depth-wise convolution out.
    """

    def __init__(self, layout: TokenLayout, *, light: bool) -> None:
        super().__init__(layout, layout.embed_dim)
        dim = layout.embed_dim
        layers: list[nn.Module] = [nn.Conv2d(dim, dim, kernel_size=1), nn.GELU(), nn.BatchNorm2d(dim)]
        if not light:
            layers += [nn.Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim), nn.GELU()]
            layers += [nn.BatchNorm2d(dim)]
        layers += [nn.Conv2d(dim, dim, kernel_size=1), nn.BatchNorm2d(dim)]
        self.convs = nn.Sequential(*layers)

    def forward(self, tokens: Tensor) -> Tensor:
        """Shapes: (B, P + N, D) to (B, D)."""
        grid = self.layout.feature_map(self.layout.patches(tokens))  # B P+N D -> B D h w
        grid = grid + self.convs(grid)
        features: Tensor = grid.mean(dim=(2, 3)) + self.layout.summary(tokens)  # B D h w -> B D
        return features


class GlobalFeatures(Features):
    """Global head: attention among every `stride`-th patch both ways; its mean and the class token."""

    def __init__(self, layout: TokenLayout, *, stride: int) -> None:
        super().__init__(layout, layout.embed_dim)
        self.stride = stride
        dim = layout.embed_dim
        heads = GLOBAL_HEADS if dim % GLOBAL_HEADS == 0 else layout.num_heads
        self.attn = EncoderAttention(dim, heads, "fused", bias=True)

    def forward(self, tokens: Tensor) -> Tensor:
        """Shapes: (B, P + N, D) to (B, D)."""
        layout, stride = self.layout, self.stride
        patches = layout.patches(tokens)  # B P+N D -> B N D
        grid = patches.reshape(
            -1, layout.grid_height, layout.grid_width, layout.embed_dim
        )  # B N D -> B h w D
        few = grid[:, ::stride, ::stride].flatten(1, 2)  # B h w D -> B n D
        seen: Tensor = self.attn(few)
        return seen.mean(dim=1) + layout.summary(tokens)  # B n D -> B D
