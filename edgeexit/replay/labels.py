"""Where names stand beside the points of a plot, so that none is written over another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Label:
    """A name's box, all in one unit: its left edge, the height it would like to stand at, and its width."""

    left: float
    wanted: float
    width: float


def heights_apart(labels: Sequence[Label], *, line: float) -> list[float]:
    """The height at which each label stands: as wanted, or a little lower, a `line` off all others."""
    heights = [label.wanted for label in labels]
    placed: list[int] = []
    for index in sorted(range(len(labels)), key=lambda at: -labels[at].wanted):
        beside = [each for each in placed if _side_by_side(labels[each], labels[index])]
        # Only ever lower, past one after the other from the highest down: once through is enough.
        for each in sorted(beside, key=lambda at: -heights[at]):
            if abs(heights[index] - heights[each]) < line:
                heights[index] = heights[each] - line
        placed.append(index)
    return heights


def _side_by_side(one: Label, other: Label) -> bool:
    return one.left < other.left + other.width and other.left < one.left + one.width
