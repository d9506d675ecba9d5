"""Bottlenecks by windows of two by two patches: what the device computes, and what the gateway.

Neighbouring patches say much the same, so the values of a window are made of all its patches at once. Prefix
tokens have values of their own, as many as a window, because exits read them: the first quarter of these
says what matters most, the second what rounding left of the first. Each half is a linear map, which training
starts from principal directions, with a learnt correction beside it that begins at nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeexit.errors import UnsupportedModel
from edgeexit.models.encoder import EncoderBlock
from edgeexit.models.grid import square_grid
from edgeexit.models.vit import INIT_STD

# Patches of a window: two by two.
PATCHES = 4

# A value of four bits: the whole numbers between these.
LOWEST, HIGHEST = -8, 7

# What rounding leaves lies within half a number: so many times as large it fills four bits.
FINER = 15.0

# Channels that one head of attention sees in every ViT of the families known.
HEAD_DIM = 32


@dataclass(frozen=True, slots=True)
class Windows:
    """Which tokens are prefix tokens, and which four each window holds.

    `members` (windows · 4,) are places among all tokens, window by window; at an odd edge a token stands in
    for one that is not there. `places` (patches,) is where each patch is among the members.
    """

    tokens: int
    prefix: int
    members: tuple[int, ...]
    places: tuple[int, ...]

    @classmethod
    def of(cls, tokens: int) -> Windows:
        """Squares of patches where tokens are those of a square image, else four in a row."""
        try:
            prefix, side = square_grid(tokens)
        except UnsupportedModel:
            return cls._made(tokens, 0, [list(range(at, at + PATCHES)) for at in range(0, tokens, PATCHES)])
        last = side - 1
        squares = [
            [
                prefix + min(row + down, last) * side + min(column + right, last)
                for down in (0, 1)
                for right in (0, 1)
            ]
            for row in range(0, side, 2)
            for column in range(0, side, 2)
        ]
        return cls._made(tokens, prefix, squares)

    @classmethod
    def _made(cls, tokens: int, prefix: int, windows: list[list[int]]) -> Windows:
        members = [min(member, tokens - 1) for window in windows for member in window]
        return cls(
            tokens, prefix, tuple(members), tuple(members.index(place) for place in range(prefix, tokens))
        )

    @property
    def count(self) -> int:
        """How many windows there are."""
        return len(self.members) // PATCHES

    @property
    def groups(self) -> int:
        """Rows of values that are sent: prefix tokens, then windows."""
        return self.prefix + self.count


class WindowPack(nn.Module):
    """What the device computes: a few values for each prefix token and window, the most useful first."""

    members: Tensor

    def __init__(self, dim: int, windows: Windows, width: int) -> None:
        super().__init__()
        self.prefix = windows.prefix
        self.register_buffer("members", torch.tensor(windows.members), persistent=False)
        self.mean = nn.Parameter(torch.zeros(1, windows.tokens, dim))
        self.patches = nn.Linear(PATCHES * dim, width)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.fc1 = nn.Linear(dim, dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(PATCHES * dim, width, bias=False)
        nn.init.zeros_(self.fc2.weight)
        self.quarter = width // 4
        self.lead = nn.Linear(dim, width - self.quarter) if windows.prefix else None

    def forward(self, tokens: Tensor) -> Tensor:
        """Values that are still to be rounded. Shapes: (B, T, D) to (B, groups, width)."""
        features = self.act(self.fc1(self.norm(tokens)))
        tokens = tokens - self.mean
        values: Tensor = self.patches(self._windows(tokens)) + self.fc2(self._windows(features))
        if self.lead is None:
            return values
        lead: Tensor = self.lead(tokens[:, : self.prefix])  # B P D -> B P 3w/4
        coarse, other = lead[..., : self.quarter], lead[..., self.quarter :]
        left = FINER * (coarse - quantise(coarse))
        lead = torch.cat((coarse, left, other), dim=2)  # B P w
        return torch.cat((lead, values), dim=1)  # B P+M w

    def _windows(self, tokens: Tensor) -> Tensor:
        """Shapes: (B, T, D) to (B, windows, 4 D)."""
        chosen = torch.index_select(tokens, 1, self.members)  # B T D -> B 4M D
        return chosen.reshape(chosen.shape[0], -1, PATCHES * chosen.shape[2])  # B 4M D -> B M 4D


class WindowUnpack(nn.Module):
    """What the gateway computes: tokens from a few values each, with a look at all the others."""

    places: Tensor

    def __init__(self, dim: int, windows: Windows, width: int, blocks: int) -> None:
        super().__init__()
        self.prefix = windows.prefix
        self.dim = dim
        self.register_buffer("places", torch.tensor(windows.places), persistent=False)
        self.mean = nn.Parameter(torch.zeros(1, windows.tokens, dim))
        self.patches = nn.Linear(width, PATCHES * dim, bias=False)
        self.lead = nn.Linear(width, dim, bias=False) if windows.prefix else None
        heads = max(1, dim // HEAD_DIM)
        heads = heads if dim % heads == 0 else 1
        self.fc = nn.Linear(width, dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, windows.groups, dim))
        nn.init.trunc_normal_(self.pos_embed, std=INIT_STD)
        self.blocks = nn.Sequential(*(EncoderBlock(dim, heads, 2 * dim) for _ in range(blocks)))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.out = nn.Linear(dim, PATCHES * dim)
        self.lead_out = nn.Linear(dim, dim) if windows.prefix else None
        for layer in (self.out, self.lead_out):
            if layer is not None:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, values: Tensor) -> Tensor:
        """Shapes: (B, groups, width) to (B, T, D)."""
        seen = self.norm(self.blocks(self.fc(values) + self.pos_embed))  # B G w -> B G D
        windows = self.patches(values[:, self.prefix :]) + self.out(seen[:, self.prefix :])  # B M 4D
        members = windows.reshape(windows.shape[0], -1, self.dim)  # B M 4D -> B 4M D
        tokens = torch.index_select(members, 1, self.places)  # B 4M D -> B N D
        if self.lead is not None and self.lead_out is not None:
            lead = self.lead(values[:, : self.prefix]) + self.lead_out(seen[:, : self.prefix])  # B P D
            tokens = torch.cat((lead, tokens), dim=1)  # B P D, B N D -> B T D
        return tokens + self.mean


def quantise(values: Tensor) -> Tensor:
    """Whole numbers of four bits; backwards as if nothing had been rounded. Shapes: kept.

    Source: straight-through estimator, Bengio, Léonard, Courville, 2013.
    """
    within = values.clamp(LOWEST, HIGHEST)
    rounded: Tensor = within + (within.round() - within).detach()
    return rounded
