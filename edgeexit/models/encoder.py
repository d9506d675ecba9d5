"""A plain ViT encoder, piece by piece: embedding, blocks, and the head that it was published with.

One implementation for all families, so that a network once cut needs no other library to be loaded again.
Each piece computes, operation by operation, what timm and Hugging Face transformers compute.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from edgeexit.models.encoder_config import Activation, EncoderConfig, Projections
from edgeexit.models.vit import INIT_STD

_ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    "quick_gelu": lambda: QuickGELU(),
    "relu": nn.ReLU,
    "silu": nn.SiLU,
}


class QuickGELU(nn.Module):
    """x · sigmoid(1.702 x), as CLIP's networks have it."""

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: kept."""
        return x * torch.sigmoid(1.702 * x)


class LayerScale(nn.Module):
    """A factor for each channel of a residual branch. Source: Touvron et al., CaiT, ICCV 2021."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (B, N, D), kept."""
        return x * self.gamma


class EncoderAttention(nn.Module):
    """Multi-head self-attention, its projections in one matrix or in three."""

    def __init__(self, dim: int, num_heads: int, projections: Projections, bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale: float = (dim // num_heads) ** -0.5
        self.fused = projections == "fused"
        if self.fused:
            self.qkv = nn.Linear(dim, 3 * dim, bias=bias)
        else:
            self.query = nn.Linear(dim, dim, bias=bias)
            self.key = nn.Linear(dim, dim, bias=bias)
            self.value = nn.Linear(dim, dim, bias=bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (B, N, D) to (B, N, D)."""
        b, n, d = x.shape
        parts = self.qkv(x).chunk(3, dim=-1) if self.fused else (self.query(x), self.key(x), self.value(x))
        q, k, v = (
            part.reshape(b, n, self.num_heads, d // self.num_heads).transpose(1, 2)  # B N D -> B h N d
            for part in parts
        )
        x = nn.functional.scaled_dot_product_attention(q, k, v, scale=self.scale)
        x = x.transpose(1, 2).reshape(b, n, d)  # B h N d -> B N D
        out: Tensor = self.proj(x)
        return out


class EncoderMlp(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, dim: int, hidden_dim: int, activation: Activation) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = _ACTIVATIONS[activation]()
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (…, D) to (…, D)."""
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


class EncoderBlock(nn.Module):
    """One encoder layer, normalised before each half."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_dim: int,
        *,
        projections: Projections = "fused",
        qkv_bias: bool = True,
        layer_scale: bool = False,
        activation: Activation = "gelu",
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = EncoderAttention(dim, num_heads, projections, qkv_bias)
        self.scale1 = LayerScale(dim) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = EncoderMlp(dim, mlp_dim, activation)
        self.scale2 = LayerScale(dim) if layer_scale else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (B, N, D) to (B, N, D)."""
        x = x + self.scale1(self.attn(self.norm1(x)))
        out: Tensor = x + self.scale2(self.mlp(self.norm2(x)))
        return out


class EncoderEmbedding(nn.Module):
    """From the image to tokens: normalisation, stem, patches, prefix tokens, positions.

    `prefix` holds the prefix tokens with their positions added; `pos_embed` the positions of the patches.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(config.mean).reshape(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).reshape(1, -1, 1, 1), persistent=False)
        layers: list[nn.Module] = []
        dim = config.in_chans
        for stem_dim in config.stem_dims:
            layers.append(nn.Conv2d(dim, stem_dim, kernel_size=3, stride=2, padding=1, bias=False))
            layers += [nn.BatchNorm2d(stem_dim), nn.GELU()]
            dim = stem_dim
        self.stem = nn.Sequential(*layers)
        size = config.patch_size // config.stem_stride
        self.proj = nn.Conv2d(dim, config.embed_dim, kernel_size=size, stride=size, bias=config.patch_bias)
        layout = config.layout
        self.pos_embed = nn.Parameter(torch.zeros(1, layout.num_patches, config.embed_dim))
        self.prefix: nn.Parameter | None = (
            nn.Parameter(torch.zeros(1, layout.num_prefix_tokens, config.embed_dim))
            if layout.num_prefix_tokens
            else None
        )
        self.norm = _norm(config) if config.norm_pre else nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        """Shapes: (B, C, H, W) to (B, P + N, D)."""
        grid: Tensor = self.proj(self.stem((image - self.mean) / self.std))  # B C H W -> B D h w
        tokens = grid.flatten(2).transpose(1, 2) + self.pos_embed  # B D h w -> B N D
        if self.prefix is not None:
            prefix = self.prefix.expand(tokens.shape[0], -1, -1)  # 1 P D -> B P D
            tokens = torch.cat((prefix, tokens), dim=1)  # B N D -> B P+N D
        out: Tensor = self.norm(tokens)
        return out


class EncoderHead(nn.Module):
    """The head that the backbone was published with: norm, readout, logits. It is no exit branch."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.layout = config.layout
        self.readout = config.readout
        self.norm = _norm(config) if config.final_norm else nn.Identity()
        self.fc_norm = _norm(config) if config.fc_norm else nn.Identity()
        layers: list[nn.Module] = []
        dim = config.embed_dim * (2 if config.readout == "class_and_patches" else 1)
        for hidden_dim in config.head_hidden_dims:
            layers += [nn.Linear(dim, hidden_dim), nn.GELU(), nn.Dropout(config.head_dropout)]
            dim = hidden_dim
        self.mlp = nn.Sequential(*layers)
        self.fc = nn.Linear(dim, config.num_classes)
        self.fc_distillation = (
            nn.Linear(dim, config.num_classes) if config.readout == "class_and_distillation" else None
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Shapes: (B, P + N, D) to (B, classes)."""
        if self.readout in ("class", "class_and_distillation"):
            tokens = tokens[:, :2]  # the others would be normalised for nothing: B P+N D -> B 2 D
        tokens = self.norm(tokens)
        logits: Tensor = self.fc(self.mlp(self.fc_norm(self._read(tokens))))  # B D -> B classes
        if self.fc_distillation is None:
            return logits
        both: Tensor = (logits + self.fc_distillation(tokens[:, 1])) / 2
        return both

    def _read(self, tokens: Tensor) -> Tensor:
        if self.readout == "patches":
            return self.layout.patches(tokens).mean(dim=1)  # B P+N D -> B D
        if self.readout == "all":
            return tokens.mean(dim=1)  # B P+N D -> B D
        if self.readout == "class_and_patches":
            mean = self.layout.patches(tokens).mean(dim=1)  # B P+N D -> B D
            return torch.cat((tokens[:, 0], mean), dim=1)  # B D -> B 2D
        return tokens[:, 0]  # B P+N D -> B D


def encoder_blocks(config: EncoderConfig, count: int) -> nn.Sequential:
    """So many blocks of a backbone."""
    return nn.Sequential(
        *(
            EncoderBlock(
                config.embed_dim,
                config.num_heads,
                config.mlp_dim,
                projections=config.projections,
                qkv_bias=config.qkv_bias,
                layer_scale=config.layer_scale,
                activation=config.activation,
                norm_eps=config.norm_eps,
            )
            for _ in range(count)
        )
    )


def final_norm(config: EncoderConfig) -> nn.Module:
    """The normalisation behind the last block, for an exit that takes the place of the backbone's head."""
    return _norm(config) if config.final_norm else nn.Identity()


def initialise(module: nn.Module) -> None:
    """Fresh weights for linear layers, as ViTs have them; for `nn.Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, EncoderEmbedding):
        nn.init.trunc_normal_(module.pos_embed, std=INIT_STD)
        if module.prefix is not None:
            nn.init.trunc_normal_(module.prefix, std=INIT_STD)


def _norm(config: EncoderConfig) -> nn.LayerNorm:
    return nn.LayerNorm(config.embed_dim, eps=config.norm_eps)
