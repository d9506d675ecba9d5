"""The unsplit network as one file: what a split one is compared with."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeexit.convert.lowering import lower_module
from edgeexit.models.protocol import IMAGE, MultiExitNetwork


class WholeNetwork(nn.Module):
    """All stages, one after the other, and every exit's output."""

    def __init__(self, stages: nn.ModuleList) -> None:
        super().__init__()
        self.stages = stages

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Shapes: image (1, C, H, W); `exit_<k>` (1, C) each."""
        state = {IMAGE: image}
        outputs: dict[str, Tensor] = {}
        for k, stage in enumerate(self.stages):
            state, outputs[exit_name(k)] = stage(state)
        return outputs


def exit_name(k: int) -> str:
    """What the output of exit k is called in the file."""
    return f"exit_{k}"


def lower_whole(network: MultiExitNetwork, image: NDArray[np.float32], out: Path) -> Path:
    """Lower the network without cutting it, all heads in place, to one f32 file at `out`.

    Shapes: image (1, C, H, W), any real one.
    Raises: LoweringError, MissingExtra.
    """
    whole = WholeNetwork(copy.deepcopy(network.stages).cpu()).eval()
    model = lower_module(whole, {IMAGE: image}, 0)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f"{out.name}.part")
    part.write_bytes(model)
    return part.replace(out)
