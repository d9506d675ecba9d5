"""Merging of tokens: what is alike becomes one, and the gateway is told which token went where.

Every round parts the tokens in two, brings each of one half to the one most like it in the other half, and
takes the mean, weighted by how many tokens are in each already: half as many are left, whatever they hold.
Unlike pooling it follows the picture: a plain background becomes one token, an edge keeps several.
Source: Bolya et al., Token Merging: Your ViT But Faster, 2023; here with all of a half merged, so that shapes
stay fixed, and with the map sent along, so that the deeper stages get as many tokens as they were made for.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeexit.bundle.manifest import CodecName
from edgeexit.errors import UnsupportedModel
from edgeexit.models.grid import square_grid
from edgeexit.models.packers import PackerModules
from edgeexit.models.protocol import State

# Tokens in one, and the rounds that it takes.
MERGED_ROUNDS: dict[int, int] = {4: 2, 8: 3, 16: 4}

_CODECS: dict[int, tuple[CodecName, ...]] = {
    4: ("merge4-int8", "merge4-int4"),
    8: ("merge8-int8", "merge8-int4"),
    16: ("merge16-int8", "merge16-int4"),
}

# What a place takes on the wire: a byte, or half of one where there are no more places than that.
_MOST_PLACES = 256
_NIBBLE_PLACES = 16


class _MergeHalf(nn.Module):
    """What both halves know: names of tensors, how many tokens come first, and how many each round leaves."""

    def __init__(self, name: str, tensor: str, prefix: int, patches: int, rounds: int) -> None:
        super().__init__()
        self.name = name
        self.tensor = tensor
        self.prefix = prefix
        self.counts = _counts(patches, rounds)


class MergePack(_MergeHalf):
    """What the device computes: the merged tokens, and for each patch which of them it is in now."""

    # The argument's name is the tensor's, so it is data, not code.
    def forward(self, **state: Tensor) -> State:
        """Shapes: tokens (1, P + N, D) to (1, P + K, D) and places (1, N), or (1, N/2) of two each."""
        tokens = state[self.tensor]
        left = tokens[:, self.prefix :]  # 1 P+N D -> 1 N D
        sizes = torch.ones_like(left[:, :, :1])  # 1 N D -> 1 N 1
        steps = []
        for count in self.counts[:-1]:
            kept, gone = left[:, 0::2], left[:, 1::2]  # 1 n D -> 1 k D, 1 g D
            kept_sizes, gone_sizes = sizes[:, 0::2], sizes[:, 1::2]  # 1 n 1 -> 1 k 1, 1 g 1
            alike = torch.matmul(_unit(gone), _unit(kept).transpose(1, 2))  # 1 g k
            nearest = alike.argmax(dim=-1)  # 1 g k -> 1 g
            to = _one_hot(nearest, kept.shape[1])  # 1 g -> 1 g k
            into = to.transpose(1, 2)  # 1 k g
            sizes = kept_sizes + torch.matmul(into, gone_sizes)  # 1 k 1
            left = (kept * kept_sizes + torch.matmul(into, gone * gone_sizes)) / sizes  # 1 k D
            steps.append((to, count))
        places = torch.arange(self.counts[-1], dtype=torch.float32).reshape(1, -1, 1)  # 1 K 1
        for to, count in reversed(steps):
            places = _interleaved(places, torch.matmul(to, places), count)  # 1 k 1 -> 1 n 1
        return {
            self.name: torch.cat([tokens[:, : self.prefix], left], dim=1),  # 1 P+K D
            places_name(self.name): _stored(places.flatten(1), self.counts),
        }


class MergeUnpack(_MergeHalf):
    """What the gateway computes: each patch becomes the token that it went into."""

    def forward(self, **state: Tensor) -> State:
        """Shapes: as `MergePack`, the other way round."""
        tokens = state[self.name]
        stored = state[places_name(self.name)].to(torch.float32)
        if self.counts[-1] <= _NIBBLE_PLACES:
            upper = torch.floor(stored / _NIBBLE_PLACES)  # 1 N/2
            lower = stored - upper * _NIBBLE_PLACES
            stored = torch.stack([upper, lower], dim=-1).flatten(1)  # 1 N/2 -> 1 N
            stored = stored[:, : self.counts[0]]
        places = torch.arange(self.counts[-1], dtype=torch.float32)
        chosen = (stored[:, :, None] == places).to(torch.float32)  # 1 N -> 1 N K
        patches = torch.matmul(chosen, tokens[:, self.prefix :])  # 1 N K, 1 K D -> 1 N D
        return {self.tensor: torch.cat([tokens[:, : self.prefix], patches], dim=1)}


def merging(tensor: str, tokens: int, boundary: int, merged: int) -> PackerModules:
    """Token reduction that makes `merged` patches one, on average, by what they hold.

    Prefix tokens are kept as they are. Raises: UnsupportedModel where so many tokens cannot be merged so far.
    """
    prefix, side = square_grid(tokens)
    rounds, patches = MERGED_ROUNDS[merged], side * side
    counts = _counts(patches, rounds)
    if counts[-1] < 2 or counts[-1] > _MOST_PLACES:
        raise UnsupportedModel(
            f"{patches} patches cannot be merged {merged} in one",
            expected=f"2 to {_MOST_PLACES} tokens afterwards",
        )
    name = f"merge{merged}"
    return PackerModules(
        name=name,
        boundary=boundary,
        codecs=_CODECS[merged],
        pack=MergePack(name, tensor, prefix, patches, rounds),
        unpack=MergeUnpack(name, tensor, prefix, patches, rounds),
    )


def places_name(name: str) -> str:
    """What the tensor is called that says where each patch went."""
    return f"{name}_places"


def _counts(patches: int, rounds: int) -> tuple[int, ...]:
    """How many tokens there are before the first round, and after each."""
    counts = [patches]
    for _ in range(rounds):
        counts.append((counts[-1] + 1) // 2)
    return tuple(counts)


def _unit(tokens: Tensor) -> Tensor:
    """Shapes: kept."""
    lengths: Tensor = (tokens * tokens).sum(dim=-1, keepdim=True)  # 1 n D -> 1 n 1
    return tokens * torch.rsqrt(lengths + 1e-12)


def _one_hot(indices: Tensor, count: int) -> Tensor:
    """Shapes: (1, n) to (1, n, count)."""
    return (indices[:, :, None] == torch.arange(count)).to(torch.float32)


def _interleaved(kept: Tensor, gone: Tensor, count: int) -> Tensor:
    """Shapes: (1, k, 1) and (1, g, 1) to (1, count, 1)."""
    padded = F.pad(gone, (0, 0, 0, kept.shape[1] - gone.shape[1]))  # 1 g 1 -> 1 k 1
    return torch.stack([kept, padded], dim=2).flatten(1, 2)[:, :count]  # 1 k 2 1 -> 1 2k 1 -> 1 n 1


def _stored(places: Tensor, counts: tuple[int, ...]) -> Tensor:
    """Places as bytes, two in one where they fit. Shapes: (1, N) to (1, N), or (1, N/2)."""
    if counts[-1] > _NIBBLE_PLACES:
        return places.to(torch.uint8)
    even = F.pad(places, (0, counts[0] % 2))  # 1 N -> 1 N or N+1
    pairs = even.reshape(1, -1, 2)  # 1 N -> 1 N/2 2
    return (pairs[:, :, 0] * _NIBBLE_PLACES + pairs[:, :, 1]).to(torch.uint8)
