"""Adds packers to the tiny bundle: `python -m tests.data.make_packed_bundle TINY_BUNDLE OUT`.

Token reduction for both boundaries, and a bottleneck trained through the stages of the network that the
bundle was made of, which are trained again here: the same seed gives the same weights.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgeexit.bundle import Bundle, open_bundle
from edgeexit.convert.packing import add_packers
from edgeexit.models.packers import Bottleneck, pooling
from edgeexit.models.protocol import State
from edgeexit.training.bottleneck import BottleneckProgress, BottleneckTraining, train_bottleneck
from edgeexit.training.data import Samples
from tests.data.make_tiny_bundle import DIM, TOKENS, First, Last, Middle, draw, logits_of, train


class StateStage(nn.Module):
    """A stage of the tiny network behind the protocol of networks."""

    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, state: State) -> tuple[State, Tensor]:
        """Shapes: those of the stage."""
        given = dict(self.stage(*state.values()))
        output = given.pop("logits")
        return given, output


class Network:
    """The tiny network."""

    def __init__(self, stages: list[nn.Module]) -> None:
        self.stages = nn.ModuleList(StateStage(stage) for stage in stages)


class Stripes:
    """Batches of the tiny task."""

    def batch(self, number: int, size: int) -> Samples:
        """Batch `number`."""
        drawn = draw(size, seed=1000 + number)
        return Samples(images=drawn.images, targets=drawn.labels, name="stripes")


def main(tiny: Path, out: Path) -> Bundle:
    """Train, add, write."""
    bundle = open_bundle(tiny)
    torch.manual_seed(7)
    torch.set_num_threads(1)
    stages: list[nn.Module] = [First(), Middle(), Last()]
    train(stages, draw(8000, seed=1))
    golden = bundle.golden()
    images = torch.from_numpy(golden.inputs["image"][:, 0])  # n 1 1 8 8 -> n 1 8 8
    with torch.no_grad():
        again = logits_of(stages, images)[-1].numpy()
    if np.abs(again - golden.outputs[-1]).max() > 1e-3:
        raise SystemExit("the network came out another one than the bundle's")
    packers = []
    for boundary in (1, 2):
        bottleneck = Bottleneck(DIM, TOKENS)
        config = BottleneckTraining(samples=120_000, batch_size=128, nats_per_bit=0.001)

        def tell(state: BottleneckProgress) -> None:
            print(f"{state.distillation:.4f} nats, {state.bits_per_token:.2f} bits")  # noqa: T201

        train_bottleneck(
            Network(stages), boundary, bottleneck, Stripes(), config, clock_s=time.monotonic, progress=tell
        )
        packers += [pooling("tokens", TOKENS, boundary), *bottleneck.halves("tokens", boundary)]
    held_out = draw(600, seed=2)
    labelled = Samples(images=held_out.images, targets=held_out.labels, name="stripes")
    return add_packers(bundle, packers, labelled, out=out, replace=True)


if __name__ == "__main__":
    made = main(Path(sys.argv[1]), Path(sys.argv[2]))
    for described in made.manifest.boundaries:
        for codec in described.codecs:
            print(codec.codec, codec.payload_bytes, codec.quality_cost)  # noqa: T201
