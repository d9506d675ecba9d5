"""Recipe: a ViT that counts the garments on a canvas; every exit gives a value and how far off it may be.

Canvases are made of Fashion-MNIST: one to eight whole items among scraps of others, which do not count.

    python export/vit_counting.py --out build/vit-counting
    edgeexit train export/vit_counting.py --data csv:counts.csv
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from edgeexit.cli.recipe_run import run
from edgeexit.models.vit import ViTConfig
from edgeexit.training.counting import Counting
from edgeexit.training.networks import own_vit
from edgeexit.training.recipe import Conversion, Recipe
from edgeexit.training.recipe_data import counting_data
from edgeexit.training.schedule import TrainingConfig

NETWORK = ViTConfig(
    img_size=64,
    patch_size=8,
    in_chans=1,
    num_classes=1,
    embed_dim=96,
    depth=8,
    num_heads=3,
    exits=(2, 4, 6, 8),
    # Of the training canvases.
    mean=(0.19,),
    std=(0.32,),
    stem_dims=(16, 32),
)
COUNTING = Counting(canvas=64, least=1, most=8, scraps=4, scrap=8)
TINY_NETWORK = replace(NETWORK, embed_dim=24, depth=2, exits=(1, 2), stem_dims=(8,))


def recipe() -> Recipe:
    """The recipe, and its tiny size for continuous integration."""
    full = Recipe(
        name="vit-counting",
        file=Path(__file__),
        image_shape=(1, 64, 64),
        network=partial(own_vit, NETWORK),
        data=partial(counting_data, COUNTING, held_out=5000, test=10_000),
        training=TrainingConfig(samples=110_000, seconds=600.0),
        conversion=Conversion(licence="MIT"),
    )
    tiny = replace(
        full,
        name="vit-counting-tiny",
        network=partial(own_vit, TINY_NETWORK),
        data=partial(counting_data, COUNTING, held_out=300, test=100),
        training=TrainingConfig(samples=2048, batch_size=32),
        conversion=replace(full.conversion, variants=("f32",), codec_samples=16),
    )
    return replace(full, tiny=tiny)


if __name__ == "__main__":
    sys.exit(run(recipe()))
