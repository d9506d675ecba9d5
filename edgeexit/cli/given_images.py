"""The images that --data names: a folder that is held out, or data with parts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeexit.cli.sources.opened import Opened
from edgeexit.errors import ConfigError, DataError

if TYPE_CHECKING:
    from edgeexit.cli.material import Told
    from edgeexit.convert.packers import Learning
    from edgeexit.convert.plan import LabelledSet
    from edgeexit.training.data import Samples


@dataclass(frozen=True, slots=True)
class Given:
    """Calibration and test images, in the network's size; the rest, where there is one, to learn from."""

    calibration: LabelledSet | None
    test: LabelledSet | None
    learning: Learning | None = None


def given_images(opened: Opened, told: Told, labels: tuple[str, ...], seed: int) -> Given:
    """The images, as far as they are named. Raises: DataError, ConfigError."""
    from edgeexit.cli.bar import Bar
    from edgeexit.cli.image_folders import existing_folder, read_image_set

    if told.data is None:
        return Given(None, None)
    if _has_parts(told):
        return _parts(opened, told, labels, seed)

    def read(folder: Path) -> LabelledSet:
        with Bar(f"reading {folder.name}", 0) as bar:
            return read_image_set(
                existing_folder(folder), labels, opened.image_shape, limit=told.limit, progress=bar.show
            )

    return Given(read(Path(told.data)), None if told.test is None else read(told.test))


def _parts(opened: Opened, told: Told, labels: tuple[str, ...], seed: int) -> Given:
    """What is held out of the data, their test part, and the rest. Raises: DataError, ConfigError."""
    from edgeexit.convert.packers import Learning
    from edgeexit.training.checkpoint import settings_key
    from edgeexit.training.own_data import own_data

    if told.test is not None:
        raise ConfigError(
            "--test says nothing here",
            key="test",
            why="the data have a test part of their own",
            fix="leave --test out",
        )
    skipped: list[str] = []
    data = own_data(with_kind(told), opened.image_shape, skipped.append)
    if data.task != opened.task or (data.classes and set(data.classes) != set(labels)):
        raise ConfigError(
            f"{told.data} does not fit this network",
            key="data",
            why=f"it has {', '.join(data.classes[:8]) or 'values'};"
            f" the network has {', '.join(labels[:8]) or 'values'}",
            fix="give data with the network's classes, or --labels in the network's order",
        )
    order = np.array([labels.index(name) for name in data.classes], dtype=np.int64)
    held_out, test = data.held_out, data.test
    if len(order):
        held_out = replace(held_out, targets=order[held_out.targets.astype(np.int64)])
        test = replace(test, targets=order[test.targets.astype(np.int64)])
    key = settings_key(["batches", *data.settings, seed], [data.items])
    return Given(
        some_of_set(held_out, told.limit), some_of_set(test, told.limit), Learning(data.train(seed), key)
    )


def class_names(told: Told) -> tuple[str, ...]:
    """The classes that folders of images are named by. Raises: DataError."""
    from edgeexit.cli.image_folders import class_folders

    if told.data is None:
        return ()
    place = Path(place_of(told.data))
    if _has_parts(told) and (place / "train").is_dir():
        place = place / "train"
    return class_folders(place)


def place_of(data: str) -> str:
    """The path in what --data says."""
    kind, _, place = data.partition(":")
    return place if place and not Path(data).exists() else kind


def _has_parts(told: Told) -> bool:
    from edgeexit.training.own_data import is_own_data

    return told.data is not None and (told.train or is_own_data(told.data))


def with_kind(told: Told) -> str:
    """The data as own_data takes them; a plain folder is one of images."""
    from edgeexit.training.own_data import is_own_data

    data = told.data or ""
    if is_own_data(data):
        return data
    if not Path(data).is_dir():
        raise DataError(
            f"{data} is no folder",
            file=data,
            why="there is no such path, or a file is there",
            fix="--data imagefolder:FOLDER",
        )
    return f"imagefolder:{data}"


def some_of_set(labelled: Samples, limit: int | None) -> Samples:
    """At most so many, spread evenly."""
    from edgeexit.convert.plan import evenly

    if limit is None or limit >= len(labelled):
        return labelled
    return labelled.take(np.array(evenly(len(labelled), limit), dtype=np.int64))
