"""Packers of token boundaries: what a device sends instead of all tokens, and how a gateway gets them back.

Token reduction averages neighbouring patches and interpolates them again: two constant matrices. The learnt
bottleneck brings each token down to a few values that are rounded to four bits each, and a block of attention
on the gateway, which sees all tokens, makes up for what is missing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeexit.bundle.manifest import CodecName
from edgeexit.models.grid import square_grid
from edgeexit.models.protocol import State
from edgeexit.models.windows import HIGHEST, LOWEST, PATCHES, WindowPack, Windows, WindowUnpack


@dataclass(frozen=True, slots=True)
class PackerModules:
    """Both halves of a packer of one boundary, and the codecs that it stands behind.

    `pack` maps a boundary's state to a state of one tensor called `name`, `unpack` maps that back.
    """

    name: str
    boundary: int
    codecs: tuple[CodecName, ...]
    pack: nn.Module
    unpack: nn.Module


class Half(nn.Module):
    """A module of one tensor as a map from named arguments to named outputs."""

    def __init__(self, module: nn.Module, takes: str, gives: str) -> None:
        super().__init__()
        self.module = module
        self.takes = takes
        self.gives = gives

    # The argument's name is the tensor's, so it is data, not code.
    def forward(self, **state: Tensor) -> State:
        """Shapes: those of the module."""
        return {self.gives: self.module(state[self.takes])}


class Mixing(nn.Module):
    """Every token a fixed mixture of tokens."""

    weights: Tensor

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Shapes: (B, N, D) to (B, M, D), with weights (M, N)."""
        return torch.matmul(self.weights, tokens)  # M N, B N D -> B M D


def pooling(tensor: str, tokens: int, boundary: int) -> PackerModules:
    """Token reduction: the mean of each two by two patches, interpolated between their centres.

    Prefix tokens are kept as they are. Raises: UnsupportedModel.
    """
    prefix, side = square_grid(tokens)
    half = -(-side // 2)
    down, up = torch.zeros(half, side), torch.zeros(side, half)
    for place in range(half):
        window = range(2 * place, min(2 * place + 2, side))
        down[place, list(window)] = 1.0 / len(window)
    for place in range(side):
        # Centres of the windows lie at 0.5, 2.5, …; beyond the outer ones their value holds.
        at = min(max((place - 0.5) / 2.0, 0.0), half - 1.0)
        left = min(int(at), half - 2) if half > 1 else 0
        up[place, left] += 1.0 - (at - left)
        up[place, min(left + 1, half - 1)] += at - left
    name = "pool4"
    return PackerModules(
        name=name,
        boundary=boundary,
        codecs=("pool4-int8", "pool4-int4"),
        pack=Half(Mixing(_beside_prefix(prefix, torch.kron(down, down))), tensor, name),
        unpack=Half(Mixing(_beside_prefix(prefix, torch.kron(up, up))), name, tensor),
    )


def _beside_prefix(prefix: int, patches: Tensor) -> Tensor:
    """Shapes: patches (M, N); result (P + M, P + N)."""
    rows, columns = patches.shape
    whole = torch.zeros(prefix + rows, prefix + columns)
    whole[:prefix, :prefix] = torch.eye(prefix)
    whole[prefix:, prefix:] = patches
    return whole


class Narrowed(nn.Module):
    """The first values alone of what a wider bottleneck gives."""

    def __init__(self, wide: nn.Module, width: int) -> None:
        super().__init__()
        self.wide = wide
        self.width = width

    def forward(self, tokens: Tensor) -> Tensor:
        """Shapes: (B, N, D) to (B, N, width)."""
        values: Tensor = self.wide(tokens)
        return values[..., : self.width]


class Widened(nn.Module):
    """A wider bottleneck's way back, with zeros for the values that were not sent."""

    def __init__(self, wide: nn.Module, width: int, missing: int) -> None:
        super().__init__()
        self.wide = wide
        self.width = width
        self.missing = missing

    def forward(self, values: Tensor) -> Tensor:
        """Shapes: (B, N, width) to (B, N, D)."""
        restored: Tensor = self.wide(nn.functional.pad(values, (0, self.missing)))
        return restored


BOTTLENECK_WIDTHS: tuple[int, ...] = (8, 4, 2)

_BOTTLENECK_CODECS: dict[int, tuple[CodecName, ...]] = {
    8: ("bottleneck8", "bottleneck8-zstd"),
    4: ("bottleneck4", "bottleneck4-zstd"),
    2: ("bottleneck2", "bottleneck2-zstd"),
}


class Bottleneck(nn.Module):
    """A bottleneck of several widths in one: a narrower one sends the first values of a wider one.

    A width counts values a patch: a window of four patches, and each prefix token, has four times as many.
    `levels` (4 · width, 16) are the logarithms, up to a constant, of how often each value takes each number:
    the prior that tells training what a value costs to send.
    """

    def __init__(self, dim: int, tokens: int, *, blocks: int = 2, width: int = BOTTLENECK_WIDTHS[0]) -> None:
        super().__init__()
        self.windows = Windows.of(tokens)
        self.pack = WindowPack(dim, self.windows, PATCHES * width)
        self.unpack = WindowUnpack(dim, self.windows, PATCHES * width, blocks)
        self.levels = nn.Parameter(torch.zeros(PATCHES * width, HIGHEST - LOWEST + 1))

    def halves(self, tensor: str, boundary: int) -> tuple[PackerModules, ...]:
        """A packer for each width."""
        made = []
        most = self.levels.shape[0]
        for width in BOTTLENECK_WIDTHS:
            name, sent = f"bottleneck{width}", PATCHES * width
            pack: nn.Module = self.pack if sent == most else Narrowed(self.pack, sent)
            unpack: nn.Module = self.unpack if sent == most else Widened(self.unpack, sent, most - sent)
            made.append(
                PackerModules(
                    name=name,
                    boundary=boundary,
                    codecs=_BOTTLENECK_CODECS[width],
                    pack=Half(pack, tensor, name),
                    unpack=Half(unpack, name, tensor),
                )
            )
        return tuple(made)
