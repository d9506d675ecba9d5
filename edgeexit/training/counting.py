"""Counting: how many whole items lie on a canvas, among scraps of others. A regression from real images."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeexit.training.batches import ItemBatches
from edgeexit.training.data import Samples


@dataclass(frozen=True, slots=True)
class Counting:
    """How a canvas is made: `scraps` pieces of items, then between `least` and `most` whole items.

    Units: canvas and scrap, side in pixels. Items may lie over each other, as people in a crowd do.
    """

    canvas: int
    least: int
    most: int
    scraps: int = 0
    scrap: int = 10

    def __post_init__(self) -> None:
        """Refuse what cannot be counted. Raises: ValueError."""
        if not 0 <= self.least < self.most or self.scraps < 0 or self.scrap < 1:
            raise ValueError("least must be from 0 to below most, scraps from 0, scrap from 1")


def counting_batch(items: Samples, count: int, counting: Counting, rng: np.random.Generator) -> Samples:
    """So many canvases with the number of whole items on each as its value.

    Shapes: items (N, C, H, W) with H, W at most the canvas; canvases (count, C, canvas, canvas).
    Raises: ValueError when an item or a scrap does not fit.
    """
    _, channels, height, width = items.images.shape
    side, scrap = counting.canvas, counting.scrap
    if max(height, width) > side or (counting.scraps and scrap > min(height, width)):
        raise ValueError(f"items of {height} × {width} and scraps of {scrap} do not fit a canvas of {side}")
    images = np.zeros((count, channels, side, side), dtype=np.float32)
    counts = rng.integers(counting.least, counting.most + 1, size=count)
    for canvas, wanted in zip(images, counts, strict=True):
        for _ in range(counting.scraps):
            y, x = rng.integers(0, height - scrap + 1), rng.integers(0, width - scrap + 1)
            piece = items.images[rng.integers(len(items)), :, y : y + scrap, x : x + scrap]  # C H W -> C s s
            _lay(canvas, piece, rng)
        for index in rng.integers(0, len(items), size=wanted):
            _lay(canvas, items.images[index], rng)
    return Samples(images=images, targets=counts.astype(np.float32), name=f"{items.name}-counting")


def counting_set(items: Samples, count: int, counting: Counting, *, seed: int) -> Samples:
    """A fixed set for calibration or test. Shapes: (count, C, canvas, canvas)."""
    return counting_batch(items, count, counting, np.random.default_rng(seed))


@dataclass(slots=True)
class CountingBatches(ItemBatches):
    """Canvases made anew for every batch."""

    counting: Counting = field(kw_only=True)

    def batch(self, number: int, size: int) -> Samples:
        """Batch `number`."""
        rng = self.rng(number)
        return self._mirrored(counting_batch(self.items, size, self.counting, rng), rng)


def _lay(canvas: NDArray[np.float32], piece: NDArray[np.float32], rng: np.random.Generator) -> None:
    height, width = piece.shape[1:]
    y = rng.integers(0, canvas.shape[1] - height + 1)
    x = rng.integers(0, canvas.shape[2] - width + 1)
    np.copyto(canvas[:, y : y + height, x : x + width], piece, where=piece > 0)
