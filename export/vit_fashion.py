"""Recipe: a small ViT with three exits on Fashion-MNIST as it is, or on small images of your own.

python export/vit_fashion.py --out build/vit-fashion
edgeexit train export/vit_fashion.py --data imagefolder:photos --epochs 20
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from edgeexit.cli.recipe_run import run
from edgeexit.models.vit import ViTConfig
from edgeexit.training.networks import own_vit
from edgeexit.training.recipe import Conversion, Recipe
from edgeexit.training.recipe_data import plain_data
from edgeexit.training.schedule import TrainingConfig

NETWORK = ViTConfig(
    img_size=28,
    patch_size=4,
    in_chans=1,
    num_classes=10,
    embed_dim=96,
    depth=6,
    num_heads=3,
    exits=(2, 4, 6),
    # Of the training images.
    mean=(0.29,),
    std=(0.35,),
    head_hidden_dims=(64,),
    stem_dims=(16, 32),
)
TINY_NETWORK = replace(NETWORK, embed_dim=24, depth=2, exits=(1, 2), head_hidden_dims=(), stem_dims=(8,))


def recipe() -> Recipe:
    """The recipe, and its tiny size for continuous integration."""
    full = Recipe(
        name="vit-fashion",
        file=Path(__file__),
        image_shape=(1, 28, 28),
        network=partial(own_vit, NETWORK),
        data=partial(plain_data, (1, 28, 28), held_out=5000, test=10_000),
        # Two rounds of the items; several minutes on two cores.
        training=TrainingConfig(samples=110_000, seconds=600.0),
        conversion=Conversion(licence="MIT"),
    )
    tiny = replace(
        full,
        name="vit-fashion-tiny",
        network=partial(own_vit, TINY_NETWORK),
        data=partial(plain_data, (1, 28, 28), held_out=64, test=64),
        training=TrainingConfig(samples=1024, batch_size=32),
        conversion=replace(full.conversion, variants=("f32",), codec_samples=16),
    )
    return replace(full, tiny=tiny)


if __name__ == "__main__":
    sys.exit(run(recipe()))
