"""How long a network is trained, how fast, and how training tells where it is."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi
from typing import Literal

OptimizerKind = Literal["muon", "adamw", "sgd"]
HalfKind = Literal["bfloat16", "float16"]


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
    # Gradients of a pre-norm ViT stay below this but for rare spikes early on; None clips nothing.
    clip_norm: float | None = 1.0
    seed: int = 0
    # Muon, with AdamW for what is no matrix; AdamW; or SGD with momentum, which L2W-DEN asks for.
    optimizer: OptimizerKind = "muon"
    # Of SGD, as in the recipes of MSDNet, RANet and L2W-DEN.
    momentum: float = 0.9
    # Evaluate the moving average of the weights with this decay; None evaluates the weights themselves.
    ema_decay: float | None = None
    # Half precision for most of the arithmetic: on a GPU bfloat16 where it has it, else float16, and none on
    # a CPU, unless `half` names one for whatever it runs on. Weights stay float32, float16 scales its loss.
    # On a CPU a run that ends by seconds may round the factors of its products to bfloat16, no more.
    mixed_precision: bool = True
    half: HalfKind | None = None

    def __post_init__(self) -> None:
        """Refuse budgets that end before they begin, and numbers that cannot train.

        Raises: ValueError.
        """
        if self.samples < 1 or self.batch_size < 1 or (self.seconds is not None and self.seconds <= 0):
            raise ValueError("samples, batch_size and seconds must be over 0")
        if not self.learning_rate > 0 or not 0.0 <= self.warmup_fraction < 1.0:
            raise ValueError("learning_rate must be over 0, warmup_fraction from 0 to below 1")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError("clip_norm must be over 0, or None")
        if self.ema_decay is not None and not 0.0 < self.ema_decay < 1.0:
            raise ValueError("ema_decay must lie between 0 and 1, or be None")
        if self.half not in (None, "bfloat16", "float16"):
            raise ValueError("half must be bfloat16, float16 or None")


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """Where training is. Units: fraction of the budget spent, 0 to 1; losses, one an exit, recent mean."""

    samples: int
    fraction: float
    elapsed_s: float
    learning_rate: float
    losses: tuple[float, ...]


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
