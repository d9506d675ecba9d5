"""The training loop: Muon and AdamW, warm-up and cosine, fitted into a budget of samples and of seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi

import torch
from torch import nn

from edgeexit.models.protocol import MultiExitNetwork, run_exits
from edgeexit.training.batches import BatchSource
from edgeexit.training.muon import Muon
from edgeexit.training.objective import exit_losses, joint_loss


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How a network is trained.

    Training ends after `samples` images, or after `seconds` if these pass first; the learning rate
    follows whichever of the two is further spent, so it is always back near zero at the end. With
    enough seconds the result depends on the seed alone; seconds=None waits for the samples.
    """

    samples: int
    seconds: float | None = None
    batch_size: int = 64
    # Best of 3, 6 and 12 thousandths for a ViT of 96 × 8 blocks on 16,000 canvases, by accuracy held out.
    learning_rate: float = 6e-3
    weight_decay: float = 0.05
    # A ViT without warm-up diverges at rates that it takes well afterwards.
    warmup_fraction: float = 0.08
    final_weight: float = 2.0
    # Gradients of a pre-norm ViT stay below this but for rare spikes early on.
    clip_norm: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse budgets that end before they begin.

        Raises: ValueError.
        """
        if self.samples < 1 or self.batch_size < 1 or (self.seconds is not None and self.seconds <= 0):
            raise ValueError("samples, batch_size and seconds must be over 0")


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """Where training is. Units: fraction of the budget spent, 0 to 1; losses, one an exit, recent mean."""

    samples: int
    fraction: float
    elapsed_s: float
    learning_rate: float
    losses: tuple[float, ...]


# Narrower matrices give the logits of an exit; Muon is for what lies between layers.
MUON_SIDE = 32

# Reports are made this often: seldom enough to cost nothing, often enough to be seen moving.
REPORT_INTERVAL_S = 5.0


def train(
    network: MultiExitNetwork,
    source: BatchSource,
    config: TrainingConfig,
    *,
    clock_s: Callable[[], float],
    progress: Callable[[TrainingProgress], None],
) -> TrainingProgress:
    """Train all exits jointly, in place; where it ended. `clock_s` is a monotonic clock in seconds.

    The network is left in evaluation mode; torch's random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network.stages.train()
        try:
            return _train(network, source, config, clock_s, progress)
        finally:
            network.stages.eval()


def _train(
    network: MultiExitNetwork,
    source: BatchSource,
    config: TrainingConfig,
    clock_s: Callable[[], float],
    progress: Callable[[TrainingProgress], None],
) -> TrainingProgress:
    optimizers = _optimizers(network.stages, config)
    started_s = reported_s = clock_s()
    number = 0
    recent: list[torch.Tensor] = []
    state = TrainingProgress(samples=0, fraction=0.0, elapsed_s=0.0, learning_rate=0.0, losses=())
    while state.fraction < 1.0:
        rate = config.learning_rate * learning_rate_factor(state.fraction, config.warmup_fraction)
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = rate
        samples = source.batch(number, config.batch_size)
        losses = exit_losses(
            run_exits(network, torch.from_numpy(samples.images)), torch.from_numpy(samples.targets)
        )
        network.stages.zero_grad(set_to_none=True)
        joint_loss(losses, final_weight=config.final_weight).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.stages.parameters(), config.clip_norm)
        for optimizer in optimizers:
            optimizer.step()
        number += 1
        recent.append(losses.detach())
        now_s = clock_s()
        state = TrainingProgress(
            samples=number * config.batch_size,
            fraction=spent_fraction(number * config.batch_size, now_s - started_s, config),
            elapsed_s=now_s - started_s,
            learning_rate=rate,
            losses=state.losses,
        )
        if state.fraction >= 1.0 or now_s - reported_s >= REPORT_INTERVAL_S:
            state = _with_losses(state, recent)
            recent.clear()
            reported_s = now_s
            progress(state)
    return state


def spent_fraction(samples: int, elapsed_s: float, config: TrainingConfig) -> float:
    """How much of the budget is gone, 0 to 1: of samples or of seconds, whichever is further."""
    by_samples = samples / config.samples
    by_seconds = 0.0 if config.seconds is None else elapsed_s / config.seconds
    return min(1.0, max(by_samples, by_seconds))


def learning_rate_factor(fraction: float, warmup_fraction: float) -> float:
    """Linear warm-up, then half a cosine: 0 to 1 and back to 0 over the budget."""
    if fraction < warmup_fraction:
        # A first step at exactly zero would learn nothing.
        return max(fraction / warmup_fraction, 0.01)
    return 0.5 * (1.0 + cos(pi * (fraction - warmup_fraction) / (1.0 - warmup_fraction)))


def _optimizers(stages: nn.ModuleList, config: TrainingConfig) -> list[torch.optim.Optimizer]:
    """Muon for the linear layers, AdamW for all else; vectors, class token and positions do not decay."""
    hidden = {
        id(module.weight)
        for module in stages.modules()
        if isinstance(module, nn.Linear) and min(module.weight.shape) >= MUON_SIDE
    }
    matrices: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in stages.named_parameters():
        if id(parameter) in hidden:
            matrices.append(parameter)
        elif parameter.ndim >= 2 and not name.endswith(("cls_token", "pos_embed")):
            decayed.append(parameter)
        else:
            kept.append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), fused=True)
    ]
    if matrices:
        optimizers.append(Muon(matrices, lr=config.learning_rate, weight_decay=config.weight_decay))
    return optimizers


def _with_losses(state: TrainingProgress, recent: list[torch.Tensor]) -> TrainingProgress:
    mean = torch.stack(recent).mean(dim=0)  # steps of (K,) -> K
    return TrainingProgress(
        samples=state.samples,
        fraction=state.fraction,
        elapsed_s=state.elapsed_s,
        learning_rate=state.learning_rate,
        losses=tuple(float(loss) for loss in mean),
    )
