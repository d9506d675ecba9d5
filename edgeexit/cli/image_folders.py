"""Folders of labelled images as arrays, as converting needs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import Preprocessing, TensorSpec
from edgeexit.errors import DataError
from edgeexit.replay.record import Truth, labelled_images, read_truth
from edgeexit.runner.preprocess import input_tensors

# All images are held at once, as 8-bit values, next to the converter's own memory.
SET_CAP_BYTES = 4 * 2**30
# A thousand labels of ImageNet take 30 kB.
LABELS_CAP_BYTES = 2**20
_IMAGE = "image"
_LABELLING = 'give a folder with one folder of images for each class, or with a truth.json: {"a.png": 3, …}'


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Images with their classes, or with values. Shapes: images (N, C, H, W), targets (N,)."""

    images: NDArray[np.uint8]
    targets: NDArray[np.int64] | NDArray[np.float64]


def read_image_set(
    folder: Path,
    labels: tuple[str, ...],
    shape: tuple[int, int, int],
    *,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ImageSet:
    """The labelled images of a folder, in the network's size and colours, as a board would fit them.

    Without labels the targets are values, as truth.json has them. `limit` takes so many, spread evenly
    over all by name. `progress` is told images done and in all.
    Shapes: `shape` is (C, H, W).
    Raises: DataError, MissingExtra.
    """
    truth = some_of(labelled_folder(folder, labels), limit)
    size_bytes = len(truth) * int(np.prod(shape, dtype=np.int64))
    if size_bytes > SET_CAP_BYTES:
        raise DataError(
            f"{folder} holds too many images",
            file=str(folder),
            why=f"{len(truth):,} of them take {size_bytes:,} bytes, {SET_CAP_BYTES:,} are allowed",
            fix="take fewer with --limit",
        )
    how, spec = _fitting(shape)
    images = np.empty((len(truth), *shape), dtype=np.uint8)
    classes = np.empty(len(truth), dtype=np.int64)
    values = np.empty(len(truth), dtype=np.float64)
    for index, labelled in enumerate(labelled_images(folder, truth)):
        tensor = input_tensors(labelled.image, how, spec)[_IMAGE]  # (1, C, H, W), k / 255
        images[index] = np.rint(tensor[0] * 255.0)
        values[index] = labelled.truth
        if labels:
            classes[index] = _class_of(labelled.truth, labels, folder, labelled.source)
        if progress is not None:
            progress(index + 1, len(truth))
    return ImageSet(images, classes if labels else values)


def labelled_folder(folder: Path, labels: tuple[str, ...]) -> Truth:
    """What the images of a folder show. Raises: DataError, with a way out."""
    try:
        return read_truth(existing_folder(folder), labels)
    except DataError as error:
        if error.fix is not None:
            raise
        names = class_folders(folder)
        if labels and names and not set(names) & set(labels):
            raise DataError(
                error.what,
                file=error.file,
                why=f"its folders ({_some(names)}) have none of the network's labels ({_some(labels)})",
                fix=_LABELLING,
            ) from error
        raise DataError(error.what, file=error.file, why=error.why, fix=_LABELLING) from error


def some_of(truth: Truth, limit: int | None) -> Truth:
    """At most `limit` entries, spread evenly by name, so that every class folder has its share."""
    names = sorted(truth)
    if limit is None or limit >= len(names):
        return truth
    chosen = np.linspace(0, len(names) - 1, num=limit).astype(int)
    return {names[index]: truth[names[index]] for index in chosen}


def class_folders(folder: Path) -> tuple[str, ...]:
    """The names of the folders in a folder, in order; none where it has a truth.json instead."""
    if (folder / "truth.json").is_file() or not folder.is_dir():
        return ()
    return tuple(sorted(each.name for each in folder.iterdir() if each.is_dir()))


def read_labels(path: Path) -> tuple[str, ...]:
    """One label a line; empty lines do not count. Raises: DataError."""
    try:
        if path.stat().st_size > LABELS_CAP_BYTES:
            raise DataError(
                f"{path} is refused",
                file=str(path),
                why=f"over {LABELS_CAP_BYTES} bytes",
                fix="one label a line, UTF-8",
            )
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read", file=str(path), why=str(error), fix="one label a line, UTF-8"
        ) from error
    return tuple(line.strip() for line in lines if line.strip())


def existing_folder(folder: Path) -> Path:
    """The folder. Raises: DataError when there is none."""
    if not folder.is_dir():
        raise DataError(
            f"{folder} is no folder",
            file=str(folder),
            why="a file is there" if folder.exists() else "there is no such path",
            fix=_LABELLING,
        )
    return folder


def _some(names: tuple[str, ...]) -> str:
    return ", ".join((*names[:5], "…") if len(names) > 5 else names)


def _fitting(shape: tuple[int, int, int]) -> tuple[Preprocessing, TensorSpec]:
    channels, height, width = shape
    if channels not in (1, 3):
        raise DataError(
            "no image fits this network",
            file=_IMAGE,
            why=f"it takes {channels} channels, neither 1 nor 3",
            fix="convert it from Python with arrays of your own: see examples/own_model.py",
        )
    how = Preprocessing(height=height, width=width, color="gray" if channels == 1 else "rgb", layout="NCHW")
    return how, TensorSpec(name=_IMAGE, shape=(1, *shape))


def _class_of(truth: float, labels: tuple[str, ...], folder: Path, source: str) -> int:
    if not (truth == int(truth) and 0 <= truth < len(labels)):
        raise DataError(
            f"{source} is of no known class",
            file=str(folder / source),
            why=f"{truth:g} is not between 0 and {len(labels) - 1}",
            fix="give class numbers or names of the network's labels in truth.json",
        )
    return int(truth)
