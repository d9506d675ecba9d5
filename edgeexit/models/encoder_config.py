"""What a plain ViT encoder is built from, in numbers and a few words: whoever published it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgeexit.models.tokens import TokenLayout

Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "silu"]
# One matrix for query, key and value (timm), or three (Hugging Face): which of them decides the last bits.
Projections = Literal["fused", "apart"]
# What the backbone's own head looks at: the class token, the mean of the patches or of all tokens, class
# token and mean side by side (DINOv2), or class and distillation token with a head each (DeiT).
Readout = Literal["class", "patches", "all", "class_and_patches", "class_and_distillation"]


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """A ViT whose blocks are normalised before each half, with what its families differ in.

    `num_prefix_tokens` stand before the patches; the first one is a class token if `class_token`. Positions
    belong to this one image size. `num_classes` 0 means that the backbone has no head of its own.
    `stem_dims` and `head_hidden_dims` are as in edgeexit.models.vit.ViTConfig. `mean` and `std` normalise
    the image inside stage 0, one value a channel.
    """

    image_height: int
    image_width: int
    patch_size: int
    in_chans: int
    num_classes: int
    embed_dim: int
    depth: int
    num_heads: int
    mlp_dim: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_prefix_tokens: int = 1
    class_token: bool = True
    projections: Projections = "fused"
    qkv_bias: bool = True
    layer_scale: bool = False
    activation: Activation = "gelu"
    norm_eps: float = 1e-6
    patch_bias: bool = True
    norm_pre: bool = False
    final_norm: bool = True
    readout: Readout = "class"
    fc_norm: bool = False
    stem_dims: tuple[int, ...] = ()
    head_hidden_dims: tuple[int, ...] = ()
    head_dropout: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be built.

        Raises: ValueError.
        """
        sizes = (
            *(self.image_height, self.image_width, self.patch_size, self.in_chans, self.embed_dim),
            *(self.depth, self.num_heads, self.mlp_dim, *self.stem_dims, *self.head_hidden_dims),
        )
        if min(sizes) < 1 or min(self.num_classes, self.num_prefix_tokens) < 0:
            raise ValueError("a size below 1 was given")
        if self.image_height % self.patch_size or self.image_width % self.patch_size:
            raise ValueError(
                f"an image of {self.image_height} × {self.image_width} is no multiple of patch_size"
                f" {self.patch_size}"
            )
        if self.patch_size % self.stem_stride:
            raise ValueError(
                f"a stem of {len(self.stem_dims)} halvings does not fit patch_size {self.patch_size}"
            )
        if self.embed_dim % self.num_heads:
            raise ValueError(f"embed_dim {self.embed_dim} is no multiple of num_heads {self.num_heads}")
        if len(self.mean) != self.in_chans or len(self.std) != self.in_chans:
            raise ValueError(f"mean and std need one value for each of {self.in_chans} channels")
        needed = {"class": 1, "class_and_patches": 1, "class_and_distillation": 2}.get(self.readout, 0)
        if (needed or self.class_token) and not (self.class_token and self.num_prefix_tokens >= needed):
            raise ValueError(f"{self.num_prefix_tokens} prefix tokens do not fit readout {self.readout}")
        if self.class_token and not self.num_prefix_tokens:
            raise ValueError("a class token is one of the prefix tokens, and there are none")

    @property
    def stem_stride(self) -> int:
        """Image pixels along one side of a pixel after the stem."""
        return 1 << len(self.stem_dims)

    @property
    def layout(self) -> TokenLayout:
        """How its tokens lie."""
        return TokenLayout(
            embed_dim=self.embed_dim,
            num_heads=self.num_heads,
            mlp_dim=self.mlp_dim,
            grid_height=self.image_height // self.patch_size,
            grid_width=self.image_width // self.patch_size,
            num_prefix_tokens=self.num_prefix_tokens,
            class_token=self.class_token,
        )
