"""Recipe: a ViT with four exits that names the garment on a cluttered canvas, made from Fashion-MNIST.

Each canvas shows one whole item somewhere, among scraps of other items: what belongs to it is seen from how
places fit together. All pixels are real ones; test canvases are made of test items only, calibration canvases
of items that training never saw.

Patches go into the first block as they are, as in the original ViT. Behind a stem of convolutions the exit
after one block would already be nearly as good as the last one, and depth would gain little.

    python export/vit_fashion_clutter.py --out build/bundle --work build/work
    edgeexit train export/vit_fashion_clutter.py

Copy this file to put a network of your own on a board: what a recipe names is a network that keeps
edgeexit.models.protocol, its data, and how it is trained and converted.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from edgeexit.cli.recipe_run import run
from edgeexit.models.vit import ViTConfig
from edgeexit.training.clutter import Clutter
from edgeexit.training.networks import own_vit
from edgeexit.training.recipe import Conversion, Recipe
from edgeexit.training.recipe_data import clutter_data
from edgeexit.training.schedule import TrainingConfig

NETWORK = ViTConfig(
    img_size=32,
    patch_size=4,
    in_chans=1,
    num_classes=10,
    # A power of two wide, with few heads: attention stays float in int8 variants, and weighs less here.
    embed_dim=128,
    # Deep enough that the first exit comes well before three tenths of the whole network's time.
    depth=8,
    num_heads=2,
    exits=(1, 3, 5, 8),
    # Of the training canvases.
    mean=(0.28,),
    std=(0.35,),
    head_hidden_dims=(64,),
)
CLUTTER = Clutter(canvas=32, scrap=10, under=3, over=1)

# For continuous integration: every step is real, but small enough to be done within a minute. Its stages
# still take long enough that a board which plays a slower one has something to decide.
TINY_NETWORK = replace(
    NETWORK,
    embed_dim=48,
    depth=6,
    num_heads=3,
    exits=(1, 2, 4, 6),
    head_hidden_dims=(32,),
    stem_dims=(8, 16),
)
TINY_CLUTTER = replace(CLUTTER, under=1, over=0)


def recipe() -> Recipe:
    """The recipe, and its tiny size."""
    tiny = Recipe(
        name="vit-fashion-clutter-tiny",
        file=Path(__file__),
        image_shape=(1, 32, 32),
        network=partial(own_vit, TINY_NETWORK),
        data=partial(clutter_data, TINY_CLUTTER, held_out=600, test=600),
        training=TrainingConfig(samples=8_000, seconds=90.0),
        conversion=Conversion(licence="MIT", codec_samples=64),
    )
    return replace(
        tiny,
        name="vit-fashion-clutter",
        network=partial(own_vit, NETWORK),
        data=partial(clutter_data, CLUTTER, held_out=5000, test=10_000),
        # More than two idle x86 cores do in the seconds given, about 75,000: training ends by the clock.
        training=TrainingConfig(samples=120_000, seconds=330.0),
        conversion=Conversion(licence="MIT", codec_samples=500),
        tiny=tiny,
    )


if __name__ == "__main__":
    sys.exit(run(recipe()))
