"""Tensors of a boundary and what the exits behind it answer to them, computed once and kept.

The network is frozen while a bottleneck is trained: what its first stages compute, and what its exits say to
untouched tensors, are the same every time a sample is seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from edgeexit.errors import ConfigError
from edgeexit.models.protocol import IMAGE, MultiExitNetwork, State, run_stage
from edgeexit.training.batches import BatchSource


@dataclass(frozen=True, slots=True)
class BoundarySamples:
    """What is kept of a boundary.

    Shapes: tokens (n, T, D), in half precision where memory counts; answers, one (n, outputs) an exit, from
    the first behind the boundary to the last.
    """

    tensor: str
    tokens: Tensor
    answers: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.tokens)


def exit_answers(network: MultiExitNetwork, boundary: int, state: State) -> list[Tensor]:
    """What every exit behind a boundary answers to its tensors. Shapes: (B, outputs) each."""
    outputs = []
    for stage in range(boundary, len(network.stages)):
        state, output = run_stage(network, stage, state)
        outputs.append(output)
    return outputs


@torch.no_grad()
def boundary_samples(
    network: MultiExitNetwork,
    boundary: int,
    source: BatchSource,
    *,
    most: int,
    most_bytes: int,
    batch_size: int,
    device: torch.device,
    tell: Callable[[int], None] = lambda done: None,
) -> BoundarySamples:
    """At most so many samples of a source, batch 0 first, and no more than fit; one batch at least.

    Raises: ConfigError where the boundary is not one tensor of tokens.
    """
    kept: list[Tensor] = []
    answers: list[list[Tensor]] = []
    number = taken = 0
    name = ""
    while not kept or (taken < most and taken * kept[0][0].nbytes < most_bytes):
        images = torch.from_numpy(source.batch(number, batch_size).images).to(device)
        state: State = {IMAGE: images}
        for stage in range(boundary):
            state, _ = run_stage(network, stage, state)
        name = _one_tensor(state)
        answers.append(exit_answers(network, boundary, state))
        # Half precision moves a value by a two-thousandth, far less than any quantiser.
        kept.append(state[name].half())
        number += 1
        taken += len(images)
        tell(taken)
    tokens = torch.cat(kept)
    kept.clear()
    return BoundarySamples(name, tokens, tuple(torch.cat(column) for column in zip(*answers, strict=True)))


def _one_tensor(state: State) -> str:
    """The name of the one tensor of a boundary. Raises: ConfigError."""
    names = list(state)
    if len(names) != 1 or state[names[0]].ndim != 3:
        why = f"it holds {len(names)} tensors, one of tokens is wanted"
        raise ConfigError("this boundary has no bottleneck", key="boundary", why=why)
    return names[0]
