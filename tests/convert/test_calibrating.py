from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeexit.convert.calibrating import certify, fit_exits, parts

RNG = np.random.default_rng(7)


def over_confident(count: int, sharpness: float) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Labels drawn from a softmax, and its logits `sharpness` times too large, for two exits."""
    logits = RNG.normal(0.0, 2.0, (count, 4))
    odds = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    targets = (RNG.random((count, 1)) > odds.cumsum(axis=1)).sum(axis=1)
    outputs = np.stack([logits * sharpness, logits * sharpness]).astype(np.float32)
    return outputs, targets


def test_temperature_undoes_over_confidence() -> None:
    outputs, targets = over_confident(3000, 3.0)
    quality = (outputs.argmax(axis=2) == targets).astype(np.float64)
    fitted = fit_exits(outputs, targets, quality, variant="f32", task="classification")
    first = fitted[0]
    assert first.calibration.temperature == pytest.approx(3.0, rel=0.15)
    assert first.ece_before is not None
    assert first.ece_after is not None
    assert first.ece_after < 0.04 < first.ece_before
    assert first.calibration.samples == 3000
    assert first.calibration.accuracy == pytest.approx(quality[0].mean())
    assert (len(first.calibration.quality), len(fitted[1].calibration.quality)) == (2, 1)


def test_a_good_score_promises_more_quality_than_a_poor_one() -> None:
    outputs, targets = over_confident(2000, 1.0)
    quality = (outputs.argmax(axis=2) == targets).astype(np.float64)
    row = fit_exits(outputs, targets, quality, variant="f32", task="classification")[0].calibration.quality[0]
    assert list(row) == sorted(row)
    assert row[-1] > row[0] + 0.3


def test_small_spreads_promise_small_errors() -> None:
    spread = RNG.uniform(0.1, 3.0, 2000)
    errors = RNG.normal(0.0, spread)
    targets = RNG.normal(0.0, 5.0, 2000)
    outputs = np.stack([targets + errors, spread], axis=1)[None].astype(np.float32)
    quality = np.clip(1.0 - np.abs(errors) / 5.0, 0.0, 1.0)[None]
    fitted = fit_exits(outputs, targets, quality, variant="int8", task="regression")[0]
    assert fitted.calibration.temperature == pytest.approx(np.median(spread), rel=0.1)
    assert fitted.calibration.quality[0][-1] > fitted.calibration.quality[0][0]
    assert fitted.ece_before is None


def test_exits_that_always_agree_with_the_last_are_certified() -> None:
    outputs, targets = over_confident(3000, 1.0)
    quality = (outputs.argmax(axis=2) == targets).astype(np.float64)
    fitted = fit_exits(outputs, targets, quality, variant="f32", task="classification")
    control = certify(
        fitted,
        quality,
        variant="f32",
        task="classification",
        epsilons=(0.01,),
        delta=0.1,
        dataset="invented logits",
    )[0]
    assert control.thresholds[0] < 0.5
    assert control.empirical_risk == 0.0
    assert control.samples == 2000
    assert "2000 held-out samples of invented logits" in control.data


def test_too_few_samples_certify_nothing() -> None:
    outputs, targets = over_confident(60, 1.0)
    quality = (outputs.argmax(axis=2) == targets).astype(np.float64)
    fitted = fit_exits(outputs, targets, quality, variant="f32", task="classification")
    control = certify(
        fitted, quality, variant="f32", task="classification", epsilons=(0.01,), delta=0.1, dataset="few"
    )[0]
    assert control.thresholds[0] > 1.0


@pytest.mark.parametrize("count", [1, 2, 3, 10, 1000])
def test_what_fits_scores_does_not_certify_them(count: int) -> None:
    fit, others = parts(count)
    assert len(fit) >= 1
    assert len(others) >= 1
    if count > 1:
        assert sorted([*fit, *others]) == list(range(count))
