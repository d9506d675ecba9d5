"""Which optimiser moves which parameter, and the moving average of them all."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeexit.training.muon import Muon
from edgeexit.training.schedule import TrainingConfig

# Narrower matrices give the logits of an exit; Muon is for what lies between layers.
MUON_SIDE = 32

# Names of what is a matrix or more but is no weight of a layer: it does not decay.
_KEPT_NAMES = ("cls_token", "pos_embed", "prefix")


def optimizers_for(stages: nn.ModuleList, config: TrainingConfig) -> list[torch.optim.Optimizer]:
    """Optimisers for the parameters that learn; vectors, prefix tokens and positions do not decay.

    SGD decays every parameter, as in the recipes that use it.
    """
    learning = [(name, each) for name, each in stages.named_parameters() if each.requires_grad]
    if config.optimizer == "sgd":
        return [
            torch.optim.SGD(
                [each for _, each in learning],
                lr=config.learning_rate,
                momentum=config.momentum,
                weight_decay=config.weight_decay,
            )
        ]
    hidden = {
        id(module.weight)
        for module in stages.modules()
        if isinstance(module, nn.Linear) and min(module.weight.shape) >= MUON_SIDE
    }
    if config.optimizer == "adamw":
        hidden = set()
    matrices: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in learning:
        if id(parameter) in hidden:
            matrices.append(parameter)
        elif parameter.ndim >= 2 and not name.endswith(_KEPT_NAMES):
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


class MovingAverage:
    """Exponential moving average of a network's tensors; what counts or is frozen is simply followed."""

    def __init__(self, stages: nn.ModuleList, decay: float) -> None:
        self._stages = stages
        self._decay = decay
        self.steps = 0
        self.tensors: dict[str, Tensor] = {
            name: tensor.detach().clone() for name, tensor in stages.state_dict().items()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Take in the tensors as they are now."""
        # Early averages would hold on to the random start: the window grows with the steps.
        decay = min(self._decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        for name, tensor in self._stages.state_dict().items():
            kept = self.tensors[name]
            if tensor.is_floating_point():
                kept.lerp_(tensor, 1.0 - decay)
            else:
                kept.copy_(tensor)

    def give(self) -> None:
        """Put the average in place of the tensors."""
        self._stages.load_state_dict(self.tensors)
