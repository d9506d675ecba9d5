"""New exits of a published model, trained before they are converted; the model itself stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeexit.cli.given_images import with_kind
from edgeexit.cli.sources.opened import Asked, Opened
from edgeexit.errors import ConfigError, DataError

if TYPE_CHECKING:
    from edgeexit.cli.material import Told

# Enough for new exits to find their way behind a backbone that stays as it is; more is better.
TRAIN_SAMPLES = 6_000


def trained(
    opened: Opened, told: Told, asked: Asked, labels: tuple[str, ...], say: Callable[[str], None]
) -> Opened:
    """The same with its new exits trained, or found trained; the backbone stays as it is.

    Raises: ConfigError, DataError, TrainingDiverged.
    """
    from edgeexit.cli.material import choices_of
    from edgeexit.cli.recipe_flow import find_or_train, prepare
    from edgeexit.convert.plan import LEAST_GOLDEN
    from edgeexit.models.attached import AttachedNetwork
    from edgeexit.training.own_data import own_data
    from edgeexit.training.recipe import Conversion, Recipe
    from edgeexit.training.schedule import TrainingConfig

    network = opened.network
    if not isinstance(network, AttachedNetwork) or not opened.untrained:
        raise ConfigError(
            "there is nothing to train here",
            key="train",
            why="--train is for new exits of a published model",
            fix="leave it out; a network of your own is trained by a recipe: edgeexit train",
        )
    if told.data is None:
        raise ConfigError(
            "there is nothing to learn from",
            key="data",
            why="new exits are trained on images, and no --data were given",
            fix="--data imagefolder:FOLDER, with one folder for each class, or csv:FILE with values",
        )
    if told.dry_run:
        return opened
    for parameter in network.backbone_parameters():
        parameter.requires_grad_(False)
    data = with_kind(told)
    recipe = Recipe(
        name=told.name,
        file=Path(__file__),
        image_shape=opened.image_shape,
        network=lambda wanted: network,
        data=lambda root, tell: own_data(data, opened.image_shape, tell),
        training=TrainingConfig(samples=TRAIN_SAMPLES, batch_size=32),
        conversion=Conversion(licence=told.licence or "not stated"),
        tasks=(opened.task,),
    )
    choices = replace(choices_of(told, asked), data=data, after=None, branch=None)
    prepared = prepare(recipe, choices, say)
    if prepared.data.classes != labels:
        raise ConfigError(
            f"{told.data} does not fit these labels",
            key="labels",
            why=f"its folders are {', '.join(prepared.data.classes[:8])}",
            fix="leave --labels out",
        )
    if len(prepared.data.held_out) < LEAST_GOLDEN:
        raise DataError(
            f"{told.data} has too few images",
            file=told.data,
            why=f"{len(prepared.data.held_out)} are held out of training, at least {LEAST_GOLDEN} are needed",
            fix="give more images",
        )
    found = find_or_train(prepared, choices, say)
    say(f"train      weights: {found.path}")
    return replace(opened, checkpoint_sha256=found.sha256, untrained=())
