"""The one shape that every network has here, so that training and conversion know no model."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

# Named tensors between stages: the torch side of a boundary.
State = dict[str, Tensor]

# Boundary 0, the input, has this one tensor.
IMAGE = "image"


@runtime_checkable
class MultiExitNetwork(Protocol):
    """A network cut at its exits.

    `stages[k]` maps the state of boundary k to the state of boundary k+1 and the output of exit k.
    Boundary 0 is `{"image": …}`; the last stage gives an empty state. Normalisation by mean and
    deviation happens inside stage 0, so that the input can travel as 8-bit values.

    Shapes: image (B, C, H, W); outputs (B, classes) logits, or (B, 2) value and spread.
    Units: image 0 to 1.
    """

    @property
    def stages(self) -> nn.ModuleList:
        """The K stages; together they hold every parameter of the network."""
        ...


def run_stage(network: MultiExitNetwork, stage: int, state: State) -> tuple[State, Tensor]:
    """One stage: the state of the next boundary (empty after the last stage) and the exit's output."""
    result: tuple[State, Tensor] = network.stages[stage](state)
    return result


def run_exits(network: MultiExitNetwork, image: Tensor) -> list[Tensor]:
    """Every exit's output, first to last, each stage run once.

    Shapes: image (B, C, H, W); outputs (B, classes).
    """
    state: State = {IMAGE: image}
    outputs: list[Tensor] = []
    for stage in range(len(network.stages)):
        state, output = run_stage(network, stage, state)
        outputs.append(output)
    return outputs


@torch.no_grad()
def run_until(network: MultiExitNetwork, image: Tensor, thresholds: list[float]) -> tuple[Tensor, int]:
    """One image's answer, deeper stages left alone: the first exit whose confidence meets its threshold.

    The last exit answers whatever its confidence is.

    Shapes: image (1, C, H, W); output (1, classes). Units: thresholds, softmax probability.
    """
    state: State = {IMAGE: image}
    last = len(network.stages) - 1
    for stage in range(last):
        state, output = run_stage(network, stage, state)
        if output.softmax(dim=1).max().item() >= thresholds[stage]:
            return output, stage
    _, output = run_stage(network, last, state)
    return output, last
