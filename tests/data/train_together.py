"""For tests, under torchrun: two processes train the recipe of the sides, whole, cut and weighed.

    torchrun --nproc-per-node 2 tests/data/train_together.py RECIPE FOLDER

Each process leaves its weights in FOLDER.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from edgeexit.models.protocol import MultiExitNetwork
from edgeexit.models.vit import VisionTransformer, vit
from edgeexit.training.batches import BatchSource
from edgeexit.training.data import Samples
from edgeexit.training.loop import train
from edgeexit.training.methods import Joint
from edgeexit.training.objective import Objective, sample_losses
from edgeexit.training.parts import Exits
from edgeexit.training.processes import Processes, join_processes, leave_processes
from edgeexit.training.recipe import NetworkWanted, Recipe, read_recipe
from edgeexit.training.sample_weighting import Constraint, SampleWeighting
from edgeexit.training.schedule import TrainingConfig
from edgeexit.training.snapshot import Snapshots
from edgeexit.training.weight_network import Half, LearnedWeights

CONFIG = TrainingConfig(samples=320, batch_size=32)
SGD = replace(CONFIG, optimizer="sgd", learning_rate=0.05)
CONSTRAINTS: tuple[Constraint, ...] = ("sample", "exit", "matrix")


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


class Regrouped:
    """Batches whose halves are those that two processes make of their shares."""

    def __init__(self, source: BatchSource) -> None:
        self.source = source

    def batch(self, number: int, size: int) -> Samples:
        samples = self.source.batch(number, size)
        first, second, third, fourth = np.arange(size).reshape(4, size // 4)
        return samples.take(np.concatenate([first, third, second, fourth]))


def network(recipe: Recipe, dropout: float) -> VisionTransformer:
    made = recipe.network(NetworkWanted(classes=2))
    assert isinstance(made, VisionTransformer)
    return vit(replace(made.config, head_dropout=dropout), seed=0)


def learn(
    made: MultiExitNetwork,
    source: BatchSource,
    snapshots: Snapshots | None = None,
    *,
    config: TrainingConfig = CONFIG,
    objective: Objective | None = None,
) -> None:
    clock = iter(range(10**6)).__next__  # a second a look
    train(
        made,
        source,
        config,
        clock_s=clock,
        progress=lambda _: None,
        objective=objective,
        snapshots=snapshots,
    )


def learnt_weights(
    made: VisionTransformer, source: BatchSource, constraint: Constraint, here: Processes
) -> torch.nn.Module:
    """A weight network after three looks ahead, in double precision, on this process's share of halves."""
    made = made.double().train()
    main = torch.optim.SGD(made.parameters(), lr=0.5, momentum=0.9, weight_decay=1e-3)
    exits = Exits(made)
    halves = []
    for number in range(3):
        whole = source.batch(number, 32)
        share = len(whole) // here.count
        mine = slice(here.rank * share, (here.rank + 1) * share)
        halves.append(
            Half(torch.from_numpy(whole.images[mine]).double(), torch.from_numpy(whole.targets[mine]))
        )
    # One step, the same in all processes, so that momentum is there.
    first = source.batch(9, 8)
    outputs = exits(torch.from_numpy(first.images).double())
    sample_losses(outputs, torch.from_numpy(first.targets)).mean().backward()  # type: ignore[no-untyped-call]
    main.step()
    torch.manual_seed(here.rank)
    learnt = LearnedWeights(exits, SampleWeighting(constraint=constraint, learning_rate=0.01), here)
    for train_half, meta_half in zip(halves, halves[1:] + halves[:1], strict=True):
        learnt.learn(train_half, meta_half, main, (1.0,) * len(made.stages), 1.0)
    return learnt.network


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
    weighed = network(recipe, 0.0)
    objective = Objective(Joint(final_weight=1.0), weighting=SampleWeighting())
    learn(weighed, source, config=SGD, objective=objective)
    found: dict[str, torch.nn.Module] = {"plain": plain, "whole": whole, "cut": cut, "weighed": weighed}
    for constraint in CONSTRAINTS:
        found[constraint] = learnt_weights(network(recipe, 0.0), source, constraint, here)
    for name, made in found.items():
        torch.save(made.state_dict(), folder / f"{name}-{here.rank}.pt")
    leave_processes()
    if here.rank == 0:
        alone(recipe, source, objective, folder)


def alone(recipe: Recipe, source: BatchSource, objective: Objective, folder: Path) -> None:
    """The same of one process."""
    weighed = network(recipe, 0.0)
    learn(weighed, Regrouped(source), config=SGD, objective=objective)
    torch.save(weighed.state_dict(), folder / "weighed-alone.pt")
    for constraint in CONSTRAINTS:
        learnt = learnt_weights(network(recipe, 0.0), source, constraint, Processes())
        torch.save(learnt.state_dict(), folder / f"{constraint}-alone.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
