"""For tests, under torchrun: two processes train the recipe of the sides, whole and cut.

    torchrun --nproc-per-node 2 tests/data/train_together.py RECIPE FOLDER

Each process leaves its weights in FOLDER.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from edgeexit.models.protocol import MultiExitNetwork
from edgeexit.models.vit import VisionTransformer, vit
from edgeexit.training.batches import BatchSource
from edgeexit.training.data import Samples
from edgeexit.training.loop import train
from edgeexit.training.processes import join_processes, leave_processes
from edgeexit.training.recipe import NetworkWanted, Recipe, read_recipe
from edgeexit.training.schedule import TrainingConfig
from edgeexit.training.snapshot import Snapshots

CONFIG = TrainingConfig(samples=320, batch_size=32)


class Killed(Exception):
    """The processes died."""


class Dying:
    """A source that ends before its twelfth part of a batch, which is in the sixth of two processes."""

    def __init__(self, source: BatchSource) -> None:
        self.source = source

    def batch(self, number: int, size: int) -> Samples:
        if number >= 12:
            raise Killed
        return self.source.batch(number, size)


def network(recipe: Recipe, dropout: float) -> VisionTransformer:
    made = recipe.network(NetworkWanted(classes=2))
    assert isinstance(made, VisionTransformer)
    return vit(replace(made.config, head_dropout=dropout), seed=0)


def learn(made: MultiExitNetwork, source: BatchSource, snapshots: Snapshots | None = None) -> None:
    clock = iter(range(10**6)).__next__  # a second a look
    train(made, source, CONFIG, clock_s=clock, progress=lambda _: None, snapshots=snapshots)


def main(file: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    recipe = read_recipe(file)
    source = recipe.data(None, lambda _: None).train(0)
    here = join_processes("cpu")
    assert here.count == 2
    plain, whole = network(recipe, 0.0), network(recipe, 0.1)
    learn(plain, source)
    learn(whole, source)
    where = Snapshots(folder / "s.pt", key="a", every_s=1.0)
    try:
        learn(network(recipe, 0.1), Dying(source), where)
    except Killed:
        here.wait()
    cut = network(recipe, 0.1)
    learn(cut, source, where)
    for name, made in (("plain", plain), ("whole", whole), ("cut", cut)):
        torch.save(made.state_dict(), folder / f"{name}-{here.rank}.pt")
    leave_processes()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
