"""Options that hold several values in one word."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, cast

from edgeexit.errors import ConfigError

if TYPE_CHECKING:
    from edgeexit.cli.sources.opened import ImageShape
    from edgeexit.models.branch_config import BranchKind

# The largest side of an image that a manifest takes.
_LARGEST_SIDE = 65_536


def words(text: str | None) -> tuple[str, ...]:
    """Words parted by commas."""
    return () if text is None else tuple(word.strip() for word in text.split(",") if word.strip())


def known_words(text: str, known: Sequence[str], *, key: str) -> tuple[str, ...]:
    """Words parted by commas, each of them known. Raises: ConfigError."""
    given = words(text)
    for word in given:
        if word not in known:
            near = get_close_matches(word, known, n=1)
            meant = f"did you mean {near[0]}?" if near else None
            raise ConfigError(
                f"--{key.replace('_', '-')} has no {word!r}",
                key=key,
                why=f"there are: {', '.join(known)}",
                fix=meant or "choose one of them",
            )
    if not given:
        raise ConfigError(
            f"--{key.replace('_', '-')} is empty",
            key=key,
            why=f"there are: {', '.join(known)}",
            fix="choose one of them, or leave it out",
        )
    return given


def depths(text: str | None) -> tuple[int, ...]:
    """Numbers of blocks. Raises: ConfigError."""
    try:
        return tuple(int(word) for word in words(text))
    except ValueError as error:
        raise ConfigError(
            f"--after {text} cannot be read", key="after", why=str(error), fix="--after 3,6,9"
        ) from error


def branches(text: str | None, *, key: str = "branch") -> tuple[BranchKind, ...]:
    """Kinds of branches. Raises: ConfigError."""
    from edgeexit.models.branch_config import BRANCH_KINDS

    if text is None:
        return ()
    return cast("tuple[BranchKind, ...]", known_words(text, BRANCH_KINDS, key=key))


def image_shape(text: str | None) -> ImageShape | None:
    """Channels, height and width. Raises: ConfigError."""
    if text is None:
        return None
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) == 3 and all(part.isdigit() and 0 < int(part) <= _LARGEST_SIDE for part in parts):
        channels, height, width = map(int, parts)
        return channels, height, width
    raise ConfigError(
        f"--image {text} cannot be read",
        key="image",
        why="channels, height and width are wanted",
        fix="--image 3x224x224",
    )
