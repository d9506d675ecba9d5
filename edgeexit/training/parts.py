"""The parts of a network that training treats differently: blocks, exits, and what is frozen."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeexit.errors import UnsupportedModel
from edgeexit.models.attached import OwnHead
from edgeexit.models.protocol import IMAGE, MultiExitNetwork, State, run_stage
from edgeexit.training.methods import Phase


class Exits(nn.Module):
    """A network as one module from image to outputs, so that it can be wrapped and called functionally.

    Stages behind `grad_until` are run without keeping what only going back would need.
    """

    def __init__(self, network: MultiExitNetwork) -> None:
        super().__init__()
        self.stages = network.stages

    def forward(self, image: Tensor, grad_until: int | None = None) -> list[Tensor]:
        """Shapes: image (B, C, H, W); outputs K of (B, outputs)."""
        state: State = {IMAGE: image}
        outputs: list[Tensor] = []
        for k in range(len(self.stages)):
            with torch.set_grad_enabled(torch.is_grad_enabled() and (grad_until is None or k <= grad_until)):
                state, output = run_stage(self, k, state)
            outputs.append(output)
        return outputs


def exit_modules(network: MultiExitNetwork) -> tuple[nn.Module, ...]:
    """Each exit's own part: what a stage names `branch` or `head`.

    Shapes: (K,). Raises: UnsupportedModel when a stage names neither.
    """
    found: list[nn.Module] = []
    for k, stage in enumerate(network.stages):
        part = getattr(stage, "branch", None) or getattr(stage, "head", None)
        if not isinstance(part, nn.Module):
            raise UnsupportedModel(
                f"stage {k} does not say which part of it is its exit",
                expected="an attribute branch or head, so that blocks and exits can be trained apart",
            )
        found.append(part)
    return tuple(found)


def has_own_head(network: MultiExitNetwork) -> bool:
    """Whether the last exit came with the backbone."""
    return isinstance(getattr(network.stages[-1], "branch", None), OwnHead)


def enter_phase(network: MultiExitNetwork, phase: Phase, trainable: frozenset[int]) -> None:
    """Let learn what the phase trains, of the parameters whose ids are given, and freeze everything else.

    What is frozen is in evaluation mode: no dropout, and running means stay. Raises: UnsupportedModel.
    """
    whole = phase.backbone == phase.branches  # a network without named exits can then be trained, too
    exits: tuple[nn.Module | None, ...] = (None,) * len(network.stages) if whole else exit_modules(network)
    for stage, exit_part, blocks, branch in zip(
        network.stages, exits, phase.backbone, phase.branches, strict=True
    ):
        own = set() if exit_part is None else {id(each) for each in exit_part.parameters()}
        for parameter in stage.parameters():
            wanted = branch if id(parameter) in own else blocks
            parameter.requires_grad_(wanted and id(parameter) in trainable)
    _set_mode(network.stages)


def _set_mode(module: nn.Module) -> None:
    parameters = list(module.parameters())
    if parameters and not any(each.requires_grad for each in parameters):
        module.eval()
        return
    module.training = True
    for child in module.children():
        _set_mode(child)


def rescale_gradients(network: MultiExitNetwork) -> None:
    """Divide the gradients of stage k's blocks by the K - k losses that they serve. Raises: UnsupportedModel.

    The same as scaling what flows between stages by 1 / (K - k) before and K - k - 1 behind each exit.
    """
    count = len(network.stages)
    for k, (stage, exit_part) in enumerate(zip(network.stages, exit_modules(network), strict=True)):
        own = {id(each) for each in exit_part.parameters()}
        for parameter in stage.parameters():
            if parameter.grad is not None and id(parameter) not in own:
                parameter.grad.div_(count - k)
