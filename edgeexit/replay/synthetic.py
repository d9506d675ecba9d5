"""Answers of an imagined network with stated accuracies, for trying policies before there is a bundle.

Samples differ in difficulty; every exit sees it through noise of its own, deeper exits more clearly,
so that scores mean something, exits mostly agree, and a deeper exit sometimes spoils a right answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import erfc, sqrt

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import Calibration
from edgeexit.decide.calibration import quality_maps
from edgeexit.replay.recording import RecordedOption, Recording, RecordingNote

Floats = NDArray[np.float64]

# How much of what an exit gets wrong is its own mistake and not the sample's difficulty.
OWN_NOISE = 0.45
# How blurred an exit's view of its own certainty is.
SCORE_NOISE = 0.5


def synthetic_recording(
    *,
    accuracies: Sequence[float] = (0.58, 0.70, 0.77, 0.80),
    options: Sequence[RecordedOption] = (),
    stage_ms: Sequence[float] | None = None,
    samples: int = 4000,
    calibration_samples: int = 4000,
    classes: int = 10,
    seed: int = 0,
) -> Recording:
    """A recording of a network that does not exist, calibrated on samples that are not in it.

    An option's reply is the last exit's answer, spoilt for a share `quality_cost` of the samples.
    Shapes: accuracies (K,), rising. Units: stage_ms, 10 ms a stage where not given.
    """
    random = np.random.default_rng(seed)
    count = samples + calibration_samples
    correct, scores = _exits(random, accuracies, count, classes)
    fitted, tested = slice(0, calibration_samples), slice(calibration_samples, None)
    stages = len(accuracies)
    calibrations: list[Calibration] = []
    for stage in range(stages):
        deeper = [correct[fitted, later] for later in range(stage, stages)]
        upper, tables = quality_maps(scores[fitted, stage], deeper)
        calibrations.append(
            Calibration(
                variant="synthetic",
                temperature=1.0,
                upper_scores=upper,
                quality=tables,
                accuracy=float(correct[fitted, stage].mean()),
                samples=calibration_samples,
            )
        )
    right = correct[tested]
    truth = random.integers(0, classes, samples)
    wrong = (truth[:, None] + random.integers(1, classes, (samples, stages))) % classes
    remote = np.repeat(right[:, -1:].astype(np.float32), len(options), axis=1)
    for column, option in enumerate(options):
        remote[random.random(samples) < option.quality_cost, column] = 0.0
    return Recording(
        note=RecordingNote(
            name="synthetic-" + "/".join(f"{accuracy:g}" for accuracy in accuracies),
            bundle_digest="",
            data=f"{samples} imagined samples, seed {seed}",
            task="classification",
            machine="none",
            variants=("synthetic",) * stages,
            options=tuple(options),
            calibrations=tuple(calibrations),
            stage_ms=tuple(stage_ms) if stage_ms is not None else (10.0,) * stages,
        ),
        sources=tuple(f"imagined/{index}" for index in range(samples)),
        scores=scores[tested].astype(np.float32),
        answers=np.where(right, truth[:, None], wrong).astype(np.float32),
        truth=truth.astype(np.float32),
        quality=right.astype(np.float32),
        option_quality=remote,
    )


def _exits(
    random: np.random.Generator, accuracies: Sequence[float], count: int, classes: int
) -> tuple[NDArray[np.bool_], Floats]:
    """Correctness and calibrated scores. Shapes: both (count, K)."""
    difficulty = random.standard_normal(count)
    shared = random.standard_normal(count)
    spread = sqrt(1.0 + OWN_NOISE**2)
    correct = np.empty((count, len(accuracies)), dtype=np.bool_)
    scores = np.empty((count, len(accuracies)))
    for stage, accuracy in enumerate(accuracies):
        # Half of an exit's own mistakes are shared with its neighbours: they see the same features.
        own = OWN_NOISE * (shared + random.standard_normal(count)) / sqrt(2.0)
        margin = _normal_quantile(accuracy) * spread - difficulty
        correct[:, stage] = margin + own > 0.0
        seen = margin + 0.7 * own + SCORE_NOISE * random.standard_normal(count)
        certainty = _normal_cumulative(seen / sqrt(OWN_NOISE**2 + SCORE_NOISE**2))
        scores[:, stage] = 1.0 / classes + (1.0 - 1.0 / classes) * certainty
    return correct, scores


def _normal_cumulative(values: Floats) -> Floats:
    return np.asarray([0.5 * erfc(-value / sqrt(2.0)) for value in values.tolist()])


def _normal_quantile(fraction: float) -> float:
    low, high = -8.0, 8.0
    for _ in range(60):
        middle = (low + high) / 2.0
        if 0.5 * erfc(-middle / sqrt(2.0)) < fraction:
            low = middle
        else:
            high = middle
    return (low + high) / 2.0
