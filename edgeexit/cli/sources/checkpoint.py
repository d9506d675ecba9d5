"""A file of weights: one that says what network it is of, or one whose family is named."""

from __future__ import annotations

from pathlib import Path

from edgeexit.cli.sources.opened import Asked, Opened
from edgeexit.errors import ConfigError
from edgeexit.models.description import FAMILIES
from edgeexit.training.family_weights import read_family
from edgeexit.training.stored import StoredNetwork, read_stored


def open_checkpoint(path: Path, asked: Asked) -> Opened:
    """The network of a file. Raises: ConfigError, DataError, UnsupportedModel."""
    asked.only("a checkpoint", "family", "config", "image_shape")
    stored = _stored(path, asked)
    description = stored.description
    if asked.image_shape not in (None, description.image_shape):
        raise ConfigError(
            "--image says another size than the weights",
            key="image",
            why=f"{path} takes images of {' × '.join(map(str, description.image_shape))}",
            fix="leave --image out",
        )
    return Opened(
        network=stored.network,
        network_words=str(description),
        image_shape=description.image_shape,
        task=description.task,
        classes=description.classes,
        labels=stored.labels,
        checkpoint_sha256=stored.sha256,
    )


def _stored(path: Path, asked: Asked) -> StoredNetwork:
    if asked.family is None:
        if asked.config is not None:
            raise ConfigError(
                "--config goes with --family",
                key="config",
                why="a configuration is read by the family that it is of",
                fix=f"one of {', '.join(FAMILIES)}, as --family",
            )
        return read_stored(path)
    return read_family(path, asked.family, asked.config)
