"""The joint loss of all exits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def exit_losses(outputs: Sequence[Tensor], targets: Tensor) -> Tensor:
    """Cross-entropy of every exit.

    Shapes: outputs K of (B, classes), targets (B,); losses (K,).
    """
    return torch.stack([F.cross_entropy(output, targets) for output in outputs])  # K of () -> K


def joint_loss(losses: Tensor, *, final_weight: float = 2.0) -> Tensor:
    """Mean of the exits' losses, the final one counting `final_weight` times.

    Divided by the sum of weights, so that the learning rate means the same for any number of exits.

    Shapes: losses (K,); result ().
    Source: final exit counted double, Bakhtiarnia, Zhang, Iosifidis, BMVC 2021.
    """
    weights = torch.ones_like(losses)
    weights[-1] = final_weight
    return (weights * losses).sum() / weights.sum()
