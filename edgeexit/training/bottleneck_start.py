"""Where a bottleneck starts from: the directions of a boundary that its last exit feels most.

To second order, what the last exit's answer loses by a small error of the tokens is a quadratic form, the
Fisher information of the answer in the tokens. Among all linear maps to so many values, the principal
directions of the tokens measured in that form lose least of it. All of it is in closed form: a bottleneck is
useful before its first step of training, and training needs far fewer of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeexit.models.packers import Bottleneck
from edgeexit.models.protocol import MultiExitNetwork
from edgeexit.models.windows import FINER, HIGHEST, LOWEST, PATCHES, Windows, quantise
from edgeexit.training.boundary_samples import BoundarySamples, exit_answers

# A share of the form's mean is added in every direction: an answer that does not feel a direction at first
# order may at second, and the tokens should stay near those that the stages know.
EVEN_SHARE = 0.03

# Four bits hold whole numbers from -8 to 7: with this many to a standard deviation, few values are cut off.
LEVELS_PER_DEVIATION = 2.5

# Directions in which nothing varies would get endless weights.
LEAST_VARIANCE = 1e-12


@torch.no_grad()
def start_bottleneck(
    bottleneck: Bottleneck,
    network: MultiExitNetwork,
    boundary: int,
    samples: BoundarySamples,
    *,
    seed: int,
    most: int = 1_024,
    batch_size: int = 32,
) -> None:
    """Give a bottleneck the weights that lose least to second order, in place; the network stays as it is.

    At most `most` samples are looked at. Raises: nothing of its own.
    """
    windows = bottleneck.windows
    tokens = samples.tokens[:most]
    mean = tokens.float().mean(dim=0, keepdim=True)  # n T D -> 1 T D
    for half in (bottleneck.pack, bottleneck.unpack):
        half.mean.copy_(mean)
    felt_prefix, felt_windows = _felt(network, boundary, samples, windows, seed, most, batch_size)
    spread_prefix = spread_windows = torch.zeros(())
    for start in range(0, len(tokens), batch_size):
        prefix, members = _split(tokens[start : start + batch_size].float() - mean, windows)
        spread_prefix = spread_prefix + prefix.T @ prefix
        spread_windows = spread_windows + members.T @ members
    pack, unpack = bottleneck.pack, bottleneck.unpack
    spread_windows = spread_windows / (len(tokens) * windows.count)
    _give(pack.patches, unpack.patches, _principal(spread_windows, felt_windows, pack.patches.out_features))
    if pack.lead is not None and unpack.lead is not None:
        spread_prefix = spread_prefix / (len(tokens) * windows.prefix)
        into, back = _principal(spread_prefix, felt_prefix, pack.lead.out_features)
        coarse, other = back[:, : pack.quarter], back[:, pack.quarter :]
        _give(pack.lead, unpack.lead, (into, torch.cat((coarse, coarse / FINER, other), dim=1)))
    # As if every number had been seen once more than it was: none is impossible.
    counts = torch.ones_like(bottleneck.levels)
    for start in range(0, len(tokens), batch_size):
        values = bottleneck.pack(tokens[start : start + batch_size].float())
        numbers = quantise(values).flatten(0, 1).long() - LOWEST  # B G w -> BG w
        counts += F.one_hot(numbers, HIGHEST - LOWEST + 1).sum(dim=0)  # BG w 16 -> w 16
    bottleneck.levels.copy_(counts.log() - counts.sum(dim=1, keepdim=True).log())


def _split(tokens: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """Shapes: (B, T, D) to prefix tokens (B P, D) and windows (B M, 4 D)."""
    dim = tokens.shape[-1]
    members = torch.tensor(windows.members, device=tokens.device)
    prefix = tokens[:, : windows.prefix].reshape(-1, dim)  # B P D -> BP D
    return prefix, tokens[:, members].reshape(-1, PATCHES * dim)  # B 4M D -> BM 4D


def _felt(
    network: MultiExitNetwork,
    boundary: int,
    samples: BoundarySamples,
    windows: Windows,
    seed: int,
    most: int,
    batch_size: int,
) -> tuple[Tensor, Tensor]:
    """The Fisher information of the last answer in a prefix token and in a window, means over all of them.

    Shapes: (D, D), (4 D, 4 D).
    """
    generator = torch.Generator().manual_seed(seed)
    felt_prefix = felt_windows = torch.zeros(())
    for start in range(0, min(most, len(samples)), batch_size):
        tokens = samples.tokens[start : start + batch_size].float().requires_grad_()
        with torch.enable_grad():
            answer = exit_answers(network, boundary, {samples.tensor: tokens})[-1]
            shares = F.log_softmax(answer, dim=1)
            drawn = torch.multinomial(shares.detach().exp().cpu(), 1, generator=generator)
            (gradient,) = torch.autograd.grad(shares.gather(1, drawn.to(shares.device)).sum(), tokens)
        prefix, members = _split(gradient, windows)
        felt_prefix = felt_prefix + prefix.T @ prefix
        felt_windows = felt_windows + members.T @ members
    return felt_prefix, felt_windows


def _principal(spread: Tensor, felt: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The linear maps to so many values and back, from covariance and quadratic form.

    Values beyond the directions that there are stay zero. Shapes: (d, d) both; (width, d), (d, width).
    """
    size = len(spread)
    form = felt.double() + EVEN_SHARE * felt.double().diagonal().mean() * torch.eye(size, device=felt.device)
    root, inverse = _roots(form)
    variances, directions = torch.linalg.eigh(root @ spread.double() @ root)  # ascending
    kept = min(width, size)
    directions = directions.flip(1)[:, :kept]  # d d -> d k
    deviations = variances.flip(0)[:kept].clamp_min(LEAST_VARIANCE).sqrt()
    scale = LEVELS_PER_DEVIATION / deviations
    into = ((root @ directions) * scale).T.float()  # d k -> k d
    back = ((inverse @ directions) / scale).float()
    missing = width - kept
    return F.pad(into, (0, 0, 0, missing)), F.pad(back, (0, missing))


def _give(into: nn.Linear, back: nn.Linear, maps: tuple[Tensor, Tensor]) -> None:
    into.weight.copy_(maps[0])
    into.bias.zero_()
    back.weight.copy_(maps[1])


def _roots(form: Tensor) -> tuple[Tensor, Tensor]:
    """Square root of a symmetric positive matrix, and its inverse. Shapes: (d, d)."""
    values, vectors = torch.linalg.eigh(form)
    roots = values.clamp_min(values.max() * 1e-9 + 1e-30).sqrt()
    return (vectors * roots) @ vectors.T, (vectors / roots) @ vectors.T
