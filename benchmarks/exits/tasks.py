"""The two tasks: which garment lies on a cluttered canvas, and how many items lie on a canvas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.exits.settings import Settings
from edgeexit.bundle.manifest import Task as TaskName
from edgeexit.models.branch_config import AnswerConfig
from edgeexit.training.batches import BatchSource, ClutterBatches
from edgeexit.training.clutter import clutter_set
from edgeexit.training.counting import CountingBatches, counting_set
from edgeexit.training.data import FASHION_MNIST_ROOT, Samples, Splits, fashion_mnist

# Another number than any training seed: test canvases are the same for all.
TEST_SEED = 1_000_003


@dataclass(frozen=True, slots=True)
class Task:
    """One task with one seed's training canvases and held-out canvases; the test canvases are everybody's.

    `test` makes its canvases when they are asked for: once for each network, when all choices are made.
    """

    name: TaskName
    answer: AnswerConfig
    source: BatchSource
    cached: Samples
    held_out: Samples
    test: Callable[[], Samples]


def classification(settings: Settings, seed: int, root: Path = FASHION_MNIST_ROOT) -> Task:
    """Fashion-MNIST on cluttered canvases. Raises: DataError where it is not installed."""
    splits = _splits(settings, seed, root)
    clutter = settings.clutter
    source = ClutterBatches(splits.train, seed=seed, mirror=True, clutter=clutter)
    return Task(
        "classification",
        AnswerConfig("classification", len(splits.classes)),
        source,
        source.batch(0, settings.cached),
        clutter_set(splits.calibration, clutter, seed=seed),
        cache(lambda: clutter_set(splits.test.take(slice(0, settings.test)), clutter, seed=TEST_SEED)),
    )


def regression(settings: Settings, seed: int, root: Path = FASHION_MNIST_ROOT) -> Task:
    """Counting Fashion-MNIST items on canvases. Raises: DataError where it is not installed."""
    splits = _splits(settings, seed, root)
    counting = settings.counting
    source = CountingBatches(splits.train, seed=seed, mirror=True, counting=counting)
    middle = (counting.least + counting.most) / 2
    # Deviation of a count that is equally likely to be any: what a branch learns is then near 1.
    counts = np.arange(counting.least, counting.most + 1)
    return Task(
        "regression",
        AnswerConfig("regression", 0, middle, float(counts.std())),
        source,
        source.batch(0, settings.cached),
        counting_set(splits.calibration, settings.held_out, counting, seed=seed),
        cache(lambda: counting_set(splits.test, settings.test, counting, seed=TEST_SEED)),
    )


def _splits(settings: Settings, seed: int, root: Path) -> Splits:
    return fashion_mnist(root, calibration=settings.held_out, seed=seed)
