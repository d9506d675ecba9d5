from __future__ import annotations

import numpy as np
import pytest
from msgspec import UNSET
from numpy.typing import NDArray

from edgeexit.convert.calibrating import certify, certify_consistency, fit_exits, parts

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
    assert control.data == "held-out part of invented logits"


def test_too_few_samples_certify_nothing() -> None:
    outputs, targets = over_confident(60, 1.0)
    quality = (outputs.argmax(axis=2) == targets).astype(np.float64)
    fitted = fit_exits(outputs, targets, quality, variant="f32", task="classification")
    control = certify(
        fitted, quality, variant="f32", task="classification", epsilons=(0.01,), delta=0.1, dataset="few"
    )[0]
    assert control.thresholds[0] > 1.0


def test_early_answers_are_held_against_every_variants_last_exit() -> None:
    outputs, targets = over_confident(3000, 1.0)
    quality = (outputs.argmax(axis=2) == targets).astype(np.float64)
    fitted = fit_exits(outputs, targets, quality, variant="int8", task="classification")
    answers = outputs.argmax(axis=2).astype(np.float64)
    other = answers.copy()
    other[-1, ::20] += 1.0  # another variant's last exit answers otherwise to one image in twenty
    loosest: list[float] = []
    for others in ([], [other]):
        alone = certify_consistency(
            fitted,
            answers,
            others,
            variant="int8",
            epsilons=(0.02, 0.1),
            delta=0.1,
            tolerance=None,
            dataset="invented logits",
        )
        assert [(each.risk, each.variant, each.samples) for each in alone] == [
            ("inconsistency", "int8", 2000)
        ] * 2
        assert all(each.tolerance is UNSET for each in alone)
        loosest.append(alone[0].thresholds[0])
    assert loosest[0] < 0.5 < loosest[1]


def test_values_are_consistent_within_the_tolerance_that_is_stated() -> None:
    spread = np.full(3000, 0.1) + np.arange(3000) % 7
    values = RNG.normal(0.0, 5.0, 3000)
    outputs = np.stack([np.stack([values + 0.4, spread], 1), np.stack([values, spread], 1)])
    quality = np.ones((2, 3000))
    fitted = fit_exits(outputs.astype(np.float32), values, quality, variant="f32", task="regression")
    controls = [
        certify_consistency(
            fitted,
            outputs[:, :, 0],
            [],
            variant="f32",
            epsilons=(0.05,),
            delta=0.1,
            tolerance=tolerance,
            dataset="invented values",
        )[0]
        for tolerance in (0.5, 0.3)
    ]
    assert [control.tolerance for control in controls] == [0.5, 0.3]
    assert controls[0].thresholds[0] < 0.5
    assert controls[1].thresholds[0] > 0.9, "above all scores that were seen"


@pytest.mark.parametrize("count", [1, 2, 3, 10, 1000])
def test_what_fits_scores_does_not_certify_them(count: int) -> None:
    fit, others = parts(count)
    assert len(fit) >= 1
    assert len(others) >= 1
    if count > 1:
        assert sorted([*fit, *others]) == list(range(count))
