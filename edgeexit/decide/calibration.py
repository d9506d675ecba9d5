"""What a score promises: temperature, isotonic quality tables and their fast lookup.

Everything here is fitted on the calibration split with the scores of the deployed variant.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import Calibration, Exit
from edgeexit.errors import ConfigError

Floats = NDArray[np.float64]

# Twenty bins of equal mass resolve a quality curve as well as their own sampling noise allows.
BIN_COUNT = 20
# Fewer samples than this in a bin say little: quality known to about ± 0.15 at best.
BIN_SAMPLES = 32
# Temperatures searched: beyond these a network is broken rather than miscalibrated.
TEMPERATURE_LOW = 0.05
TEMPERATURE_HIGH = 20.0
# Golden-section steps on the logarithm; 40 narrow the bracket to 1e-8 of its width.
SEARCH_STEPS = 40
_GOLDEN = (5.0**0.5 - 1.0) / 2.0


def fit_temperature(logits: NDArray[np.floating], targets: NDArray[np.integer]) -> float:
    """The temperature under which the logits explain the targets best (least log loss).

    Shapes: logits (n, C), targets (n,).
    Raises: ConfigError when there is nothing to fit or a logit is not finite.
    Source: Guo et al., ICML 2017; one-dimensional search on the logarithm, the loss being unimodal.
    """
    wide = np.asarray(logits, dtype=np.float64)
    if wide.ndim != 2 or wide.shape[0] == 0 or len(targets) != wide.shape[0]:
        raise ConfigError("temperature cannot be fitted", why="logits (n, C) and n targets are needed")
    if not np.isfinite(wide).all():
        raise ConfigError("temperature cannot be fitted", why="some logits are not finite")
    shifted = wide - wide.max(axis=1, keepdims=True)
    chosen = shifted[np.arange(len(targets)), targets]

    def loss(log_temperature: float) -> float:
        inverse = float(np.exp(-log_temperature))
        partition = np.log(np.exp(shifted * inverse).sum(axis=1))
        return float((partition - chosen * inverse).mean())

    low, high = float(np.log(TEMPERATURE_LOW)), float(np.log(TEMPERATURE_HIGH))
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    loss_left, loss_right = loss(left), loss(right)
    for _ in range(SEARCH_STEPS):
        if loss_left <= loss_right:
            high, right, loss_right = right, left, loss_left
            left = high - _GOLDEN * (high - low)
            loss_left = loss(left)
        else:
            low, left, loss_left = left, right, loss_right
            right = low + _GOLDEN * (high - low)
            loss_right = loss(right)
    return float(np.exp((low + high) / 2.0))


def isotonic(values: Floats, weights: Floats) -> Floats:
    """The non-decreasing sequence nearest to `values` in weighted squares (pool adjacent violators).

    Shapes: values (n,), weights (n,), result (n,).
    """
    means: list[float] = []
    masses: list[float] = []
    counts: list[int] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        mean, mass, count = value, weight, 1
        while means and means[-1] >= mean:
            before, before_mass = means.pop(), masses.pop()
            count += counts.pop()
            total = mass + before_mass
            mean = (mean * mass + before * before_mass) / total
            mass = total
        means.append(mean)
        masses.append(mass)
        counts.append(count)
    return np.repeat(np.asarray(means, dtype=np.float64), counts)


def quality_maps(
    scores: NDArray[np.floating],
    quality_by_exit: Sequence[NDArray[np.floating] | NDArray[np.bool_]],
    *,
    bins: int = BIN_COUNT,
) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...]]:
    """Tables for the manifest: what a score of exit k promises for exits k … K-1.

    `quality_by_exit[i]` is, for exit k + i, each sample's correctness, or 1 - |error| / E0 for
    regression. Bins have equal mass as far as ties allow, and at least `BIN_SAMPLES` samples each.
    Shapes: scores (n,), each of quality_by_exit (n,); result: upper scores (B,), quality (K-k, B).
    Units: fractions.
    Raises: ConfigError when lengths differ, or a score is not a fraction.
    """
    score = np.asarray(scores, dtype=np.float64)
    size = len(score)
    if size == 0 or any(len(quality) != size for quality in quality_by_exit):
        raise ConfigError("quality map cannot be fitted", why="scores and qualities differ in length")
    if not ((score >= 0.0) & (score <= 1.0)).all():
        raise ConfigError("quality map cannot be fitted", why="a score is not between 0 and 1")
    order = np.argsort(score, kind="stable")
    ordered = score[order]
    wanted = max(1, min(bins, size // BIN_SAMPLES))
    cuts = [round(size * (index + 1) / wanted) for index in range(wanted)]
    # Equal scores stay together: an edge moves right to the end of its tie.
    ends = sorted({int(np.searchsorted(ordered, ordered[cut - 1], side="right")) for cut in cuts})
    starts = [0, *ends[:-1]]
    masses = np.asarray([end - start for start, end in zip(starts, ends, strict=True)], dtype=np.float64)
    upper = [float(ordered[end - 1]) for end in ends]
    upper[-1] = 1.0
    tables: list[tuple[float, ...]] = []
    for quality in quality_by_exit:
        sorted_quality = np.asarray(quality, dtype=np.float64)[order]
        means = np.add.reduceat(sorted_quality, starts) / masses
        smooth = np.clip(isotonic(means, masses), 0.0, 1.0)
        tables.append(tuple(float(value) for value in smooth))
    return tuple(upper), tuple(tables)


def regression_quality(errors: NDArray[np.floating], scale: float) -> Floats:
    """Quality of regression answers: 1 - |error| / scale, never below 0.

    Units: errors and scale alike; scale is the mean absolute error of the training median.
    """
    return np.clip(1.0 - np.abs(np.asarray(errors, dtype=np.float64)) / scale, 0.0, 1.0)


def expected_calibration_error(
    scores: NDArray[np.floating], correct: NDArray[np.bool_], *, bins: int = 15
) -> float:
    """Mean distance between score and accuracy over equal-width bins, weighted by their mass.

    Shapes: scores (n,), correct (n,). Units: fraction. Source: Naeini et al., AAAI 2015.
    """
    score = np.asarray(scores, dtype=np.float64)
    if len(score) == 0:
        return 0.0
    index = np.minimum((score * bins).astype(np.int64), bins - 1)
    gap = np.zeros(bins)
    np.add.at(gap, index, score - np.asarray(correct, dtype=np.float64))
    return float(np.abs(gap).sum() / len(score))


class QualityTable:
    """One exit's calibration, ready for lookup: expected quality of every exit given a score.

    The answers of earlier exits are not in hand any more when this one speaks: `before`, their mean
    qualities, is what is left of them; 0 where it is not given.
    Shapes: before (exit,), `rows[i]` (K,).
    """

    __slots__ = ("exit", "rows", "upper_scores")

    def __init__(
        self,
        exit: int,  # noqa: A002 - the noun of the house
        calibration: Calibration,
        before: Sequence[float] = (),
    ) -> None:
        self.exit = exit
        self.upper_scores = tuple(calibration.upper_scores)
        known = tuple(before) or (0.0,) * exit
        self.rows = tuple(
            (*known, *(row[index] for row in calibration.quality)) for index in range(len(self.upper_scores))
        )

    def expected(self, score: float) -> tuple[float, ...]:
        """Expected quality of exits 0 … K-1 given this score; the lowest bin for a score of no meaning."""
        index = bisect_left(self.upper_scores, score) if score >= 0.0 else 0
        rows = self.rows
        return rows[index] if index < len(rows) else rows[-1]


def tables_of(calibrations: Sequence[Calibration]) -> tuple[QualityTable, ...]:
    """The tables of all exits of one network. Shapes: calibrations (K,)."""
    means = [calibration.accuracy for calibration in calibrations]
    return tuple(QualityTable(index, each, means[:index]) for index, each in enumerate(calibrations))


def quality_tables(exits: Sequence[Exit], variants: Sequence[str]) -> tuple[QualityTable, ...]:
    """The tables of all exits for the variants in use. Shapes: exits (K,), variants (K,)."""
    return tables_of([each.calibration(variant) for each, variant in zip(exits, variants, strict=True)])
