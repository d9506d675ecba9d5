"""Training a bottleneck: the deeper stages, frozen, say what their exits lose by what it leaves out.

The loss is distillation of the deeper exits through the quantiser, the relative error of the tokens, and the
bits that the values would cost under a prior which is learnt beside: bits are only spent where they pay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from edgeexit.errors import ConfigError, TrainingDiverged
from edgeexit.models.packers import BOTTLENECK_WIDTHS, HIGHEST, LOWEST, Bottleneck, quantise
from edgeexit.models.protocol import IMAGE, MultiExitNetwork, State, run_stage
from edgeexit.training.batches import BatchSource
from edgeexit.training.schedule import learning_rate_factor

# Exits before the last one also answer at a gateway that runs out of time; the last one is what counts.
EARLIER_EXITS = 0.25
# Keeps the tokens near those that the stages know, without deciding what is worth keeping of them.
TOKEN_ERROR = 0.2

REPORT_INTERVAL_S = 5.0


@dataclass(frozen=True, slots=True)
class BottleneckTraining:
    """How a bottleneck is trained: until so many samples, or so many seconds if these pass first.

    Units: nats_per_bit, what a bit a token may cost of the distillation loss.
    """

    samples: int
    seconds: float | None = None
    batch_size: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup_fraction: float = 0.05
    # At half a hundredth of a nat a bit, the bits that say nothing of the answer go first.
    nats_per_bit: float = 0.005
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
    bottleneck.train()
    device = next(bottleneck.parameters()).device
    optimizer = torch.optim.AdamW(
        bottleneck.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    recent: list[tuple[float, float]] = []
    state = BottleneckProgress(0, 0.0, 0.0, 0.0, 0.0)
    started_s = reported_s = clock_s()
    number = 0
    try:
        while state.fraction < 1.0:
            factor = learning_rate_factor(state.fraction, config.warmup_fraction)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * factor
            samples = source.batch(number, config.batch_size)
            images = torch.from_numpy(samples.images).to(device)
            width = BOTTLENECK_WIDTHS[number % len(BOTTLENECK_WIDTHS)]
            loss, distillation, bits = _loss(network, boundary, bottleneck, images, width, config)
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
    finally:
        for parameter, needed in zip(stages.parameters(), learning, strict=True):
            parameter.requires_grad_(needed)
        bottleneck.eval()
    return state


def _loss(
    network: MultiExitNetwork,
    boundary: int,
    bottleneck: Bottleneck,
    images: Tensor,
    width: int,
    config: BottleneckTraining,
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, and of it the last exit's distillation (nats) and the bits a token."""
    with torch.no_grad():
        state: State = {IMAGE: images}
        for stage in range(boundary):
            state, _ = run_stage(network, stage, state)
        taught = _exits(network, boundary, state)
    if len(state) != 1:
        raise ConfigError(
            "this boundary has no bottleneck",
            key="boundary",
            why=f"it holds {len(state)} tensors, one is wanted",
        )
    ((name, tokens),) = state.items()
    values = bottleneck.pack(tokens)  # B N D -> B N w
    # The values that a narrower bottleneck does not send arrive as zeros.
    sent = quantise(values[..., :width])
    restored = bottleneck.unpack(F.pad(sent, (0, values.shape[-1] - width)))
    learnt = _exits(network, boundary, {name: restored})
    losses = [
        F.kl_div(F.log_softmax(ours, 1), F.log_softmax(theirs, 1), reduction="batchmean", log_target=True)
        for ours, theirs in zip(learnt, taught, strict=True)
    ]
    error = (restored - tokens).square().mean() / tokens.var()
    bits = bits_per_token(values[..., :width], bottleneck.levels[:width])
    loss = losses[-1] + TOKEN_ERROR * error + config.nats_per_bit * bits
    for earlier in losses[:-1]:
        loss = loss + EARLIER_EXITS * earlier
    return loss, losses[-1].detach(), bits.detach()


def bits_per_token(values: Tensor, levels: Tensor) -> Tensor:
    """What the values of a token cost under the prior, between two whole numbers in proportion.

    So it has a gradient for the values as well as for the prior.
    Shapes: values (B, N, w), levels (w, 16); a scalar. Units: bits.
    """
    costs = -F.log_softmax(levels, dim=1) / torch.log(torch.tensor(2.0))  # w 16
    within = values.clamp(LOWEST, HIGHEST) - LOWEST
    lower = within.detach().floor().clamp(max=HIGHEST - LOWEST - 1)
    share = within - lower
    place = lower.long()
    channel = torch.arange(values.shape[-1], device=values.device)
    cost = (1.0 - share) * costs[channel, place] + share * costs[channel, place + 1]  # B N w
    return cost.sum(dim=-1).mean()


def _exits(network: MultiExitNetwork, boundary: int, state: State) -> list[Tensor]:
    outputs = []
    for stage in range(boundary, len(network.stages)):
        state, output = run_stage(network, stage, state)
        outputs.append(output)
    return outputs
