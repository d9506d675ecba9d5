"""Early-exit thresholds with a stated guarantee, from held-out data.

One parameter u for all exits: stop at the first exit whose score is at least u. The risk of a u is
the mean loss against running to the last exit. The grid of u is fixed before the data are seen, and
the samples must not have been used to train the network; scores should be calibrated on others.
The guarantee is marginal, on average over data like these: not per class, device or light, not after
drift or retraining, and not for exits that a deadline forces.
Source: Angelopoulos, Bates, Candès, Jordan, Lei, Learn then Test, 2021; Bates et al., Distribution-free
risk-controlling prediction sets, JACM 2021; Angelopoulos et al., Conformal risk control, ICLR 2024;
their use on early exits: Jazbec et al., Fast yet safe, NeurIPS 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, exp, inf, log
from typing import Literal

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from edgeexit.bundle.manifest import RiskControl
from edgeexit.errors import ConfigError

Floats = NDArray[np.float64]
Method = Literal["naive", "learn-then-test", "conformal-risk-control", "upper-confidence-bound"]
CertifyingMethod = Literal["learn-then-test", "conformal-risk-control", "upper-confidence-bound"]
Risk = Literal["accuracy-drop", "inconsistency"]

# Levels of u tried, strictest first: dense near 1, where calibrated scores of good exits lie.
# Fixed beforehand, as Learn-then-Test demands.
GRID = tuple(float(value) for value in 1.0 - np.concatenate(([0.0], np.geomspace(1e-5, 0.9, 60))))
# A threshold that no score reaches.
NEVER = 2.0


def early_losses(scores: Floats, losses: Floats, grid: Sequence[float] = GRID) -> Floats:
    """Loss of every sample at every u of the grid.

    Shapes: scores (n, K); losses (n, K), that of answering with exit k, 0 in the last column;
    result (G, n).
    """
    early = scores[:, :-1]
    result = np.zeros((len(grid), scores.shape[0]))
    for index, level in enumerate(grid):
        reached = early >= level
        stop = np.where(reached.any(axis=1), reached.argmax(axis=1), scores.shape[1] - 1)
        result[index] = losses[np.arange(scores.shape[0]), stop]
    return result


def accuracy_drop(correct: NDArray[np.bool_]) -> Floats:
    """Loss 1 where the exit is wrong and the last exit right. Shapes: correct (n, K), result (n, K)."""
    return np.asarray(~correct & correct[:, -1:], dtype=np.float64)


def inconsistency(
    answers: NDArray[np.integer] | NDArray[np.floating],
    last: NDArray[np.integer] | NDArray[np.floating] | None = None,
    *,
    tolerance: float = 0.0,
) -> Floats:
    """Loss 1 where the exit's answer is not the last exit's; needs no truth.

    `last` are further answers of a last exit, as other variants of the network give them: an early
    answer is to be all of theirs. Values up to `tolerance` apart are the same answer; labels are when
    they are equal. Running to the end loses nothing, whatever other variants say.
    Shapes: answers (n, K), labels or values; last (n, V); result (n, K).
    """
    finals = answers[:, -1:] if last is None else np.concatenate((answers[:, -1:], last), axis=1)
    apart = np.abs(answers[:, :, None] - finals[:, None, :]) > tolerance  # (n, K, 1 + V)
    losses: Floats = np.asarray(apart.any(axis=2), dtype=np.float64)  # (n, K)
    losses[:, -1] = 0.0
    return losses


def quality_drop(quality: NDArray[np.floating], bound: float = 1.0) -> Floats:
    """Loss for regression: quality lost against the last exit, clipped at `bound` and scaled to 0 … 1."""
    wide = np.asarray(quality, dtype=np.float64)
    return np.clip(wide[:, -1:] - wide, 0.0, bound) / bound


def binomial_cdf(count: int, trials: int, probability: float) -> float:
    """P[Binomial(trials, probability) <= count], by sums of logarithms of factorials."""
    if count >= trials:
        return 1.0
    if count < 0:
        return 0.0
    if probability <= 0.0:
        return 1.0
    if probability >= 1.0:
        return 0.0
    factorials = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, trials + 1)))))
    k = np.arange(count + 1)
    terms = (
        factorials[trials]
        - factorials[k]
        - factorials[trials - k]
        + k * log(probability)
        + (trials - k) * log(1.0 - probability)
    )
    largest = float(terms.max())
    return min(1.0, exp(largest) * float(np.exp(terms - largest).sum()))


def hoeffding_bentkus(mean_loss: float, samples: int, epsilon: float) -> float:
    """p-value of "the risk is more than epsilon", for losses between 0 and 1.

    Source: Bates et al., JACM 2021, proposition on the Hoeffding-Bentkus bound.
    """
    below = min(mean_loss, epsilon)
    hoeffding = exp(-samples * _relative_entropy(below, epsilon))
    # A mean of k/n computed in floating point may lie a hair above k/n: do not round that up.
    bentkus = exp(1.0) * binomial_cdf(ceil(samples * mean_loss - 1e-9), samples, epsilon)
    return min(1.0, hoeffding, bentkus)


def _relative_entropy(a: float, b: float) -> float:
    first = a * log(a / b) if a > 0.0 else 0.0
    second = (1.0 - a) * log((1.0 - a) / (1.0 - b)) if a < 1.0 else 0.0
    return first + second


def betting_bound(losses: Floats, delta: float) -> float:
    """Upper confidence bound of the mean of losses between 0 and 1, by betting.

    Shapes: losses (n,), in an order that does not depend on their values.
    Source: Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting, JRSS-B 2024.
    """
    count = len(losses)
    if count == 0:
        return 1.0
    steps = np.arange(1, count + 1)
    means = (0.5 + np.cumsum(losses)) / (steps + 1)
    variances = (0.25 + np.cumsum((losses - means) ** 2)) / (steps + 1)
    before = np.concatenate(([0.25], variances[:-1]))
    bets = np.minimum(1.0, np.sqrt(2.0 * log(1.0 / delta) / (count * before)))
    wanted = log(1.0 / delta)

    def wealth(bound: float) -> float:
        with np.errstate(divide="ignore"):
            return float(np.cumsum(np.log(np.maximum(0.0, 1.0 - bets * (losses - bound)))).max())

    low, high = 0.0, 1.0
    if wealth(high) < wanted:
        return 1.0
    # The wealth grows with the bound: halve until the bound is known to 1e-6.
    for _ in range(20):
        middle = 0.5 * (low + high)
        if wealth(middle) >= wanted:
            high = middle
        else:
            low = middle
    return high


def certified_level(losses: Floats, method: Method, epsilon: float, delta: float) -> int | None:
    """Index of the least strict level that the method allows; None where it allows none.

    Shapes: losses (G, n), strictest level first.
    """
    samples = losses.shape[1]
    if method == "naive":
        allowed = np.flatnonzero(losses.mean(axis=1) <= epsilon)
        return int(allowed[-1]) if len(allowed) else None
    if method == "conformal-risk-control":
        # The guarantee needs a loss that never falls as u does: take the largest so far.
        monotone = np.maximum.accumulate(losses, axis=0).mean(axis=1)
        allowed = np.flatnonzero((samples * monotone + 1.0) / (samples + 1.0) <= epsilon)
        return int(allowed[-1]) if len(allowed) else None
    found: int | None = None
    for index in range(losses.shape[0]):
        if method == "learn-then-test":
            passed = hoeffding_bentkus(float(losses[index].mean()), samples, epsilon) <= delta
        else:
            passed = betting_bound(losses[index], delta) <= epsilon
        if not passed:
            # Fixed sequence: nothing beyond the first failure may be claimed.
            break
        found = index
    return found


@dataclass(frozen=True, slots=True)
class Certified:
    """Thresholds found, and how they did on the samples they were found with.

    Shapes: thresholds (K,), `NEVER` where an exit may not stop early, 0 for the last.
    """

    thresholds: tuple[float, ...]
    empirical_risk: float
    samples: int


def certify(
    scores: NDArray[np.floating],
    losses: Floats,
    *,
    method: Method = "learn-then-test",
    epsilon: float,
    delta: float = 0.1,
    grid: Sequence[float] = GRID,
) -> Certified:
    """The least strict thresholds whose risk the method keeps at `epsilon`.

    Shapes: scores (n, K) between 0 and 1, losses (n, K).
    Raises: ConfigError for shapes that differ, or epsilon or delta outside 0 … 1.
    """
    score = np.asarray(scores, dtype=np.float64)
    if score.ndim != 2 or score.shape != losses.shape or score.shape[0] == 0:
        raise ConfigError("risk cannot be controlled", why="scores and losses must both be (n, K), n >= 1")
    if not (0.0 < epsilon < 1.0 and 0.0 < delta < 1.0):
        raise ConfigError("risk cannot be controlled", why="epsilon and delta lie between 0 and 1")
    if float(losses.min()) < 0.0 or float(losses.max()) > 1.0:
        raise ConfigError("risk cannot be controlled", why="losses lie between 0 and 1")
    table = early_losses(score, losses, grid)
    index = certified_level(table, method, epsilon, delta)
    level = NEVER if index is None else grid[index]
    exits = score.shape[1]
    return Certified(
        thresholds=(level,) * (exits - 1) + (0.0,),
        empirical_risk=0.0 if index is None else float(table[index].mean()),
        samples=score.shape[0],
    )


def control_risk(
    scores: NDArray[np.floating],
    losses: Floats,
    *,
    method: CertifyingMethod = "learn-then-test",
    risk: Risk = "accuracy-drop",
    epsilon: float,
    delta: float = 0.1,
    variant: str,
    data: str,
    tolerance: float | None = None,
) -> RiskControl:
    """The manifest's entry: thresholds with everything that their guarantee depends on.

    `tolerance` is that of the inconsistency of values; None for every other risk.
    Shapes: scores (n, K), losses (n, K) of `accuracy_drop` or `inconsistency`.
    Raises: ConfigError as `certify`.
    """
    found = certify(scores, losses, method=method, epsilon=epsilon, delta=delta)
    return RiskControl(
        variant=variant,
        method=method,
        risk=risk,
        epsilon=epsilon,
        delta=delta,
        samples=found.samples,
        thresholds=found.thresholds,
        empirical_risk=found.empirical_risk,
        data=data,
        tolerance=UNSET if tolerance is None else tolerance,
    )


def samples_needed(epsilon: float, delta: float) -> float:
    """Samples below which not even an errorless exit can be certified: (1 - epsilon)^n <= delta."""
    if not (0.0 < epsilon < 1.0 and 0.0 < delta < 1.0):
        return inf
    return ceil(log(delta) / log(1.0 - epsilon))
