"""Recipe: ViT-Tiny at 224 × 224 in colour, four exits, on canvases of Fashion-MNIST in clutter.

Each canvas shows one whole item somewhere among scraps of others, enlarged four times. The network is the
ViT-Tiny of the literature (192 wide, 12 blocks, 3 heads, patches of 16); it wants a
GPU, and is also the one to train on photos of your own from nothing.

    edgeexit train export/vit_tiny_canvas.py --device cuda
    python export/vit_tiny_canvas.py --out build/vit-tiny-canvas
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from edgeexit.cli.recipe_run import run
from edgeexit.models.vit import ViTConfig
from edgeexit.training.clutter import Clutter
from edgeexit.training.methods import BackboneFirst
from edgeexit.training.networks import own_vit
from edgeexit.training.objective import Objective
from edgeexit.training.recipe import Conversion, Recipe
from edgeexit.training.recipe_data import clutter_data
from edgeexit.training.schedule import TrainingConfig

NETWORK = ViTConfig(
    img_size=224,
    patch_size=16,
    in_chans=3,
    num_classes=10,
    embed_dim=192,
    depth=12,
    num_heads=3,
    exits=(3, 6, 9, 12),
    # Of the training canvases: much of them is black.
    mean=(0.16, 0.16, 0.16),
    std=(0.28, 0.28, 0.28),
    head_hidden_dims=(128,),
)
CLUTTER = Clutter(canvas=56, scrap=12, under=6, over=1)
TINY_NETWORK = replace(NETWORK, embed_dim=24, depth=2, num_heads=2, exits=(1, 2), head_hidden_dims=())


def recipe() -> Recipe:
    """The recipe, and its tiny size for continuous integration: the same images, a small network."""
    full = Recipe(
        name="vit-tiny-canvas",
        file=Path(__file__),
        image_shape=(3, 224, 224),
        network=partial(own_vit, NETWORK),
        data=partial(clutter_data, CLUTTER, held_out=1000, test=1000, shape=(3, 224, 224)),
        # Ten rounds of the items.
        training=TrainingConfig(samples=550_000, batch_size=128, learning_rate=3e-3, ema_decay=0.999),
        objective=Objective(method=BackboneFirst()),
        conversion=Conversion(licence="MIT", codec_samples=64),
    )
    tiny = replace(
        full,
        name="vit-tiny-canvas-tiny",
        network=partial(own_vit, TINY_NETWORK),
        data=partial(clutter_data, CLUTTER, held_out=48, test=32, shape=(3, 224, 224)),
        training=TrainingConfig(samples=256, batch_size=32),
        conversion=replace(full.conversion, variants=("f32",), codec_samples=16),
    )
    return replace(full, tiny=tiny)


if __name__ == "__main__":
    sys.exit(run(recipe()))
