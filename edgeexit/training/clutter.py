"""A harder task from the same real items: a whole item somewhere on a canvas among scraps of others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeexit.training.data import Samples


@dataclass(frozen=True, slots=True)
class Clutter:
    """How a canvas is made: `under` scraps, then the whole item, then `over` scraps on top.

    Units: canvas and scrap, side in pixels.
    """

    canvas: int
    scrap: int
    under: int
    over: int


def clutter_batch(
    items: Samples, chosen: NDArray[np.int64], clutter: Clutter, rng: np.random.Generator
) -> Samples:
    """One canvas for each chosen item; its target is the item's.

    Scraps come from random items of the same set, so that no split ever shows a pixel of another.
    Black counts as see-through. Pixels are copied, never mixed: values stay k/255.

    Shapes: items (N, C, H, W) with H, W at most the canvas; canvases (len(chosen), C, canvas, canvas).
    Raises: ValueError when an item or a scrap does not fit.
    """
    count = len(chosen)
    _, channels, height, width = items.images.shape
    side, scrap, scraps = clutter.canvas, clutter.scrap, clutter.under + clutter.over
    if max(height, width) > side or not 0 < scrap <= min(height, width):
        raise ValueError(f"items of {height} × {width} and scraps of {scrap} do not fit a canvas of {side}")
    top = rng.integers(0, side - height + 1, size=count)
    left = rng.integers(0, side - width + 1, size=count)
    donors = rng.integers(0, len(items), size=(count, scraps))
    from_y = rng.integers(0, height - scrap + 1, size=(count, scraps))
    from_x = rng.integers(0, width - scrap + 1, size=(count, scraps))
    to_y = rng.integers(0, side - scrap + 1, size=(count, scraps))
    to_x = rng.integers(0, side - scrap + 1, size=(count, scraps))

    images = np.zeros((count, channels, side, side), dtype=np.float32)
    for i in range(count):

        def paste(j: int, i: int = i) -> None:
            y, x = from_y[i, j], from_x[i, j]
            source = items.images[donors[i, j], :, y : y + scrap, x : x + scrap]  # C H W -> C s s
            _lay(images[i], source, to_y[i, j], to_x[i, j])

        for j in range(clutter.under):
            paste(j)
        _lay(images[i], items.images[chosen[i]], top[i], left[i])
        for j in range(clutter.under, scraps):
            paste(j)
    return Samples(images=images, targets=items.targets[chosen], name=f"{items.name}-clutter")


def _lay(canvas: NDArray[np.float32], piece: NDArray[np.float32], y: int, x: int) -> None:
    place = canvas[:, y : y + piece.shape[1], x : x + piece.shape[2]]
    np.copyto(place, piece, where=piece > 0)


def clutter_set(items: Samples, clutter: Clutter, *, seed: int) -> Samples:
    """One canvas for every item, in order: the fixed set for calibration or test.

    Shapes: (N, C, H, W) to (N, C, canvas, canvas).
    """
    return clutter_batch(items, np.arange(len(items)), clutter, np.random.default_rng(seed))
