"""What ways of sending come to: one row each, which of them stay in the running, and the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt

import numpy as np
from numpy.typing import NDArray

# What may be lost: half a point of accuracy.
HALF_POINT = 0.005

# A way is sent on after the first canvases unless it loses more than half a point by this many errors,
# or takes this many times the bytes of the smallest of its kind that does not.
SURE_ERRORS = 2.0
DEAR = 2.5

Right = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Row:
    """One way of sending. Boundary 0 is the image.

    Units: bytes, of whole requests; accuracy, of the last exit on test canvases, fraction; lost_points,
    percentage points to the same canvases sent raw, with the standard error of this difference; ideal_bytes,
    what the values alone would take under the prior that was learnt beside a bottleneck.
    """

    boundary: int
    codec: str
    mean_bytes: int
    p95_bytes: int
    accuracy: float
    lost_points: float
    lost_points_error: float
    ideal_bytes: float | None = None
    samples: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """All rows, and what they come to; the cheapest ways within half a point are named.

    Only ways that were sent with all canvases count among the cheapest.
    """

    task: str
    samples: int
    accuracy_by_exit: tuple[float, ...]
    rows: tuple[Row, ...]
    best_image: str | None
    best_image_bytes: int | None
    best_boundary: str | None
    best_boundary_bytes: int | None
    bytes_ratio_at_half_point: float | None


@dataclass(slots=True)
class Tally:
    """Bytes and right answers of one way of sending."""

    boundary: int
    codec: str
    sizes: list[int] = field(default_factory=list)
    right: list[Right] = field(default_factory=list)
    ideal_bits: float | None = None

    def row(self, raw: Right) -> Row:
        """Shapes: raw (n,), whether the untouched canvases were answered rightly, this way's ones first."""
        right = np.concatenate(self.right)
        difference = raw[: len(right)].astype(float) - right.astype(float)
        return Row(
            boundary=self.boundary,
            codec=self.codec,
            mean_bytes=round(float(np.mean(self.sizes))),
            p95_bytes=round(float(np.quantile(self.sizes, 0.95))),
            accuracy=round(float(right.mean()), 4),
            lost_points=round(100.0 * float(difference.mean()), 2),
            lost_points_error=round(100.0 * float(difference.std()) / sqrt(len(right)), 2),
            ideal_bytes=None if self.ideal_bits is None else round(self.ideal_bits / len(right) / 8.0, 1),
            samples=len(right),
        )


def left_behind(rows: Sequence[Row]) -> frozenset[tuple[int, str]]:
    """The ways that need no more canvases: surely too lossy, or far larger than others of their kind."""
    hopeful = [
        row for row in rows if row.lost_points - SURE_ERRORS * row.lost_points_error <= 100.0 * HALF_POINT
    ]
    smallest: dict[int, int] = {}
    for row in hopeful:
        smallest[row.boundary] = min(row.mean_bytes, smallest.get(row.boundary, row.mean_bytes))
    staying = {
        (row.boundary, row.codec) for row in hopeful if row.mean_bytes <= DEAR * smallest[row.boundary]
    }
    return frozenset((row.boundary, row.codec) for row in rows) - staying


def cheapest(rows: Sequence[Row], boundaries: range) -> Row | None:
    """The smallest way of these boundaries within half a point, among those sent with most canvases."""
    most = max((row.samples for row in rows), default=0)
    fitting = [
        row
        for row in rows
        if row.samples == most and row.boundary in boundaries and row.lost_points <= 100.0 * HALF_POINT
    ]
    return min(fitting, key=lambda row: row.mean_bytes, default=None)


def summary(task: str, samples: int, exits: Sequence[float], rows: tuple[Row, ...]) -> Result:
    """The result, with the cheapest ways within half a point."""
    image = cheapest(rows, range(1))
    boundary = cheapest(rows, range(1, 1 + max(row.boundary for row in rows)))
    ratio = None if image is None or boundary is None else boundary.mean_bytes / image.mean_bytes
    return Result(
        task=task,
        samples=samples,
        accuracy_by_exit=tuple(round(each, 4) for each in exits),
        rows=rows,
        best_image=None if image is None else image.codec,
        best_image_bytes=None if image is None else image.mean_bytes,
        best_boundary=None if boundary is None else f"{boundary.codec} at boundary {boundary.boundary}",
        best_boundary_bytes=None if boundary is None else boundary.mean_bytes,
        bytes_ratio_at_half_point=None if ratio is None else round(ratio, 3),
    )
