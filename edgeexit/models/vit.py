"""A Vision Transformer with an exit after some of its blocks, in timm's vocabulary.

Source: Dosovitskiy et al., ICLR 2021 (backbone); Bakhtiarnia, Zhang, Iosifidis, BMVC 2021 (exits
on the class token, MLP-EE).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeexit.models.protocol import IMAGE, State

# The one tensor between stages: class token first, then the patches in raster order.
TOKENS = "tokens"

# Deviation of fresh weights, as in the original ViT and in timm.
INIT_STD = 0.02


@dataclass(frozen=True, slots=True)
class ViTConfig:
    """What a multi-exit ViT is built from.

    `exits` counts blocks: (2, 4, 6) puts exits after the 2nd, 4th and 6th block; the last one equals
    `depth`. `head_hidden_dims` are the widths between class token and logits of each exit; empty is a
    linear head. `stem_dims` are the channels of overlapping 3 × 3 convolutions before the patches, each
    of which halves the image; empty projects the bare patches, as the original ViT does. `mean` and
    `std` normalise the image inside stage 0, one value a channel.

    Source of the stem: Xiao et al., Early Convolutions Help Transformers See Better, NeurIPS 2021.
    """

    img_size: int
    patch_size: int
    in_chans: int
    num_classes: int
    embed_dim: int
    depth: int
    num_heads: int
    exits: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mlp_ratio: float = 4.0
    head_hidden_dims: tuple[int, ...] = (128,)
    head_dropout: float = 0.0
    stem_dims: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be built.

        Raises: ValueError.
        """
        sizes = (
            *(
                self.img_size,
                self.patch_size,
                self.in_chans,
                self.num_classes,
                self.embed_dim,
                self.num_heads,
            ),
            *(*self.head_hidden_dims, *self.stem_dims),
        )
        if min(sizes) < 1:
            raise ValueError("a size below 1 was given")
        if self.img_size % self.patch_size:
            raise ValueError(f"img_size {self.img_size} is no multiple of patch_size {self.patch_size}")
        if self.patch_size % self.stem_stride:
            raise ValueError(
                f"a stem of {len(self.stem_dims)} halvings does not fit patch_size {self.patch_size}"
            )
        if self.embed_dim % self.num_heads:
            raise ValueError(f"embed_dim {self.embed_dim} is no multiple of num_heads {self.num_heads}")
        if len(self.mean) != self.in_chans or len(self.std) != self.in_chans:
            raise ValueError(f"mean and std need one value for each of {self.in_chans} channels")
        rising = all(a < b for a, b in zip((0, *self.exits), self.exits, strict=False))
        if not self.exits or not rising or self.exits[-1] != self.depth:
            raise ValueError(f"exits {self.exits} must rise from 1 or more to depth {self.depth}")

    @property
    def grid_size(self) -> int:
        """Patches along one side."""
        return self.img_size // self.patch_size

    @property
    def stem_stride(self) -> int:
        """Image pixels along one side of a pixel after the stem."""
        return 1 << len(self.stem_dims)

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before the patches: the class token."""
        return 1


class PatchEmbed(nn.Module):
    """Cuts the image, or what the stem makes of it, into patches and projects each one."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        dim = config.in_chans
        for stem_dim in config.stem_dims:
            layers.append(nn.Conv2d(dim, stem_dim, kernel_size=3, stride=2, padding=1, bias=False))
            layers += [nn.BatchNorm2d(stem_dim), nn.GELU()]
            dim = stem_dim
        self.stem = nn.Sequential(*layers)
        size = config.patch_size // config.stem_stride
        self.proj = nn.Conv2d(dim, config.embed_dim, kernel_size=size, stride=size)

    def forward(self, image: Tensor) -> Tensor:
        """Shapes: (B, C, H, W) to (B, N, D)."""
        grid: Tensor = self.proj(self.stem(image))  # B C H W -> B D g g
        # Channels last first: lowered files then keep the layout that their convolutions give.
        return grid.permute(0, 2, 3, 1).flatten(1, 2)  # B D g g -> B g g D -> B N D


class Attention(nn.Module):
    """Multi-head self-attention, fused where torch has a kernel for it."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (B, N, D) to (B, N, D)."""
        b, n, d = x.shape
        q, k, v = (
            part.reshape(b, n, self.num_heads, d // self.num_heads).transpose(1, 2)  # B N D -> B h N d
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        x = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x.transpose(1, 2).reshape(b, n, d)  # B h N d -> B N D
        out: Tensor = self.proj(x)
        return out


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (B, N, D) to (B, N, D)."""
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


class Block(nn.Module):
    """One encoder layer, normalised before each half."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, config.num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (B, N, D) to (B, N, D)."""
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class ClassTokenHead(nn.Module):
    """An exit: an MLP on the class token.

    Source: MLP-EE of Bakhtiarnia, Zhang, Iosifidis, BMVC 2021; hidden widths (4 D, D) are theirs.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.embed_dim, eps=1e-6)
        layers: list[nn.Module] = []
        dim = config.embed_dim
        for hidden_dim in config.head_hidden_dims:
            layers += [nn.Linear(dim, hidden_dim), nn.GELU(), nn.Dropout(config.head_dropout)]
            dim = hidden_dim
        self.mlp = nn.Sequential(*layers)
        self.fc = nn.Linear(dim, config.num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Shapes: (B, 1 + N, D) to (B, classes)."""
        cls_token = tokens[:, 0]  # B 1+N D -> B D
        logits: Tensor = self.fc(self.mlp(self.norm(cls_token)))  # B D -> B classes
        return logits


class FirstStage(nn.Module):
    """From the image to the first exit: normalisation, patches, positions, blocks, head."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: ViTConfig, blocks: int, last: bool) -> None:
        super().__init__()
        self.last = last
        self.register_buffer("mean", torch.tensor(config.mean).reshape(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).reshape(1, -1, 1, 1), persistent=False)
        self.patch_embed = PatchEmbed(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        tokens = config.num_prefix_tokens + config.grid_size**2
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, config.embed_dim))
        self.blocks = nn.Sequential(*(Block(config) for _ in range(blocks)))
        self.head = ClassTokenHead(config)

    def forward(self, state: State) -> tuple[State, Tensor]:
        """Shapes: image (B, C, H, W) to tokens (B, 1 + N, D) and logits (B, classes)."""
        image = (state[IMAGE] - self.mean) / self.std
        patches: Tensor = self.patch_embed(image)  # B C H W -> B N D
        cls_token = self.cls_token.expand(patches.shape[0], -1, -1)  # 1 1 D -> B 1 D
        tokens = torch.cat((cls_token, patches), dim=1) + self.pos_embed  # B 1+N D
        tokens = self.blocks(tokens)
        return {} if self.last else {TOKENS: tokens}, self.head(tokens)


class LaterStage(nn.Module):
    """From one exit to the next: blocks, head."""

    def __init__(self, config: ViTConfig, blocks: int, last: bool) -> None:
        super().__init__()
        self.last = last
        self.blocks = nn.Sequential(*(Block(config) for _ in range(blocks)))
        self.head = ClassTokenHead(config)

    def forward(self, state: State) -> tuple[State, Tensor]:
        """Shapes: tokens (B, 1 + N, D) to the same and logits (B, classes)."""
        tokens = self.blocks(state[TOKENS])
        return {} if self.last else {TOKENS: tokens}, self.head(tokens)


class VisionTransformer(nn.Module):
    """A ViT cut after the blocks that `config.exits` names; it keeps the MultiExitNetwork protocol."""

    stages: nn.ModuleList

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.stages = nn.ModuleList()
        done = 0
        for end in config.exits:
            kind = FirstStage if done == 0 else LaterStage
            self.stages.append(kind(config, end - done, last=end == config.depth))
            done = end
        self.apply(_initialise)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Every exit's logits.

        Shapes: image (B, C, H, W); each output (B, classes).
        """
        state: State = {IMAGE: image}
        outputs: list[Tensor] = []
        for stage in self.stages:
            state, output = stage(state)
            outputs.append(output)
        return outputs


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=INIT_STD)
        nn.init.zeros_(module.bias)
    elif isinstance(module, FirstStage):
        nn.init.trunc_normal_(module.cls_token, std=INIT_STD)
        nn.init.trunc_normal_(module.pos_embed, std=INIT_STD)


# ViT-Tiny at 224 pixels (Touvron et al., ICML 2021: DeiT-Ti), with an exit after every third block.
VIT_TINY = ViTConfig(
    img_size=224,
    patch_size=16,
    in_chans=3,
    num_classes=1000,
    embed_dim=192,
    depth=12,
    num_heads=3,
    exits=(3, 6, 9, 12),
    mean=(0.485, 0.456, 0.406),  # ImageNet's, per channel
    std=(0.229, 0.224, 0.225),
)


def vit(config: ViTConfig, *, seed: int) -> VisionTransformer:
    """A network with weights drawn from `seed`; torch's own random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VisionTransformer(config)


def vit_tiny(*, seed: int = 0) -> VisionTransformer:
    """ViT-Tiny with four exits and random weights: the size for timing, not for answers."""
    return vit(VIT_TINY, seed=seed)
