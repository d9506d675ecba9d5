"""From the output of an exit to Evidence: label, calibrated score, expected quality of every exit."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, isfinite

import numpy as np
from numpy.typing import NDArray

from edgeexit.decide.calibration import QualityTable
from edgeexit.decide.decision import Evidence

# Up to this many classes plain Python is quicker than numpy's fixed cost (about 6 µs a softmax).
PLAIN_CLASSES = 48
# Below this a sum of ten thousand exponentials stays a 32-bit number, which ends at e^88.
EXPONENT_CAP = 60.0


def root_scale(temperature: float) -> np.float32:
    """What `score_logits` divides many logits by; made once, because making it takes as long as dividing."""
    return np.float32(2.0 * temperature)


def score_logits(
    logits: Sequence[float] | NDArray[np.float32], temperature: float, scale: np.float32 | None = None
) -> tuple[int, float]:
    """Label and score, the largest softmax probability after division by `temperature`.

    Logits that are not finite give score 0: the exit said nothing that can be trusted. `scale` is the
    `root_scale` of the temperature, from who scores often.
    Shapes: logits (C,), C >= 1. Units: score, fraction.
    Source: temperature scaling, Guo et al., ICML 2017.
    """
    values: Sequence[float]
    if isinstance(logits, np.ndarray):
        if logits.size > PLAIN_CLASSES:
            return _score_array(logits, temperature, root_scale(temperature) if scale is None else scale)
        values = logits.tolist()
    else:
        values = logits
    largest = max(values)
    label = values.index(largest)
    if not isfinite(largest):
        return label, 0.0
    total = 0.0
    for value in values:
        total += exp((value - largest) / temperature)
    # A NaN among the others makes the sum NaN.
    return label, 1.0 / total if total >= 1.0 else 0.0


def _score_array(logits: NDArray[np.float32], temperature: float, scale: np.float32) -> tuple[int, float]:
    # After a stage has run, every line of code and data comes from memory: the fewest calls of numpy are
    # the fastest, whatever a loop that runs hot says.
    label = int(logits.argmax())  # the first NaN where there is one
    largest: float = logits.item(label)
    if not isfinite(largest):
        return label, 0.0
    largest /= temperature
    if -EXPONENT_CAP < largest < EXPONENT_CAP:
        roots = logits / scale
    else:
        roots = (logits - logits[label]) / scale
        largest = 0.0
    np.exp(roots, roots)
    # The square of e^(x/2) is e^x, and the sum of squares is one call without a second array.
    total = float(roots.dot(roots))
    # A NaN among the others makes the sum NaN.
    return label, min(1.0, exp(largest) / total) if isfinite(total) else 0.0


def score_spread(spread: float, scale: float) -> float:
    """Score of a regression exit: 1 where it claims no spread, falling as the spread grows.

    `scale` stands where classification has its temperature; a spread of one scale scores 1/e.
    Units: spread and scale alike; score, fraction.
    """
    if not isfinite(spread):
        return 0.0
    return exp(-max(0.0, spread) / scale)


def judge(
    exit: int,  # noqa: A002 - the noun of the house
    label: int | None,
    score: float,
    tables: Sequence[QualityTable],
) -> Evidence:
    """Evidence of one exit, by its table. Shapes: tables (K,)."""
    return Evidence(exit, score, label, tables[exit].expected(score))


def best(held: Evidence | None, fresh: Evidence) -> Evidence:
    """The one of two views to answer with: the deeper exit, unless it said nothing usable (score 0).

    The qualities of two exits are conditioned on different scores, so taking the larger one would pick
    the luckier score, not the better answer: a poor score deep down means that the shallow answer is
    doubtful too. The deeper exit has seen more.
    """
    if held is None:
        return fresh
    shallow, deep = (held, fresh) if fresh.exit >= held.exit else (fresh, held)
    if deep.score > 0.0:
        return deep
    expected = (*shallow.expected_quality[: deep.exit], *deep.expected_quality[deep.exit :])
    return Evidence(shallow.exit, shallow.score, shallow.label, expected)
