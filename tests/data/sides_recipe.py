"""A recipe for tests: is the left or the right half of a small grey image the brighter one?

The environment says what goes wrong: SIDES_NAN makes images that are no numbers, SIDES_PAUSE_S waits before
each batch, SIDES_VALUES gives values.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from edgeexit.models.vit import ViTConfig
from edgeexit.training.batches import BatchSource, ItemBatches
from edgeexit.training.data import Samples
from edgeexit.training.networks import own_vit
from edgeexit.training.recipe import Conversion, Recipe, RecipeData, Say
from edgeexit.training.schedule import TrainingConfig

NETWORK = ViTConfig(
    img_size=8, patch_size=4, in_chans=1, num_classes=2, embed_dim=32, depth=3, num_heads=2,
    exits=(1, 2, 3), mean=(0.5,), std=(0.3,), head_hidden_dims=(16,), head_dropout=0.1,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Slow:
    source: BatchSource
    pause_s: float

    def batch(self, number: int, size: int) -> Samples:
        time.sleep(self.pause_s)
        return self.source.batch(number, size)


def sides(count: int, seed: int) -> Samples:
    random = np.random.default_rng(seed)
    images = random.integers(0, 128, (count, 1, 8, 8))
    targets = random.integers(0, 2, count)
    for image, target in zip(images, targets, strict=True):
        image[0, :, 4 * target : 4 * target + 4] += 100
    pixels = images.astype(np.float32) / np.float32(255)
    if "SIDES_NAN" in os.environ:
        pixels[:] = np.nan
    if "SIDES_VALUES" in os.environ:
        return Samples(pixels, targets.astype(np.float32), "sides")
    return Samples(pixels, targets.astype(np.int64), "sides")


def data(root: Path | None, say: Say) -> RecipeData:
    values = "SIDES_VALUES" in os.environ
    items = sides(256, seed=0)
    pause_s = float(os.environ.get("SIDES_PAUSE_S", "0"))
    return RecipeData(
        train=lambda seed: Slow(ItemBatches(items, seed=seed, mirror=False), pause_s),
        items=Samples(np.zeros_like(items.images), items.targets, "sides"),
        held_out=sides(64, seed=1),
        test=sides(64, seed=2),
        classes=() if values else ("left", "right"),
        name="sides",
        value_offset=0.5,
        value_scale=0.5,
    )


def recipe() -> Recipe:
    return Recipe(
        name="sides",
        file=Path(__file__),
        image_shape=(1, 8, 8),
        network=partial(own_vit, NETWORK),
        data=data,
        training=TrainingConfig(samples=960, batch_size=32),
        conversion=Conversion(licence="MIT"),
    )
