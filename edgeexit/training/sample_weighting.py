"""How samples are weighted exit by exit while training: the settings of L2W-DEN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# Over what predicted weights have a mean of 1: the exits of a sample, the batch at an exit, or both.
Constraint = Literal["sample", "exit", "matrix"]


@dataclass(frozen=True, slots=True)
class SampleWeighting:
    """L2W-DEN: a small network predicts the weight of every sample at every exit from its losses.

    Weights lie within `epsilon` of 1 before their mean is taken out. `target_q` is the share of each exit
    to that before it among the samples that the prediction is made for. `interval` counts batches.

    Source: Han et al., Learning to Weight Samples for Dynamic Early-Exiting Networks, ECCV 2022; the
    defaults are its settings for CIFAR-100.
    """

    epsilon: float = 0.8
    constraint: Constraint = "sample"
    target_q: float = 0.75
    hidden_dim: int = 500
    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    interval: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot weigh. Raises: ValueError."""
        if not self.epsilon > 0.0 or not self.target_q > 0 or self.hidden_dim < 1 or self.interval < 1:
            raise ValueError("epsilon, target_q, hidden_dim and interval must be over 0")
        if self.constraint not in ("sample", "exit", "matrix"):
            raise ValueError(f"constraint {self.constraint!r} is none of sample, exit, matrix")
