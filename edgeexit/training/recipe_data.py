"""Data of the recipes in `export/`: Fashion-MNIST as it is, in clutter, and counted. All pixels are real."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from edgeexit.errors import DataError
from edgeexit.training.batches import BatchSource, ClutterBatches, ItemBatches
from edgeexit.training.clutter import Clutter, clutter_set
from edgeexit.training.counting import Counting, CountingBatches, counting_set
from edgeexit.training.data import FASHION_MNIST_ROOT, Samples, Splits, digits, fashion_mnist
from edgeexit.training.fitting import FittedBatches, fitted_samples
from edgeexit.training.own_data import value_range
from edgeexit.training.recipe import RecipeData, Say

Shape = tuple[int, int, int]


def items(root: Path | None, say: Say) -> Splits:
    """Fashion-MNIST of the directory given or installed, else digits with a warning.

    Raises: DataError when a directory was given and cannot be used.
    """
    if root is not None:
        return fashion_mnist(root)
    try:
        return fashion_mnist(FASHION_MNIST_ROOT)
    except DataError as error:
        say(f"warning    {error}; {error.fix}")
        say("warning    going on with scikit-learn's digits: another, easier task")
        return digits()


def plain_data(shape: Shape, root: Path | None, say: Say, *, held_out: int, test: int) -> RecipeData:
    """The items themselves, fitted to the shape; at most so many held out and for the test."""
    splits = items(root, say)
    return RecipeData(
        train=partial(_plain, splits.train, shape),
        items=splits.train,
        held_out=fitted_samples(_some(splits.calibration, held_out), shape),
        test=fitted_samples(_some(splits.test, test), shape),
        classes=splits.classes,
        name=splits.train.name,
        settings=({"shape": list(shape)},),
    )


def clutter_data(
    clutter: Clutter, root: Path | None, say: Say, *, held_out: int, test: int, shape: Shape | None = None
) -> RecipeData:
    """Canvases, each with one item in clutter; fitted to the shape where one is given."""
    splits = items(root, say)
    fit = shape or (1, clutter.canvas, clutter.canvas)
    side = f"{clutter.canvas} × {clutter.canvas}"
    return RecipeData(
        train=partial(_clutter, splits.train, clutter, fit),
        items=splits.train,
        held_out=fitted_samples(clutter_set(_some(splits.calibration, held_out), clutter, seed=1), fit),
        test=fitted_samples(clutter_set(_some(splits.test, test), clutter, seed=2), fit),
        classes=splits.classes,
        name=f"{splits.train.name}, cluttered canvases of {side}",
        settings=(clutter, {"shape": list(fit)}),
    )


def counting_data(counting: Counting, root: Path | None, say: Say, *, held_out: int, test: int) -> RecipeData:
    """Canvases with the number of items on each as its value; a round of them is as long as one of items."""
    splits = items(root, say)
    train = splits.train
    held_out_set = counting_set(splits.calibration, held_out, counting, seed=1)
    offset, scale = value_range(held_out_set.targets, train.name)
    return RecipeData(
        train=partial(_counting, train, counting),
        items=train,
        held_out=held_out_set,
        test=counting_set(splits.test, test, counting, seed=2),
        classes=(),
        name=f"{train.name}, counted on canvases of {counting.canvas} × {counting.canvas}",
        settings=(counting,),
        value_offset=offset,
        value_scale=scale,
    )


def mirrored(items: Samples) -> bool:
    """Whether items stay what they are in a mirror: clothes do, digits do not."""
    return items.name == "fashion-mnist"


def _some(samples: Samples, count: int) -> Samples:
    return samples.take(slice(0, count))


def _plain(train: Samples, shape: Shape, seed: int) -> BatchSource:
    return FittedBatches(ItemBatches(train, seed=seed, mirror=mirrored(train)), shape)


def _clutter(train: Samples, clutter: Clutter, shape: Shape, seed: int) -> BatchSource:
    return FittedBatches(ClutterBatches(train, seed=seed, mirror=mirrored(train), clutter=clutter), shape)


def _counting(train: Samples, counting: Counting, seed: int) -> BatchSource:
    return CountingBatches(train, seed=seed, mirror=mirrored(train), counting=counting)
