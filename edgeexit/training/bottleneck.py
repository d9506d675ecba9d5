"""Training a bottleneck: the deeper stages, frozen, say what their exits lose by what it leaves out.

It starts from the directions that the last exit feels most (`bottleneck_start`). The loss is distillation of
the deeper exits through the quantiser, the relative error of the tokens, and the bits that the values would
cost under a prior which is learnt beside: bits are only spent where they pay. Tensors and answers of the
frozen network are computed once, so that a step runs the bottleneck and the stages behind it alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from edgeexit.errors import TrainingDiverged
from edgeexit.models.packers import BOTTLENECK_WIDTHS, Bottleneck
from edgeexit.models.protocol import MultiExitNetwork
from edgeexit.models.windows import HIGHEST, LOWEST, PATCHES, quantise
from edgeexit.training.batches import BatchSource
from edgeexit.training.bottleneck_start import start_bottleneck
from edgeexit.training.boundary_samples import BoundarySamples, boundary_samples, exit_answers
from edgeexit.training.schedule import learning_rate_factor

# Exits before the last one also answer at a gateway that runs out of time; the last one is what counts.
EARLIER_EXITS = 0.25
# Keeps the tokens near those that the stages know, without deciding what is worth keeping of them.
TOKEN_ERROR = 0.02

REPORT_INTERVAL_S = 5.0


@dataclass(frozen=True, slots=True)
class BottleneckTraining:
    """How a bottleneck is trained: until so many samples, or so many seconds if these pass first.

    Samples beyond `kept_samples`, or beyond what fits into `kept_bytes`, are kept ones again, in another
    order.
    Units: seconds, of the steps; nats_per_bit, what a bit a token may cost of the distillation loss.
    """

    samples: int
    seconds: float | None = None
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup_fraction: float = 0.05
    # At three thousandths of a nat a bit, the bits that say nothing of the answer go first.
    nats_per_bit: float = 0.003
    kept_samples: int = 8_000
    kept_bytes: int = 2**30
    seed: int = 0


@dataclass(frozen=True, slots=True)
class BottleneckProgress:
    """Where training is. Units: bits_per_token, under the prior; distillation, nats, of the last exit.

    Both are recent means over all widths.
    """

    samples: int
    fraction: float
    elapsed_s: float
    distillation: float
    bits_per_token: float


def train_bottleneck(
    network: MultiExitNetwork,
    boundary: int,
    bottleneck: Bottleneck,
    source: BatchSource,
    config: BottleneckTraining,
    *,
    clock_s: Callable[[], float],
    progress: Callable[[BottleneckProgress], None] = lambda state: None,
) -> BottleneckProgress:
    """Train in place, the network as it is; each batch at one of the widths, in turn.

    The boundary must hold one tensor of tokens. Both are left in evaluation mode.
    Raises: ConfigError for another boundary, TrainingDiverged.
    """
    stages = network.stages.eval()
    learning = [parameter.requires_grad for parameter in stages.parameters()]
    stages.requires_grad_(False)
    try:
        samples = boundary_samples(
            network,
            boundary,
            source,
            most=min(config.samples, config.kept_samples),
            most_bytes=config.kept_bytes,
            batch_size=config.batch_size,
            device=next(bottleneck.parameters()).device,
        )
        start_bottleneck(bottleneck, network, boundary, samples, seed=config.seed)
        return fit_bottleneck(
            network, boundary, bottleneck, samples, config, clock_s=clock_s, progress=progress
        )
    finally:
        for parameter, needed in zip(stages.parameters(), learning, strict=True):
            parameter.requires_grad_(needed)


def fit_bottleneck(
    network: MultiExitNetwork,
    boundary: int,
    bottleneck: Bottleneck,
    samples: BoundarySamples,
    config: BottleneckTraining,
    *,
    clock_s: Callable[[], float],
    progress: Callable[[BottleneckProgress], None] = lambda state: None,
) -> BottleneckProgress:
    """The steps alone, from the bottleneck as it is, over samples in a new order each time round.

    The network's parameters must need no gradients. Raises: TrainingDiverged.
    """
    bottleneck.train()
    optimizer = torch.optim.AdamW(
        bottleneck.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    generator = torch.Generator().manual_seed(config.seed)
    order = torch.empty(0, dtype=torch.long)
    recent: list[tuple[float, float]] = []
    state = BottleneckProgress(0, 0.0, 0.0, 0.0, 0.0)
    started_s = reported_s = clock_s()
    number = 0
    while state.fraction < 1.0:
        factor = learning_rate_factor(state.fraction, config.warmup_fraction)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * factor
        while len(order) < config.batch_size:
            order = torch.cat((order, torch.randperm(len(samples), generator=generator)))
        chosen, order = order[: config.batch_size], order[config.batch_size :]
        width = BOTTLENECK_WIDTHS[number % len(BOTTLENECK_WIDTHS)]
        loss, distillation, bits = _loss(network, boundary, bottleneck, samples, chosen, width, config)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(bottleneck.parameters(), 1.0)
        if not torch.isfinite(loss.detach() + norm):
            raise TrainingDiverged(loss=float(loss.detach()), gradient_norm=float(norm), batch=number)
        optimizer.step()
        number += 1
        recent.append((float(distillation), float(bits)))
        now_s = clock_s()
        elapsed_s = now_s - started_s
        done = number * config.batch_size / config.samples
        late = 0.0 if config.seconds is None else elapsed_s / config.seconds
        means = [sum(column) / len(recent) for column in zip(*recent, strict=True)]
        state = BottleneckProgress(
            number * config.batch_size, min(1.0, max(done, late)), elapsed_s, means[0], means[1]
        )
        if state.fraction >= 1.0 or now_s - reported_s >= REPORT_INTERVAL_S:
            reported_s = now_s
            recent.clear()
            progress(state)
    bottleneck.eval()
    return state


def _loss(
    network: MultiExitNetwork,
    boundary: int,
    bottleneck: Bottleneck,
    samples: BoundarySamples,
    chosen: Tensor,
    width: int,
    config: BottleneckTraining,
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, and of it the last exit's distillation (nats) and the bits a token."""
    tokens = samples.tokens[chosen].float()
    values = bottleneck.pack(tokens)  # B T D -> B G 4w
    sent_width = PATCHES * width
    # The values that a narrower bottleneck does not send arrive as zeros.
    sent = quantise(values[..., :sent_width])
    restored = bottleneck.unpack(F.pad(sent, (0, values.shape[-1] - sent_width)))
    learnt = exit_answers(network, boundary, {samples.tensor: restored})
    losses = [
        F.kl_div(
            F.log_softmax(ours, 1), F.log_softmax(theirs[chosen], 1), reduction="batchmean", log_target=True
        )
        for ours, theirs in zip(learnt, samples.answers, strict=True)
    ]
    error = (restored - tokens).square().mean() / tokens.var()
    # A row of values stands for a window: a token's share of all rows.
    rows = bottleneck.windows.groups / bottleneck.windows.tokens
    bits = rows * bits_per_row(values[..., :sent_width], bottleneck.levels[:sent_width])
    loss = losses[-1] + TOKEN_ERROR * error + config.nats_per_bit * bits
    for earlier in losses[:-1]:
        loss = loss + EARLIER_EXITS * earlier
    return loss, losses[-1].detach(), bits.detach()


def bits_per_row(values: Tensor, levels: Tensor) -> Tensor:
    """What a row of values costs under the prior, between two whole numbers in proportion.

    So it has a gradient for the values as well as for the prior.
    Shapes: values (B, G, w), levels (w, 16); a scalar. Units: bits.
    """
    costs = -F.log_softmax(levels, dim=1) / torch.log(torch.tensor(2.0))  # w 16
    within = values.clamp(LOWEST, HIGHEST) - LOWEST
    lower = within.detach().floor().clamp(max=HIGHEST - LOWEST - 1)
    share = within - lower
    place = lower.long()
    channel = torch.arange(values.shape[-1], device=values.device)
    cost = (1.0 - share) * costs[channel, place] + share * costs[channel, place + 1]  # B N w
    return cost.sum(dim=-1).mean()
