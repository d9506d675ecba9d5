"""Recipe: timm's DeiT-Tiny with three early exits, its branches trained on Fashion-MNIST or your own images.

The backbone stays as it was published: what it computes is, bit by bit, what timm computes. Only the exits
are new. Weights are yours to bring, or timm fetches them:

    python export/deit_tiny_timm.py --weights deit_tiny_patch16_224.safetensors --out build/deit-tiny
    python export/deit_tiny_timm.py --download --out build/deit-tiny
    python export/deit_tiny_timm.py --tiny --out build/deit-tiny-tiny
    edgeexit train export/deit_tiny_timm.py --download --data imagefolder:photos

To put a model of your own on a board, replace `network` and the data. It needs
`pip install 'edgeexit[models]'`.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from edgeexit.cli.recipe_run import run
from edgeexit.models.attached import AttachedNetwork
from edgeexit.models.torchvision_operators import make_importable
from edgeexit.training.methods import FrozenBackbone
from edgeexit.training.networks import require_weights, with_exits
from edgeexit.training.objective import Objective
from edgeexit.training.recipe import Conversion, NetworkWanted, Recipe
from edgeexit.training.recipe_data import plain_data
from edgeexit.training.schedule import TrainingConfig

ARCHITECTURE = "deit_tiny_patch16_224"


def network(wanted: NetworkWanted) -> AttachedNetwork:
    """DeiT-Tiny with exits, its ImageNet head replaced by one for these classes.

    Raises: ConfigError when there are no weights, DataError when they cannot be read.
    """
    require_weights(wanted, what=f"of {ARCHITECTURE}, safetensors or torch", library="timm")
    # The head that it came with is for a thousand classes of ImageNet: the last exit is a fresh one.
    return with_exits(ARCHITECTURE, (3, 6, 9), wanted, checkpoint=wanted.weights, final="linear")


def tiny_network(wanted: NetworkWanted) -> AttachedNetwork:
    """The same architecture, small and with random weights."""
    make_importable()
    import timm

    torch.manual_seed(wanted.seed)
    model: torch.nn.Module = timm.create_model(
        ARCHITECTURE, img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=3
    )
    return with_exits(model, (1,), wanted, final="linear")


def recipe() -> Recipe:
    """The recipe, and its tiny size for continuous integration."""
    full = Recipe(
        name="deit-tiny-fashion",
        file=Path(__file__),
        image_shape=(3, 224, 224),
        network=network,
        data=partial(plain_data, (3, 224, 224), held_out=1000, test=1000),
        # Enough to see the way; the branches go on gaining from more. Rate and schedule are the loop's own.
        training=TrainingConfig(samples=6_000, batch_size=32),
        objective=Objective(method=FrozenBackbone()),
        conversion=Conversion(licence="Apache-2.0 (weights), MIT (data)", codec_samples=64),
    )
    tiny = replace(
        full,
        name="deit-tiny-fashion-tiny",
        image_shape=(3, 32, 32),
        network=tiny_network,
        data=partial(plain_data, (3, 32, 32), held_out=64, test=32),
        training=TrainingConfig(samples=256, batch_size=32),
        conversion=replace(full.conversion, variants=("f32",)),
    )
    return replace(full, tiny=tiny)


if __name__ == "__main__":
    sys.exit(run(recipe()))
