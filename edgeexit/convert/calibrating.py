"""Step 6: what a score of each exit promises, fitted with the answers of the deployed variant.

Requires: outputs of every exit over the calibration set.
Ensures: one temperature and one quality map an exit, as policies read them, and early-exit thresholds
whose guarantee rests on samples that the scores were not fitted on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import Calibration, RiskControl, Task
from edgeexit.decide.calibration import expected_calibration_error, fit_temperature, quality_maps
from edgeexit.decide.evidence import score_logits, score_spread
from edgeexit.decide.risk import accuracy_drop, control_risk, inconsistency, quality_drop

# One sample in three fits the temperatures, a single number an exit; the larger part certifies, since
# what can be certified hangs on how many samples there are.
FIT_ONE_IN = 3

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FittedExit:
    """One exit calibrated with one variant.

    Units: ece_before and ece_after, expected calibration error without and with the temperature on
    samples that did not fit it, fractions; None for regression, whose scores are no probabilities.
    Shapes: scores (N,).
    """

    calibration: Calibration
    scores: NDArray[np.float64]
    ece_before: float | None
    ece_after: float | None


def parts(count: int) -> tuple[Indices, Indices]:
    """The samples that fit temperatures, and the others: the same for all exits and variants.

    Drawn by lot, since a set may be in the order of its classes; of a single sample, both have it.
    """
    order = np.random.default_rng(0).permutation(count)
    cut = max(1, count // FIT_ONE_IN)
    return np.sort(order[:cut]), np.sort(order[cut:]) if count > 1 else order


def fit_exits(
    outputs: NDArray[np.float32],
    targets: NDArray[np.generic],
    quality: NDArray[np.float64],
    *,
    variant: str,
    task: Task,
) -> tuple[FittedExit, ...]:
    """Calibrate every exit of one variant.

    Shapes: outputs (K, N, C), targets (N,), quality (K, N).
    Raises: ConfigError when the set is empty or outputs are not finite.
    """
    return tuple(
        _fit_exit(outputs[k], targets, quality[k:], variant=variant, task=task) for k in range(len(outputs))
    )


def certify(
    fitted: Sequence[FittedExit],
    quality: NDArray[np.float64],
    *,
    variant: str,
    task: Task,
    epsilons: Sequence[float],
    delta: float,
    dataset: str,
) -> tuple[RiskControl, ...]:
    """Thresholds for each tolerated risk, by Learn-then-Test.

    Shapes: fitted (K,), quality (K, N).
    Raises: ConfigError when an epsilon or delta is not between 0 and 1.
    """
    _, others = parts(quality.shape[1])
    scores = np.stack([each.scores for each in fitted], axis=1)[others]  # K of N -> n K
    gained = quality.T[others]  # K N -> n K
    losses = accuracy_drop(gained > 0.5) if task == "classification" else quality_drop(gained)
    return tuple(
        control_risk(
            scores,
            losses,
            epsilon=epsilon,
            delta=delta,
            variant=variant,
            data=f"held-out part of {dataset}",
        )
        for epsilon in epsilons
    )


def certify_consistency(
    fitted: Sequence[FittedExit],
    answers: NDArray[np.float64],
    others: Sequence[NDArray[np.float64]],
    *,
    variant: str,
    epsilons: Sequence[float],
    delta: float,
    tolerance: float | None,
    dataset: str,
) -> tuple[RiskControl, ...]:
    """Thresholds for each tolerated share of early answers that are not the last exit's.

    A gateway may finish a frame with another variant than the device's: an early answer must be that of
    every variant's last exit.
    Shapes: fitted (K,), answers (K, N) of this variant, others (K, N) each.
    Raises: ConfigError when an epsilon or delta is not between 0 and 1.
    """
    _, held = parts(answers.shape[1])
    scores = np.stack([each.scores for each in fitted], axis=1)[held]  # K of N -> n K
    finals = np.stack([each[-1] for each in (answers, *others)], axis=1)[held]  # V of N -> n V
    losses = inconsistency(answers.T[held], finals, tolerance=tolerance or 0.0)  # K N -> n K
    return tuple(
        control_risk(
            scores,
            losses,
            risk="inconsistency",
            epsilon=epsilon,
            delta=delta,
            variant=variant,
            data=f"held-out part of {dataset}",
            tolerance=tolerance,
        )
        for epsilon in epsilons
    )


def _fit_exit(
    outputs: NDArray[np.float32],
    targets: NDArray[np.generic],
    quality: NDArray[np.float64],
    *,
    variant: str,
    task: Task,
) -> FittedExit:
    """Shapes: outputs (N, C), quality (K - k, N)."""
    fit, others = parts(len(outputs))
    ece_before: float | None = None
    ece_after: float | None = None
    if task == "classification":
        temperature = fit_temperature(outputs[fit], targets[fit].astype(np.int64))
        scores = _scores(outputs, temperature)
        correct = quality[0] > 0.5
        ece_before = expected_calibration_error(_scores(outputs[others], 1.0), correct[others])
        ece_after = expected_calibration_error(scores[others], correct[others])
    else:
        temperature = _spread_scale(outputs[fit, 1])
        scores = np.array([score_spread(float(spread), temperature) for spread in outputs[:, 1]])
    upper_scores, table = quality_maps(scores, list(quality))
    calibration = Calibration(
        variant=variant,
        temperature=temperature,
        upper_scores=upper_scores,
        quality=table,
        accuracy=float(quality[0].mean()),
        samples=len(scores),
    )
    return FittedExit(calibration, scores, ece_before, ece_after)


def _scores(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    """The very function that scores on a board, so that a bin edge means the same there."""
    return np.array([score_logits(row, temperature)[1] for row in logits])


def _spread_scale(spreads: NDArray[np.float32]) -> float:
    """The median spread: half of all answers then score above 1/e. Never 0, which would divide."""
    return max(float(np.median(np.maximum(spreads, 0.0))), 1e-6)
