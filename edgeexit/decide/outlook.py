"""What the next score may turn out to be, so that a decision can be put off until it is known."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import exp

from edgeexit.decide.calibration import QualityTable

# Groups of score bins an outlook keeps: six resolve the value of a further score to about 2 %.
GROUPS = 6
# Tilts tabulated, from "surely a poor score" to "surely a good one".
TILTS = tuple(step * 0.5 for step in range(-60, 61))

Groups = tuple[tuple[float, tuple[float, ...]], ...]


class ScoreOutlook:
    """Distribution of what exit k will say, given the quality that is expected of it before it speaks.

    Bins of a quality table have equal mass over all frames; for one frame they are tilted
    exponentially until their mean quality is the expected one, the least change that agrees with it.
    Source: minimum relative entropy, Csiszár, Annals of Probability 1975.
    """

    __slots__ = ("_groups", "_means")

    def __init__(self, table: QualityTable) -> None:
        rows = table.rows
        size = max(1, -(-len(rows) // GROUPS))
        grouped = [rows[start : start + size] for start in range(0, len(rows), size)]
        masses = [len(group) / len(rows) for group in grouped]
        means = [tuple(sum(column) / len(group) for column in zip(*group, strict=True)) for group in grouped]
        own = [row[table.exit] for row in means]
        tilted: list[tuple[float, Groups]] = []
        for tilt in TILTS:
            weights = [
                mass * exp(tilt * (quality - own[-1])) for mass, quality in zip(masses, own, strict=True)
            ]
            total = sum(weights)
            expected = sum(weight / total * quality for weight, quality in zip(weights, own, strict=True))
            tilted.append(
                (expected, tuple((weight / total, row) for weight, row in zip(weights, means, strict=True)))
            )
        self._means = tuple(expected for expected, _ in tilted)
        self._groups = tuple(groups for _, groups in tilted)

    def groups(self, expected: float | None) -> Groups:
        """Groups of outcomes, each its probability and expected qualities (K,); None: any frame."""
        if expected is None:
            return self._groups[len(TILTS) // 2]
        means = self._means
        index = min(bisect_left(means, expected), len(means) - 1)
        if index > 0 and expected - means[index - 1] < means[index] - expected:
            index -= 1
        return self._groups[index]


def outlooks(tables: Sequence[QualityTable]) -> tuple[ScoreOutlook, ...]:
    """One outlook an exit. Shapes: tables (K,), or empty where nothing is known."""
    return tuple(ScoreOutlook(table) for table in tables)
