"""Networks with four exits, each trained one way, and what each came to."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from benchmarks.exits.cells import Cells
from benchmarks.exits.networks import backbone_alone, with_exits
from benchmarks.exits.settings import Settings
from benchmarks.exits.tasks import Task
from benchmarks.exits.ways import EQUAL, WARM_SHARE, WAYS, Way, described, training_config
from edgeexit.errors import DataError
from edgeexit.models.attached import AttachedNetwork
from edgeexit.models.cost import cumulative_macs, stage_costs
from edgeexit.training.batches import BatchSource
from edgeexit.training.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint, settings_key
from edgeexit.training.data import Samples, Targets
from edgeexit.training.evaluation import Logits, budgeted_curve, exit_accuracies, exit_logits
from edgeexit.training.loop import TrainingProgress, train
from edgeexit.training.objective import Objective
from edgeexit.training.report import ExitQuality, evaluate_outputs

# Shares of the whole network's cost at which budgeted accuracy is told; 0.53 is LGViT's.
SHARES = (0.3, 0.4, 0.53, 0.65, 0.8)
MID_SHARE = 0.53


@dataclass(frozen=True, slots=True)
class Start:
    """What training begins from. Units: canvases seen and seconds spent before."""

    samples: int
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Later:
    """A source that leaves the first batches to whoever trained before."""

    source: BatchSource
    first: int

    def batch(self, number: int, size: int) -> Samples:
        """Batch `number` from there on."""
        return self.source.batch(self.first + number, size)


@dataclass(frozen=True, slots=True)
class Learning:
    """Losses while training. Units: samples, canvases seen; losses, mean since the point before."""

    samples: int
    losses: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class MethodCell:
    """One trained network. Units: fractions; `budgeted`, accuracy at SHARES of the whole cost.

    `held_out_mid` is budgeted accuracy at MID_SHARE with thresholds of one half of the held-out canvases on
    the other half, mean of both ways: what choices between methods are made by.
    """

    samples: int
    updates: int
    cpu_s: float | None
    exits: tuple[ExitQuality, ...]
    curve: tuple[tuple[float, float], ...]
    budgeted: tuple[float, ...]
    held_out_exits: tuple[float, ...]
    held_out_mid: float
    learning: tuple[Learning, ...]


def method_cell(way: Way, settings: Settings, task: Task, seed: int, cells: Cells) -> MethodCell:
    """A network with exits trained this way, on this seed's canvases."""

    def make() -> MethodCell:
        network = with_exits(settings, task.answer, settings.ends, seed)
        config = training_config(way, settings, seed)
        source, warm = task.source, Start(0, 0.0)
        if way.optimizer == "sgd":
            warm = _warm(network, settings, task, seed, cells)
            source = Later(source, warm.samples // config.batch_size)
        learning: list[Learning] = []

        def keep(progress: TrainingProgress) -> None:
            learning.append(Learning(progress.samples, tuple(round(loss, 4) for loss in progress.losses)))

        end = train(
            network,
            source,
            config,
            clock_s=time.process_time,
            progress=keep,
            objective=way.objective,
        )
        updates = (warm.samples + end.samples) // settings.batch_size
        seconds = warm.cpu_s + end.elapsed_s
        return _cell(network, task, warm.samples + end.samples, updates, seconds, learning)

    return cells.once(f"{way.name}-seed{seed}", [settings, described(way), seed], MethodCell, make)


def _warm(network: AttachedNetwork, settings: Settings, task: Task, seed: int, cells: Cells) -> Start:
    """Train jointly with every exit counted once, as far as SGD takes over; or read it back."""
    samples = int(settings.network_samples * WARM_SHARE) // settings.batch_size * settings.batch_size
    config = replace(training_config(WAYS[0], settings, seed), samples=samples)
    given: list[object] = [settings.network, settings.clutter, settings.held_out, list(settings.ends)]
    key = settings_key([config, *given])
    path = checkpoint_path(cells.folder, "warm", key)

    def make() -> Start:
        objective = Objective(EQUAL)
        end = train(
            network,
            task.source,
            config,
            clock_s=time.process_time,
            progress=lambda _: None,
            objective=objective,
        )
        save_checkpoint(network, path, key=key, notes={})
        return Start(end.samples, round(end.elapsed_s, 2))

    start = cells.once(f"warm-seed{seed}", [key], Start, make)
    if load_checkpoint(network, path, key=key) is None:
        raise DataError(f"{path.name} is gone", file=str(path), fix="delete the cells beside it")
    return start


def alone_cell(settings: Settings, task: Task, seed: int, cells: Cells, factor: int = 1) -> MethodCell:
    """The backbone with its last exit only, for as many steps, or `factor` times as many."""
    settings = replace(settings, network_samples=settings.network_samples * factor)

    def make() -> MethodCell:
        network = backbone_alone(settings, task, seed, cells.folder)
        steps = -(-settings.network_samples // settings.batch_size)
        return _cell(network, task, steps * settings.batch_size, steps, None, [])

    return cells.once(f"alone-seed{seed}", [settings, seed], MethodCell, make)


def at_share(curve: tuple[tuple[float, float], ...], share: float, whole: float) -> float:
    """Accuracy at a share of the whole cost, on the line between the two points of the curve around it.

    Shapes: curve (39,) of (mean multiply-adds, accuracy). Any point on the line can be had: by taking one
    setting for some of the images and the other one for the rest.
    """
    costs, accuracies = zip(*sorted(curve), strict=True)
    return float(np.interp(share * whole, costs, accuracies))


def _cell(
    network: AttachedNetwork,
    task: Task,
    samples: int,
    updates: int,
    cpu_s: float | None,
    learning: list[Learning],
) -> MethodCell:
    held_out, labels = exit_logits(network, task.held_out), task.held_out.targets
    test = task.test()
    macs = cumulative_macs(stage_costs(network, torch.from_numpy(test.images[:1])))
    report = evaluate_outputs(held_out, exit_logits(network, test), test.targets, macs)
    curve = tuple((point.mean_macs, point.quality) for point in report.budgeted)
    return MethodCell(
        samples,
        updates,
        None if cpu_s is None else round(cpu_s, 2),
        report.exits,
        curve,
        tuple(at_share(curve, share, macs[-1]) for share in SHARES),
        exit_accuracies(held_out, labels),
        _halves(held_out, labels, macs),
        tuple(learning),
    )


def _halves(held_out: Logits, labels: Targets, macs: tuple[int, ...]) -> float:
    middle = held_out.shape[1] // 2
    first, second = slice(0, middle), slice(middle, None)
    found = []
    for solve, judge in ((first, second), (second, first)):
        points = budgeted_curve(held_out[:, solve], held_out[:, judge], labels[judge], macs)
        found.append(at_share(tuple((p.mean_macs, p.accuracy) for p in points), MID_SHARE, macs[-1]))
    return sum(found) / len(found)
