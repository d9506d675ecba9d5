"""Somebody's own data, named in one word: `imagefolder:DIR`, `cifar10:DIR`, `idx:DIR`, `csv:FILE`.

Nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from edgeexit.errors import ConfigError, DataError
from edgeexit.training.batches import BatchSource, ItemBatches
from edgeexit.training.cifar import cifar
from edgeexit.training.data import Samples, Targets, idx_split, split_off
from edgeexit.training.fitting import FittedBatches, fitted_samples
from edgeexit.training.recipe import RecipeData, Say
from edgeexit.training.user_images import UserImages, csv_values, image_folder, value_csv

KINDS = ("imagefolder", "cifar10", "cifar100", "idx", "csv")
# What is held out of a set that names no parts, for thresholds and calibration, and again for the test.
HELD_OUT_FRACTION = 0.15
# What is held out does not depend on the seed of training: no run ever sees what another is tested on.
SPLIT_SEED = 0
# As people call the part that is held out of training.
HELD_OUT_NAMES = ("val", "valid", "validation", "calibration")

_Read = Callable[[Path, tuple[str, ...] | None], UserImages]


def is_own_data(text: str) -> bool:
    """Whether a word names data of somebody's own, and not a directory of the recipe's data."""
    return ":" in text and not Path(text).exists()


def own_data(text: str, shape: tuple[int, int, int], say: Say) -> RecipeData:
    """Open the data named, each image fitted to the network; say which images were left out.

    A folder (or a folder of CSV files) may have the parts train, val and test; what is missing is held out of
    train, the same images each time. Shapes: shape (C, H, W).
    Raises: ConfigError when the kind is unknown, DataError when the data cannot be read.
    """
    kind, _, place = text.partition(":")
    path = Path(place)
    if kind == "imagefolder":
        return _user_images(path, "", shape, lambda p, c: image_folder(p, shape, classes=c, tell=say))
    if kind == "csv":
        return _user_images(path, ".csv", shape, lambda p, _: value_csv(p, shape, tell=say))
    if kind == "idx":
        return _idx(path, shape)
    if kind in ("cifar10", "cifar100"):
        splits = cifar(path, "cifar-10" if kind == "cifar10" else "cifar-100")
        return _data(splits.train, splits.calibration, splits.test, splits.classes, shape, mirror=True)
    raise ConfigError(
        f"data of the kind {kind!r} are unknown",
        key="data",
        why="the word before the colon says what they are",
        fix=f"one of {', '.join(f'{each}:PATH' for each in KINDS)}",
    )


def own_value_range(text: str) -> tuple[float, float]:
    """Where the values of `csv:FILE` lie, and how wide, before any image is read.

    Raises: ConfigError for data without values, DataError.
    """
    kind, _, place = text.partition(":")
    if kind != "csv":
        raise ConfigError(
            f"{text} has no values to learn",
            key="data",
            why="its images are of classes",
            fix="--data csv:FILE, with the columns image and value",
        )
    path = Path(place)
    rows = csv_values(path / "train.csv" if path.is_dir() else path)
    return value_range(np.array([value for _, value in rows], dtype=np.float32), path.stem)


def _user_images(path: Path, suffix: str, shape: tuple[int, int, int], read: _Read) -> RecipeData:
    in_parts = (path / f"train{suffix}").exists()
    train = read(path / f"train{suffix}" if in_parts else path, None)
    known = train.classes or None
    skipped = len(train.skipped)
    parts: list[Samples] = []
    items = train.samples
    count = max(1, round(HELD_OUT_FRACTION * len(items)))
    for index, names in enumerate((HELD_OUT_NAMES, ("test",))):
        there = [each for name in names if (each := path / f"{name}{suffix}").exists()]
        if in_parts and there:
            part = read(there[0], known)
            skipped += len(part.skipped)
            parts.append(part.samples)
            continue
        if len(items) <= count:
            raise DataError(f"{path} has too few images", file=str(path), why=f"{len(items)}")
        items, part_of_train = split_off(items, count, seed=SPLIT_SEED + index)
        parts.append(part_of_train)
    held_out, test = parts
    return _data(items, held_out, test, train.classes, shape, mirror=bool(train.classes), skipped=skipped)


def _idx(root: Path, shape: tuple[int, int, int]) -> RecipeData:
    whole, test = idx_split(root, "train", root.name), idx_split(root, "t10k", root.name)
    count = max(1, round(HELD_OUT_FRACTION * len(whole)))
    if len(whole) <= count:
        raise DataError(f"{root} has too few images", file=str(root), why=f"{len(whole)}")
    train, held_out = split_off(whole, count, seed=SPLIT_SEED)
    classes = tuple(map(str, range(int(max(whole.targets.max(), test.targets.max())) + 1)))
    # Digits and letters are others in a mirror.
    return _data(train, held_out, test, classes, shape, mirror=False)


def _data(
    train: Samples,
    held_out: Samples,
    test: Samples,
    classes: tuple[str, ...],
    shape: tuple[int, int, int],
    *,
    mirror: bool,
    skipped: int = 0,
) -> RecipeData:
    offset, scale = (0.0, 1.0) if classes else value_range(train.targets, train.name)
    return RecipeData(
        train=partial(_batches, train, shape, mirror),
        items=train,
        held_out=fitted_samples(held_out, shape),
        test=fitted_samples(test, shape),
        classes=classes,
        name=train.name,
        settings=({"shape": list(shape), "mirror": mirror},),
        skipped=skipped,
        value_offset=offset,
        value_scale=scale,
    )


def _batches(items: Samples, shape: tuple[int, int, int], mirror: bool, seed: int) -> BatchSource:
    return FittedBatches(ItemBatches(items, seed=seed, mirror=mirror), shape)


def value_range(values: Targets, name: str) -> tuple[float, float]:
    """Where values lie, and how wide: median and mean distance from it. Raises: DataError."""
    known = values.astype(np.float64)
    if not len(known):
        raise DataError(f"{name} is empty", file=name, why="it has no value", fix="give lines of image,value")
    middle = float(np.median(known))
    width = float(np.abs(known - middle).mean())
    if not width > 0.0:
        raise DataError(f"{name} has one value alone", file=name, why="there is nothing to learn from it")
    return middle, width
