"""What a conversion is made from: a network, its plan, and the images that calibrate and test it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeexit.cli.given_images import class_names, given_images, place_of, some_of_set
from edgeexit.cli.sources.opened import Asked, ImageShape, Opened
from edgeexit.errors import ConfigError

if TYPE_CHECKING:
    from edgeexit.cli.recipe_flow import Choices
    from edgeexit.convert.packers import Learning
    from edgeexit.convert.plan import ConversionPlan, LabelledSet
    from edgeexit.models.protocol import MultiExitNetwork

Say = Callable[[str], None]

# What a plan shows of a network whose images are not there yet.
_UNKNOWN_DATA = "no images yet"


@dataclass(frozen=True, slots=True)
class Told:
    """What the options say about data and bundle; None leaves it to the source.

    `data` is a folder of held-out images, or `KIND:PATH` with parts to train on, calibrate on and test on.
    `limit` is the most images of each set. Units: train_seconds, seconds.
    """

    data: str | None
    test: Path | None
    name: str
    version: str | None = None
    licence: str | None = None
    labels_file: Path | None = None
    error_scale: float | None = None
    limit: int | None = None
    train: bool = False
    train_samples: int | None = None
    train_seconds: float | None = None
    train_epochs: float | None = None
    tiny: bool = False
    dry_run: bool = False
    random_weights: bool = False
    work: Path = Path("build/work")


@dataclass(frozen=True, slots=True)
class Material:
    """Everything that `edgeexit.convert.conversion.convert` takes; without images it can only be planned.

    `untrained` are exits whose weights mean nothing, `learning` is what bottlenecks learn from, None where
    all images are held out. Shapes: image_shape (C, H, W).
    """

    network: MultiExitNetwork
    plan: ConversionPlan
    image_shape: ImageShape
    calibration: LabelledSet | None
    test: LabelledSet | None
    untrained: tuple[int, ...] = ()
    learning: Learning | None = None


def recipe_material(path: Path, asked: Asked, told: Told, say: Say) -> Material:
    """A recipe with its own data, or those given, and the weights that it was trained to.

    Raises: ConfigError when it was not trained and must not be now; DataError, CannotCut, MissingExtra.
    """
    from edgeexit.cli.recipe_flow import conversion_plan, find_or_train, prepare
    from edgeexit.convert.packers import Learning
    from edgeexit.training.checkpoint import load_checkpoint
    from edgeexit.training.recipe import read_recipe

    asked.only("a recipe", "after", "branch", "weights", "download", "random_weights")
    if told.test is not None or told.labels_file is not None:
        key = "test" if told.test is not None else "labels"
        raise ConfigError(
            f"--{key} says nothing here", key=key, why="a recipe's data have all parts", fix="leave it out"
        )
    choices = choices_of(told, asked)
    prepared = prepare(read_recipe(path), choices, say)
    untrained: tuple[int, ...] = ()
    sha256 = None
    if told.train and not told.dry_run:
        sha256 = find_or_train(prepared, choices, say).sha256
    else:
        sha256 = load_checkpoint(prepared.network, prepared.path, key=prepared.key)
    prepared.network.stages.eval()
    if sha256 is None:
        untrained = tuple(range(len(prepared.network.stages)))
    plan = conversion_plan(prepared, sha256 or "0" * 64)
    # The recipe's own name is that of its bundle, unless another is asked for.
    plan = replace(
        plan,
        version=told.version or plan.version,
        licence=told.licence or plan.licence,
        error_scale=told.error_scale or plan.error_scale,
        checkpoint_sha256=sha256,
    )
    data = prepared.data
    return Material(
        network=prepared.network,
        plan=plan,
        image_shape=prepared.recipe.image_shape,
        calibration=some_of_set(data.held_out, told.limit),
        test=some_of_set(data.test, told.limit),
        untrained=untrained,
        learning=Learning(prepared.source, prepared.key),
    )


def choices_of(told: Told, asked: Asked) -> Choices:
    """The options as the way of a recipe takes them."""
    from edgeexit.cli.recipe_flow import Choices

    return Choices(
        tiny=told.tiny,
        data=told.data,
        work=told.work,
        seed=asked.seed,
        samples=told.train_samples,
        seconds=told.train_seconds,
        epochs=told.train_epochs,
        after=asked.after or None,
        branch=asked.branch[0] if asked.branch else None,
        weights=asked.weights,
        download=asked.download,
    )


def source_material(source: str, asked: Asked, told: Told, say: Say) -> Material:
    """Any other source, with the images given.

    Raises: ConfigError, DataError, UnsupportedModel, CannotCut, MissingExtra.
    """
    from edgeexit.cli.sources.opening import open_source

    if told.tiny:
        raise ConfigError(
            "--tiny goes with a recipe",
            key="tiny",
            why="only a recipe says what its tiny size is",
            fix="leave it out",
        )
    folder_names = class_names(told)
    if told.labels_file is not None:
        from edgeexit.cli.image_folders import read_labels

        asked = replace(asked, labels=read_labels(told.labels_file))
    else:
        asked = replace(asked, labels=folder_names)
    if asked.task == "regression" and told.train:
        from edgeexit.training.own_data import own_value_range

        offset, scale = own_value_range(told.data or "")
        asked = replace(asked, value_offset=offset, value_scale=scale)
    opened = open_source(source, asked)
    labels = _labels(opened, told, folder_names)
    if told.train:
        from edgeexit.cli.exit_training import trained

        opened = trained(opened, told, asked, labels, say)
    plan = _plan(opened, told, labels, None)  # what it refuses is refused before any image is read
    given = given_images(opened, told, labels, asked.seed)
    if opened.task == "regression":
        plan = _plan(opened, told, labels, given.calibration)
    return Material(
        network=opened.network,
        plan=plan,
        image_shape=opened.image_shape,
        calibration=given.calibration,
        test=given.test,
        untrained=opened.untrained,
        learning=given.learning,
    )


def _plan(
    opened: Opened, told: Told, labels: tuple[str, ...], calibration: LabelledSet | None
) -> ConversionPlan:
    from edgeexit.convert.plan import ConversionPlan

    error_scale = None
    if opened.task == "regression":
        error_scale = told.error_scale
        if error_scale is None:
            # A plan without images shows no quality, so that any scale serves.
            error_scale = 1.0 if calibration is None else median_error(calibration)
    return ConversionPlan(
        name=told.name,
        version=told.version or "1.0.0",
        network=opened.network_words,
        dataset=_UNKNOWN_DATA if told.data is None else Path(place_of(told.data)).resolve().name,
        licence=told.licence or "not stated",
        labels=labels,
        task=opened.task,
        error_scale=error_scale,
        checkpoint_sha256=opened.checkpoint_sha256,
        recipe_sha256=opened.recipe_sha256,
    )


def _labels(opened: Opened, told: Told, folders: tuple[str, ...]) -> tuple[str, ...]:
    """The labels, from the first place that has some; numbers where none has.

    Raises: ConfigError when there are not as many as the network has classes; DataError.
    """
    from edgeexit.cli.image_folders import read_labels

    if opened.task == "regression":
        return ()
    numbers = tuple(map(str, range(opened.classes)))
    if told.labels_file is not None:
        found, place = read_labels(told.labels_file), str(told.labels_file)
    elif opened.labels:
        found, place = opened.labels, "the checkpoint"
    else:
        found, place = folders or numbers, str(told.data)
    if len(found) != opened.classes:
        raise ConfigError(
            f"{len(found)} labels for {opened.classes} classes",
            key="labels",
            why=f"that many are named by {place}",
            fix="name each class once, in the network's order, in a file given with --labels",
        )
    return found


def median_error(values: LabelledSet) -> float:
    """Mean absolute error of always giving the median. Raises: ConfigError when all values are the same."""
    targets = values.targets.astype(np.float64)
    error = float(np.abs(targets - np.median(targets)).mean())
    if not error > 0.0:
        raise ConfigError(
            "the calibration images do not differ in their values",
            key="error_scale",
            why="the error of always giving the median is the measure of a regression, and it is 0",
            fix="give images with different values in truth.json, or --error-scale",
        )
    return error
