"""What the stages of a network cost: multiply-adds and parameters."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from edgeexit.models.protocol import IMAGE, MultiExitNetwork, State, run_stage


@dataclass(frozen=True, slots=True)
class StageCost:
    """One stage, its exit included. Units: macs, multiply-adds for one image."""

    macs: int
    parameters: int


def stage_costs(network: MultiExitNetwork, image: Tensor) -> tuple[StageCost, ...]:
    """The cost of every stage on an image of this size; the network is left in its mode.

    Convolutions, linear layers and the two products of attention count; biases, normalisation,
    softmax and activations do not, as in the counters of the early-exit literature.

    Shapes: image (1, C, H, W).
    """
    modes = [module.training for module in network.stages.modules()]
    network.stages.eval()
    try:
        costs: list[StageCost] = []
        state: State = {IMAGE: image}
        for k, stage in enumerate(network.stages):
            # torch's counter does not know its fused attention kernel for the CPU: count the plain one.
            counter = FlopCounterMode(display=False)
            with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
                state, _ = run_stage(network, k, state)
            costs.append(StageCost(macs=counter.get_total_flops() // 2, parameters=_parameters(stage)))
        return tuple(costs)
    finally:
        for module, mode in zip(network.stages.modules(), modes, strict=True):
            module.training = mode


def cumulative_macs(costs: tuple[StageCost, ...]) -> tuple[int, ...]:
    """C_k, what stopping at exit k costs: all stages up to it, earlier heads included."""
    return tuple(accumulate(cost.macs for cost in costs))


def _parameters(stage: nn.Module) -> int:
    return sum(parameter.numel() for parameter in stage.parameters())
