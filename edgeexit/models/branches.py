"""The seven exit branches of Multi-Exit ViT, from tokens to features; the last linear layer is the exit's.

Source: Bakhtiarnia, Zhang, Iosifidis, Multi-Exit Vision Transformer for Dynamic Inference, BMVC 2021.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from edgeexit.models.encoder import EncoderBlock, EncoderMlp
from edgeexit.models.tokens import TokenLayout

# Hidden layers of every branch are this many times as wide as what they take.
HIDDEN_RATIO = 4
# Filters of the convolutional branches.
CNN_FILTERS = 16

NORM_EPS = 1e-6


class Features(nn.Module):
    """What a branch makes of the tokens. `dim` is how many features it gives."""

    def __init__(self, layout: TokenLayout, dim: int) -> None:
        super().__init__()
        self.layout = layout
        self.dim = dim


class LinearFeatures(Features):
    """The normalised class token."""

    def __init__(self, layout: TokenLayout) -> None:
        super().__init__(layout, layout.embed_dim)
        self.norm = nn.LayerNorm(layout.embed_dim, eps=NORM_EPS)

    def forward(self, tokens: Tensor) -> Tensor:
        """Shapes: (B, P + N, D) to (B, D)."""
        features: Tensor = self.norm(self.layout.summary(tokens))  # B P+N D -> B D
        return features


class MlpFeatures(Features):
    """MLP-EE: two hidden layers on the class token."""

    def __init__(self, layout: TokenLayout, dropout: float) -> None:
        super().__init__(layout, layout.embed_dim)
        self.norm = nn.LayerNorm(layout.embed_dim, eps=NORM_EPS)
        self.mlp = _mlp_head(layout.embed_dim, dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Shapes: (B, P + N, D) to (B, D)."""
        features: Tensor = self.mlp(self.norm(self.layout.summary(tokens)))  # B P+N D -> B D
        return features


class CnnFeatures(Features):
    """CNN-Ignore-EE, CNN-Add-EE, CNN-Project-EE: a convolution over the patches on their grid.

    The class token is ignored, added to every patch, or laid beside every patch and projected with it.
    """

    def __init__(
        self, layout: TokenLayout, class_token: Literal["ignore", "add", "project"], dropout: float
    ) -> None:
        pooled = (layout.grid_height // 2) * (layout.grid_width // 2)
        if pooled == 0:
            raise ValueError(
                f"a grid of {layout.grid_height} × {layout.grid_width} patches cannot be pooled 2 × 2"
            )
        super().__init__(layout, CNN_FILTERS * pooled)
        dim = layout.embed_dim
        self.class_token = class_token
        self.project = (
            nn.Sequential(nn.Linear(2 * dim, dim), nn.GELU()) if class_token == "project" else nn.Identity()
        )
        self.conv = nn.Conv2d(dim, CNN_FILTERS, kernel_size=3, padding=1)
        self.act = nn.ELU()
        self.pool = nn.MaxPool2d(2)
        self.mlp = _mlp_head(self.dim, dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Shapes: (B, P + N, D) to (B, F), F = 16 · ⌊h/2⌋ · ⌊w/2⌋ for a grid of h × w patches."""
        patches = self.layout.patches(tokens)  # B P+N D -> B N D
        if self.class_token != "ignore":
            summary = self.layout.summary(tokens).unsqueeze(1)  # B P+N D -> B 1 D
            if self.class_token == "add":
                patches = patches + summary
            else:
                beside = summary.expand(-1, self.layout.num_patches, -1)  # B 1 D -> B N D
                patches = self.project(torch.cat((patches, beside), dim=2))  # B N 2D -> B N D
        grid = self.layout.feature_map(patches)  # B N D -> B D h w
        grid = self.pool(self.act(self.conv(grid)))  # B D h w -> B 16 h/2 w/2
        features: Tensor = self.mlp(grid.flatten(1))  # B 16 h/2 w/2 -> B F
        return features


class ViTFeatures(Features):
    """ViT-EE: one more encoder layer over all tokens, then the class token."""

    def __init__(self, layout: TokenLayout) -> None:
        super().__init__(layout, layout.embed_dim)
        self.block = EncoderBlock(layout.embed_dim, layout.num_heads, layout.mlp_dim)
        self.norm = nn.LayerNorm(layout.embed_dim, eps=NORM_EPS)

    def forward(self, tokens: Tensor) -> Tensor:
        """Shapes: (B, P + N, D) to (B, D)."""
        features: Tensor = self.norm(self.layout.summary(self.block(tokens)))  # B P+N D -> B D
        return features


class MixerFeatures(Features):
    """MLP-Mixer-EE: one Mixer layer over all tokens, then the class token.

    Source of the layer: Tolstikhin et al., MLP-Mixer, NeurIPS 2021.
    """

    def __init__(self, layout: TokenLayout) -> None:
        super().__init__(layout, layout.embed_dim)
        dim = layout.embed_dim
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.token_mlp = EncoderMlp(layout.num_tokens, HIDDEN_RATIO * dim, "gelu")
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.channel_mlp = EncoderMlp(dim, HIDDEN_RATIO * dim, "gelu")
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)

    def forward(self, tokens: Tensor) -> Tensor:
        """Shapes: (B, P + N, D) to (B, D)."""
        mixed = self.token_mlp(self.norm1(tokens).transpose(1, 2))  # B T D -> B D T
        tokens = tokens + mixed.transpose(1, 2)  # B D T -> B T D
        tokens = tokens + self.channel_mlp(self.norm2(tokens))
        features: Tensor = self.norm(self.layout.summary(tokens))  # B T D -> B D
        return features


class Affine(nn.Module):
    """A factor and an offset for each channel: ResMLP's place-holder for a normalisation."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (B, T, D), kept."""
        return x * self.weight + self.bias


class ResMlpFeatures(Features):
    """ResMLP-EE: one ResMLP layer over all tokens, then the mean of the patches.

    Source of the layer: Touvron et al., ResMLP, 2021.
    """

    def __init__(self, layout: TokenLayout) -> None:
        super().__init__(layout, layout.embed_dim)
        dim = layout.embed_dim
        self.affine1 = Affine(dim)
        self.across = nn.Linear(layout.num_tokens, layout.num_tokens)
        self.affine2 = Affine(dim)
        self.mlp = EncoderMlp(dim, HIDDEN_RATIO * dim, "gelu")
        self.affine = Affine(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Shapes: (B, P + N, D) to (B, D)."""
        across = self.across(self.affine1(tokens).transpose(1, 2))  # B T D -> B D T
        tokens = tokens + across.transpose(1, 2)  # B D T -> B T D
        tokens = tokens + self.mlp(self.affine2(tokens))
        return self.layout.patches(self.affine(tokens)).mean(dim=1)  # B T D -> B D


def _mlp_head(dim: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(dim, HIDDEN_RATIO * dim), nn.GELU(), nn.Dropout(dropout)),
        *(nn.Linear(HIDDEN_RATIO * dim, dim), nn.GELU(), nn.Dropout(dropout)),
    )
