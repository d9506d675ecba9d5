"""What the stages and the exit branches of a network cost: multiply-adds and parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from edgeexit.models.protocol import IMAGE, MultiExitNetwork, State, run_exits, run_stage


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
    costs: list[StageCost] = []
    state: State = {IMAGE: image}
    with _evaluating(network.stages):
        for k, stage in enumerate(network.stages):
            with torch.no_grad(), _counting() as counter:
                state, _ = run_stage(network, k, state)
            costs.append(_cost(stage, counter))
    return tuple(costs)


def branch_costs(
    network: MultiExitNetwork, branches: Sequence[nn.Module], image: Tensor
) -> tuple[StageCost, ...]:
    """The cost of each of these parts of the network, counted on what it is given for such an image.

    Shapes: branches (K,), as of edgeexit.models.attached.AttachedNetwork; image (1, C, H, W).
    """
    costs: dict[int, StageCost] = {}

    def count(branch: nn.Module, given: tuple[Tensor, ...]) -> None:
        if id(branch) not in costs:
            # Entered before it is counted: counting calls the branch again.
            costs[id(branch)] = StageCost(0, 0)
            with _counting() as counter:
                branch(*given)
            costs[id(branch)] = _cost(branch, counter)

    handles = [branch.register_forward_pre_hook(count) for branch in branches]
    try:
        with _evaluating(network.stages), torch.no_grad():
            run_exits(network, image)
    finally:
        for handle in handles:
            handle.remove()
    return tuple(costs[id(branch)] for branch in branches)


def cumulative_macs(costs: tuple[StageCost, ...]) -> tuple[int, ...]:
    """C_k, what stopping at exit k costs: all stages up to it, earlier heads included."""
    return tuple(accumulate(cost.macs for cost in costs))


@contextmanager
def _evaluating(stages: nn.ModuleList) -> Iterator[None]:
    """Evaluation mode, and afterwards the mode that each module had."""
    modes = [module.training for module in stages.modules()]
    stages.eval()
    try:
        yield
    finally:
        for module, mode in zip(stages.modules(), modes, strict=True):
            module.training = mode


@contextmanager
def _counting() -> Iterator[FlopCounterMode]:
    # torch's counter does not know its fused attention kernel for the CPU: count the plain one.
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        yield counter


def _cost(module: nn.Module, counter: FlopCounterMode) -> StageCost:
    return StageCost(
        macs=counter.get_total_flops() // 2,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
    )
