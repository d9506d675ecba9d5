"""Seven exit branches at four depths of one frozen backbone, trained on its kept tokens."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch

from benchmarks.exits.cells import Cells
from benchmarks.exits.networks import BranchAlone, backbone_alone, tokens_after, with_exits
from benchmarks.exits.settings import Settings
from benchmarks.exits.tasks import Task
from edgeexit.models.branch_config import BranchKind
from edgeexit.models.cost import branch_costs, stage_costs
from edgeexit.training.batches import ItemBatches
from edgeexit.training.data import Samples
from edgeexit.training.evaluation import exit_logits
from edgeexit.training.loop import TrainingConfig, train

# Those of Multi-Exit ViT.
SEVEN: tuple[BranchKind, ...] = (
    "mlp",
    "cnn_ignore",
    "cnn_add",
    "cnn_project",
    "vit",
    "mlp_mixer",
    "resmlp",
)


@dataclass(frozen=True, slots=True)
class BranchCell:
    """One trained branch. Quality is accuracy, or mean absolute error for values; `cpu_s` of training."""

    branch: BranchKind
    after: int
    quality: float
    held_out_quality: float
    macs: int
    macs_before: int
    parameters: int
    cpu_s: float


class _Tokens:
    """Kept tokens of one backbone at every depth, made when a branch first needs them."""

    def __init__(self, settings: Settings, task: Task, seed: int, folder: Path) -> None:
        self._given = settings, task, seed, folder
        self._kept: tuple[list[Samples], list[Samples], list[Samples]] | None = None

    def at(self, index: int) -> tuple[Samples, Samples, Samples]:
        """Training, held-out and test tokens at the depth of this index."""
        if self._kept is None:
            settings, task, seed, folder = self._given
            backbone = backbone_alone(settings, task, seed, folder)

            def tokens(samples: Samples) -> list[Samples]:
                return tokens_after(backbone, samples, settings.ends)

            self._kept = tokens(task.cached), tokens(task.held_out), tokens(task.test())
        train_tokens, held_out, test = self._kept
        return train_tokens[index], held_out[index], test[index]


def branch_cells(settings: Settings, task: Task, seed: int, cells: Cells) -> list[BranchCell]:
    """Every branch at every depth for one seed."""
    tokens = _Tokens(settings, task, seed, cells.folder)
    before = macs_before(settings, task)
    found: list[BranchCell] = []
    for index, after in enumerate(settings.ends):
        for kind in SEVEN:

            def make(kind: BranchKind = kind, index: int = index) -> BranchCell:
                return _trained(
                    settings, task, seed, kind, tokens.at(index), settings.ends[index], before[index]
                )

            name = f"{task.name}-{kind}-{after}-seed{seed}"
            found.append(cells.once(name, [settings, seed], BranchCell, make))
    return found


def _trained(
    settings: Settings,
    task: Task,
    seed: int,
    kind: BranchKind,
    tokens: tuple[Samples, Samples, Samples],
    after: int,
    before: int,
) -> BranchCell:
    training, held_out, test = tokens
    network = BranchAlone(kind, settings.network.layout, task.answer, seed=seed)
    config = TrainingConfig(
        settings.branch_samples,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        seed=seed,
    )
    source = ItemBatches(training, seed=seed, mirror=False)
    end = train(network, source, config, clock_s=time.process_time, progress=lambda _: None)
    (cost,) = stage_costs(network, torch.from_numpy(test.images[:1]))
    return BranchCell(
        kind,
        after,
        quality(exit_logits(network, test)[0], test),
        quality(exit_logits(network, held_out)[0], held_out),
        cost.macs,
        before,
        cost.parameters,
        round(end.elapsed_s, 2),
    )


def quality(outputs: np.ndarray[tuple[int, ...], np.dtype[np.float32]], samples: Samples) -> float:
    """Accuracy, or mean absolute error for values. Shapes: (N, outputs)."""
    if np.issubdtype(samples.targets.dtype, np.floating):
        return float(np.abs(outputs[:, 0].astype(np.float64) - samples.targets).mean())
    return float((outputs.argmax(axis=1) == samples.targets).mean())


def macs_before(settings: Settings, task: Task) -> tuple[int, ...]:
    """Multiply-adds of the backbone up to each depth, no exits counted. Shapes: (K,)."""
    network = with_exits(settings, task.answer, settings.ends, seed=0)
    image = torch.from_numpy(task.cached.images[:1])
    stages, exits = stage_costs(network, image), branch_costs(network, network.branches, image)
    return tuple(accumulate(s.macs - e.macs for s, e in zip(stages, exits, strict=True)))
