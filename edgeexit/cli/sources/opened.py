"""A network that a command was given, and what was said about it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from edgeexit.bundle.manifest import Task
from edgeexit.errors import ConfigError

if TYPE_CHECKING:
    from edgeexit.models.branch_config import BranchKind
    from edgeexit.models.protocol import MultiExitNetwork

ImageShape = tuple[int, int, int]

# What is known from the images, and not from an option of the network.
_OF_DATA = ("labels", "value_offset", "value_scale")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the options say about the network; None and empty where they say nothing.

    `labels` are those of --labels, or the class folders of the images; values to be learnt lie about
    `value_offset`, `value_scale` wide. Shapes: image_shape (C, H, W).
    """

    after: tuple[int, ...] = ()
    branch: tuple[BranchKind, ...] = ()
    final: BranchKind | None = None
    family: str | None = None
    config: Path | None = None
    weights: Path | None = None
    download: bool = False
    random_weights: bool = False
    image_shape: ImageShape | None = None
    task: Task | None = None
    seed: int = 0
    labels: tuple[str, ...] = ()
    value_offset: float = 0.0
    value_scale: float = 1.0

    def only(self, kind: str, *allowed: str) -> None:
        """Refuse what says nothing to this kind of source. Raises: ConfigError."""
        nothing = Asked()
        for field in fields(self):
            name = field.name
            if name in (*_OF_DATA, "seed", *allowed) or getattr(self, name) == getattr(nothing, name):
                continue
            option = "--" + name.replace("_", "-").removesuffix("-shape")
            raise ConfigError(
                f"{option} says nothing here",
                key=name,
                why=f"the source is {kind}",
                fix=f"leave it out; what counts here: {_options(allowed)}",
            )


def _options(names: tuple[str, ...]) -> str:
    return (
        ", ".join("--" + name.replace("_", "-").removesuffix("-shape") for name in names) or "no such option"
    )


@dataclass(frozen=True, slots=True)
class Opened:
    """A network, ready to be converted.

    `network_words` describe it for a manifest; `labels` are its own, empty where it has none; `untrained` are
    the exits whose weights are drawn at random. `classes` is 0 where exits give value and spread.
    Shapes: image_shape (C, H, W).
    """

    network: MultiExitNetwork
    network_words: str
    image_shape: ImageShape
    task: Task
    classes: int
    labels: tuple[str, ...] = ()
    checkpoint_sha256: str | None = None
    recipe_sha256: str | None = None
    untrained: tuple[int, ...] = ()
    name: str | None = None
