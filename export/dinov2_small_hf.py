"""Recipe: Hugging Face's DINOv2-small with three early exits, trained on Fashion-MNIST or your own images.

DINOv2 has no head: features as they were published, branches of our own behind the 3rd, 6th, 9th and last
block. Positions are resampled for 112 × 112 pixels, as the library does it. Weights are yours to bring, as
`save_pretrained` stores them or exported to ONNX, or transformers fetches them:

    python export/dinov2_small_hf.py --weights dinov2-small/ --out build/dinov2-small
    python export/dinov2_small_hf.py --download --out build/dinov2-small
    python export/dinov2_small_hf.py --tiny --out build/dinov2-small-tiny

`export/vit_small_focus.py` is the same with a pretrained ONNX file that installs as a package. This needs
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

HUB_NAME = "facebook/dinov2-small"


def network(wanted: NetworkWanted) -> AttachedNetwork:
    """DINOv2-small with exits.

    Raises: ConfigError when there are no weights, DataError when they cannot be read.
    """
    require_weights(
        wanted, what="a folder that save_pretrained wrote, or an ONNX file", library="transformers"
    )
    return with_exits(wanted.weights or HUB_NAME, (3, 6, 9), wanted, image_size=112)


def tiny_network(wanted: NetworkWanted) -> AttachedNetwork:
    """The same architecture, small and with random weights."""
    make_importable()
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(wanted.seed)
    model: torch.nn.Module = Dinov2Model(
        Dinov2Config(hidden_size=24, num_hidden_layers=3, num_attention_heads=3, image_size=56, patch_size=14)
    )
    return with_exits(model, (1,), wanted, image_size=28)


def recipe() -> Recipe:
    """The recipe, and its tiny size for continuous integration."""
    full = Recipe(
        name="dinov2-small-fashion",
        file=Path(__file__),
        image_shape=(3, 112, 112),
        network=network,
        data=partial(plain_data, (3, 112, 112), held_out=1000, test=1000),
        # Enough to see the way; the branches go on gaining from more. Rate and schedule are the loop's own.
        training=TrainingConfig(samples=6_000, batch_size=32),
        objective=Objective(method=FrozenBackbone()),
        conversion=Conversion(licence="Apache-2.0 (weights), MIT (data)", codec_samples=64),
    )
    tiny = replace(
        full,
        name="dinov2-small-fashion-tiny",
        image_shape=(3, 28, 28),
        network=tiny_network,
        data=partial(plain_data, (3, 28, 28), held_out=64, test=32),
        training=TrainingConfig(samples=256, batch_size=32),
        conversion=replace(full.conversion, variants=("f32",)),
    )
    return replace(full, tiny=tiny)


if __name__ == "__main__":
    sys.exit(run(recipe()))
