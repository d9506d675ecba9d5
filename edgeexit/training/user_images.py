"""Images that somebody has: a folder with one folder a class, or a CSV file of image and value.

Nothing is fetched. An image that cannot be read is left out, and told of.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeexit.errors import DataError, MissingExtra
from edgeexit.training.data import Samples

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
# All images are held at once as float32.
SET_CAP_BYTES = 8 * 2**30
# A larger picture than any camera's here would fill the memory before it is shrunk.
PIXEL_CAP = 100_000_000
# A million lines of path and value.
CSV_CAP_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Skipped:
    """An image that was left out."""

    file: str
    why: str


@dataclass(frozen=True, slots=True)
class UserImages:
    """What could be read. `classes` is empty for values."""

    samples: Samples
    classes: tuple[str, ...]
    skipped: tuple[Skipped, ...]


def image_folder(
    root: Path,
    shape: tuple[int, int, int],
    *,
    classes: tuple[str, ...] | None = None,
    tell: Callable[[str], None],
) -> UserImages:
    """The images of a folder that has one folder for each class, as torchvision's ImageFolder reads them.

    Class numbers follow the folders' names in order. With `classes` the folders must be just these.
    `tell` gets a line about each image left out. Shapes: (C, H, W).
    Raises: DataError when there is no such folder, its classes are others, or nothing can be read.
    """
    if not root.is_dir():
        raise DataError(
            f"{root} is no folder",
            file=str(root),
            why="a file is there" if root.exists() else "there is no such path",
            fix="name a folder with one folder a class",
        )
    found = tuple(sorted(each.name for each in root.iterdir() if each.is_dir()))
    if len(found) < 2 or (classes is not None and found != classes):
        wanted = "two or more are needed" if classes is None else f"these are wanted: {', '.join(classes)}"
        raise DataError(
            f"{root} has {len(found)} classes",
            file=str(root),
            why=f"{wanted}; there are: {', '.join(found) or 'none'}",
            fix="one folder of images for each class, of the same names in every split",
        )
    listed = [
        (path, float(index))
        for index, name in enumerate(found)
        for path in sorted((root / name).rglob("*"))
        if path.suffix.lower() in IMAGE_SUFFIXES
    ]
    images, targets, skipped = _read_all(listed, shape, root, tell)
    for index, name in enumerate(found):
        if not (targets == index).any():
            raise DataError(
                f"class {name} has no image that can be read",
                file=str(root / name),
                why="its folder is empty, or every file in it is damaged or no image",
                fix=f"put images into {root / name}, or remove that folder",
            )
    return UserImages(Samples(images, targets.astype(np.int64), root.name), found, skipped)


def value_csv(path: Path, shape: tuple[int, int, int], *, tell: Callable[[str], None]) -> UserImages:
    """The images and values of a CSV file with the columns `image` and `value`.

    Images are named relative to the file. `tell` gets a line about each image left out. Shapes: (C, H, W).
    Raises: DataError naming the line when it is malformed, or when nothing can be read.
    """
    listed = csv_values(path)
    images, values, skipped = _read_all(listed, shape, path, tell)
    return UserImages(Samples(images, values, path.stem), (), skipped)


def csv_values(path: Path) -> list[tuple[Path, float]]:
    """Images and values of a CSV file, no image read. Raises: DataError naming the line."""
    try:
        if path.stat().st_size > CSV_CAP_BYTES:
            raise DataError(f"{path} is refused", file=str(path), why=f"over {CSV_CAP_BYTES} bytes")
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.DictReader(stream, strict=True)
            if rows.fieldnames is None or not {"image", "value"} <= set(rows.fieldnames):
                raise DataError(
                    f"{path} has no columns image and value",
                    file=str(path),
                    why="its first line does not name them",
                    fix="begin it with: image,value",
                )
            return [_row(row, path, rows.line_num) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read", file=str(path), why=str(error)) from error


def _row(row: dict[str, str | None], path: Path, line: int) -> tuple[Path, float]:
    """Image and value of a line. Raises: DataError."""
    name = row.get("image")
    if not name:
        raise DataError(
            f"{path}:{line} names no image",
            file=str(path),
            why="the column image is empty",
            fix="correct that line, or remove it",
        )
    try:
        value = float(row.get("value") or "")
    except ValueError as error:
        raise DataError(f"{path}:{line} has no value", file=str(path), why=str(error)) from error
    if not math.isfinite(value):
        raise DataError(f"{path}:{line} has no value", file=str(path), why=f"{value} is no number")
    return path.parent / name, value


def _read_all(
    listed: list[tuple[Path, float]], shape: tuple[int, int, int], place: Path, tell: Callable[[str], None]
) -> tuple[NDArray[np.float32], NDArray[np.float32], tuple[Skipped, ...]]:
    """Images, targets, and what was left out. Raises: DataError."""
    if shape[0] not in (1, 3):
        raise DataError(f"no image has {shape[0]} channels", file=str(place), why="1 or 3 can be read")
    if len(listed) * math.prod(shape) * 4 > SET_CAP_BYTES:
        raise DataError(f"{place} has too many images", file=str(place), why=f"over {SET_CAP_BYTES} bytes")
    images = np.empty((len(listed), *shape), dtype=np.float32)
    kept: list[float] = []
    skipped: list[Skipped] = []
    for path, target in listed:
        image = _read(path, shape)
        if isinstance(image, Skipped):
            skipped.append(image)
            tell(f"left out {path}: {image.why}")
            continue
        images[len(kept)] = image
        kept.append(target)
    if not kept:
        raise DataError(
            f"{place} has no image that can be read", file=str(place), why=f"{len(skipped)} were tried"
        )
    if skipped:
        tell(f"left out {len(skipped):,} of {len(listed):,} images of {place}")
    return images[: len(kept)], np.asarray(kept, dtype=np.float32), tuple(skipped)


def _read(path: Path, shape: tuple[int, int, int]) -> NDArray[np.float32] | Skipped:
    """One image, resized to fill the shape and cut at the longer side. Shapes: (C, H, W)."""
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise MissingExtra("pillow", extra="device", needed_for="reading images") from error
    channels, height, width = shape
    try:
        with Image.open(path) as opened:
            if opened.width * opened.height > PIXEL_CAP:
                return Skipped(str(path), f"over {PIXEL_CAP:,} pixels")
            upright = ImageOps.exif_transpose(opened).convert("L" if channels == 1 else "RGB")
            fitted = ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        return Skipped(str(path), str(error) or type(error).__name__)
    pixels = np.asarray(fitted, dtype=np.float32) / np.float32(255)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)  # H W (3) -> C H W
