from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.isotonic import IsotonicRegression

from edgeexit.bundle.manifest import Calibration
from edgeexit.decide.calibration import (
    QualityTable,
    expected_calibration_error,
    fit_temperature,
    isotonic,
    quality_maps,
    regression_quality,
)
from edgeexit.errors import ConfigError


def overconfident(temperature: float, n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose true temperature is known: targets drawn from softmax(logits / temperature)."""
    draw = np.random.default_rng(5)
    logits = draw.normal(size=(n, 10)) * 3.0
    probability = np.exp(logits / temperature)
    probability /= probability.sum(axis=1, keepdims=True)
    targets = np.array([draw.choice(10, p=row) for row in probability])
    return logits, targets


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_temperature_of_known_logits_is_found(temperature: float) -> None:
    logits, targets = overconfident(temperature)
    assert fit_temperature(logits, targets) == pytest.approx(temperature, rel=0.1)


def test_temperature_lowers_the_calibration_error() -> None:
    logits, targets = overconfident(2.5)

    def error(temperature: float) -> float:
        probability = np.exp(logits / temperature)
        probability /= probability.sum(axis=1, keepdims=True)
        return expected_calibration_error(probability.max(axis=1), logits.argmax(axis=1) == targets)

    assert error(fit_temperature(logits, targets)) < 0.3 * error(1.0)


def test_nothing_to_fit_is_refused() -> None:
    with pytest.raises(ConfigError):
        fit_temperature(np.zeros((0, 3)), np.zeros(0, dtype=np.int64))
    with pytest.raises(ConfigError):
        fit_temperature(np.full((4, 3), np.nan), np.zeros(4, dtype=np.int64))
    with pytest.raises(ConfigError):
        quality_maps(np.array([0.5, 1.5]), [np.array([True, False])])
    with pytest.raises(ConfigError):
        quality_maps(np.array([0.5]), [np.array([True, False])])


def test_isotonic_is_the_one_of_scikit_learn() -> None:
    draw = np.random.default_rng(2)
    values, weights = draw.normal(size=200).cumsum(), draw.uniform(0.1, 3.0, 200)
    expected = IsotonicRegression().fit_transform(np.arange(200), values, sample_weight=weights)
    np.testing.assert_allclose(isotonic(values, weights), expected, atol=1e-9)


@given(
    arrays(np.float64, st.integers(1, 400), elements=st.floats(0.0, 1.0)),
    st.integers(0, 2**32 - 1),
)
def test_maps_are_monotone_fractions_with_equal_mass(scores: np.ndarray, seed: int) -> None:
    draw = np.random.default_rng(seed)
    correct = [draw.random(len(scores)) < 0.7 for _ in range(3)]
    upper, quality = quality_maps(scores, correct)
    assert 1 <= len(upper) <= 20
    assert upper[-1] == 1.0
    assert list(upper) == sorted(set(upper))
    assert len(quality) == 3
    for row in quality:
        assert len(row) == len(upper)
        assert list(row) == sorted(row)
        assert all(0.0 <= value <= 1.0 for value in row)


def test_map_recovers_what_a_score_promises() -> None:
    draw = np.random.default_rng(7)
    scores = draw.uniform(0.2, 1.0, 20_000)
    upper, quality = quality_maps(scores, [draw.random(20_000) < scores])
    for edge, value in zip(upper, quality[0], strict=True):
        assert value == pytest.approx(edge - 0.02, abs=0.05)


def test_map_keeps_the_mean_quality() -> None:
    draw = np.random.default_rng(9)
    scores = draw.random(3200)
    correct = draw.random(3200) < 0.4 + 0.5 * scores
    upper, quality = quality_maps(scores, [correct])
    index = np.searchsorted(np.array(upper), scores)
    assert np.array(quality[0])[index].mean() == pytest.approx(correct.mean(), abs=1e-9)


def test_regression_errors_become_qualities() -> None:
    quality = regression_quality(np.array([0.0, -1.0, 2.0, 10.0]), 4.0)
    np.testing.assert_allclose(quality, [1.0, 0.75, 0.5, 0.0])


def table(exit_: int = 1) -> QualityTable:
    calibration = Calibration(
        variant="f32",
        temperature=1.0,
        upper_scores=(0.5, 0.8, 1.0),
        quality=((0.3, 0.6, 0.9), (0.5, 0.7, 0.95)),
        accuracy=0.6,
        samples=300,
    )
    return QualityTable(exit_, calibration)


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (0.0, (0.0, 0.3, 0.5)),
        (0.5, (0.0, 0.3, 0.5)),
        (0.51, (0.0, 0.6, 0.7)),
        (1.0, (0.0, 0.9, 0.95)),
        (7.0, (0.0, 0.9, 0.95)),
        (-1.0, (0.0, 0.3, 0.5)),
        (float("nan"), (0.0, 0.3, 0.5)),
    ],
)
def test_lookup_finds_the_bin(score: float, expected: tuple[float, ...]) -> None:
    assert table().expected(score) == expected
