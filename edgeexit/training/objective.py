"""What training makes small: the exits' losses, how they are put together, and what is added to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from edgeexit.training.map_matching import MapMatching
from edgeexit.training.methods import Joint, Method
from edgeexit.training.sample_weighting import SampleWeighting

# A spread of nothing would make the loss of a value infinite; no unit in use is that small.
LEAST_SPREAD = 1e-6


@dataclass(frozen=True, slots=True)
class SelfDistillation:
    """Early exits learn from the last one: (1 - weight) of the loss and weight · T² · KL(last ‖ exit).

    Nothing flows back into the last exit. Source: Han et al., Dynamic Perceiver, ICCV 2023.
    """

    # 0.5 and 1 are the source's.
    weight: float = 0.5
    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Refuse shares that leave nothing. Raises: ValueError."""
        if not 0.0 <= self.weight <= 1.0 or not self.temperature > 0:
            raise ValueError("weight must be from 0 to 1, temperature over 0")

    def losses(self, outputs: Sequence[Tensor], losses: Tensor) -> Tensor:
        """The exits' losses with what the last exit teaches mixed in.

        Shapes: outputs K of (B, classes), losses (K,); result (K,).
        """
        if len(outputs) == 1:
            return losses
        teacher = F.log_softmax(outputs[-1].detach() / self.temperature, dim=1)
        taught = [
            F.kl_div(
                F.log_softmax(output / self.temperature, dim=1),
                teacher,
                reduction="batchmean",
                log_target=True,
            )
            for output in outputs[:-1]
        ]
        early = (1.0 - self.weight) * losses[:-1] + self.weight * self.temperature**2 * torch.stack(taught)
        return torch.cat((early, losses[-1:]))  # K-1, 1 -> K


@dataclass(frozen=True, slots=True)
class Objective:
    """What is trained for. The default is the plain joint loss.

    With `rescale_gradients` the blocks of stage k get the mean over the K - k losses behind them in place of
    their sum, while exits get their own whole; under AdamW and Muon, which undo any scale of a gradient, it
    acts through clipping alone, so that it belongs with SGD.

    With `weighting` a batch is split into halves, each of which is trained on with weights learnt on the
    other; the source weighs with Joint(final_weight=1).

    Source of the rescaling: Li et al., ICCV 2019; Yu et al., BoostNet, AAAI 2023.
    """

    method: Method = field(default_factory=Joint)
    distillation: SelfDistillation | None = None
    rescale_gradients: bool = False
    weighting: SampleWeighting | None = None
    maps: MapMatching | None = None


def sample_losses(outputs: Sequence[Tensor], targets: Tensor) -> Tensor:
    """Loss of every sample at every exit: cross-entropy for classes, for values that of a Laplace law.

    The value is the law's median and the spread its mean absolute deviation, so that a spread is the error
    to be expected.

    Shapes: outputs K of (B, classes) or of (B, 2); targets (B,), whole numbers or values, or (B, classes),
    shares; losses (B, K).
    """
    if targets.is_floating_point() and targets.ndim == 1:
        losses = []
        for output in outputs:
            spread = output[:, 1].clamp_min(LEAST_SPREAD)  # B 2 -> B
            losses.append((output[:, 0] - targets).abs() / spread + torch.log(2.0 * spread))
        return torch.stack(losses, dim=1)  # K of B -> B K
    return torch.stack(
        [F.cross_entropy(output, targets, reduction="none") for output in outputs], dim=1
    )  # K of B -> B K


def exit_losses(outputs: Sequence[Tensor], targets: Tensor) -> Tensor:
    """Mean loss of every exit.

    Shapes: outputs K of (B, classes), targets (B,); losses (K,).
    """
    return sample_losses(outputs, targets).mean(dim=0)  # B K -> K


def weighted_loss(losses: Tensor, weights: Sequence[float]) -> Tensor:
    """Mean of the exits' losses under these weights; nothing flows back through an exit of weight 0.

    Divided by the sum of weights, so that the learning rate means the same for any number of exits.

    Shapes: losses (K,), weights (K,); result ().
    """
    total = losses.new_zeros(())
    for loss, weight in zip(losses.unbind(), weights, strict=True):
        if weight > 0:
            total = total + weight * loss
    return total / sum(weights)


def joint_loss(losses: Tensor, *, final_weight: float = 2.0) -> Tensor:
    """Mean of the exits' losses, the final one counting `final_weight` times.

    Shapes: losses (K,); result ().
    Source: final exit counted double, Bakhtiarnia, Zhang, Iosifidis, BMVC 2021.
    """
    return weighted_loss(losses, (1.0,) * (len(losses) - 1) + (final_weight,))
