from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from edgeexit.decide.risk import (
    GRID,
    NEVER,
    Method,
    accuracy_drop,
    betting_bound,
    binomial_cdf,
    certify,
    control_risk,
    early_losses,
    hoeffding_bentkus,
    inconsistency,
    quality_drop,
    samples_needed,
)
from edgeexit.errors import ConfigError

Floats = NDArray[np.float64]
EXITS = 4


def population(size: int, seed: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Scores and correctness of exits that get better, with scores that promise a little too much."""
    draw = np.random.default_rng(seed)
    difficulty = draw.normal(size=size)
    scores, correct = np.zeros((size, EXITS)), np.zeros((size, EXITS), dtype=bool)
    for exit_, skill in enumerate((0.2, 0.6, 0.9, 1.1)):
        margin = skill - difficulty + 0.4 * draw.normal(size=size)
        correct[:, exit_] = margin > 0.0
        scores[:, exit_] = 1.0 / (1.0 + np.exp(-3.0 * (margin + 0.3 * draw.normal(size=size))))
    return scores, correct


@given(st.integers(1, 2000), st.floats(0.001, 0.999), st.data())
def test_binomial_tail_is_the_one_of_scipy(trials: int, probability: float, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, trials))
    expected = float(stats.binom.cdf(count, trials, probability))
    assert binomial_cdf(count, trials, probability) == pytest.approx(expected, rel=1e-6, abs=1e-100)


def test_p_value_is_the_published_one() -> None:
    for mean, samples, epsilon in [(0.0, 300, 0.01), (0.02, 1000, 0.05), (0.04, 5000, 0.05)]:
        below = min(mean, epsilon)
        entropy = (1 - below) * np.log((1 - below) / (1 - epsilon))
        entropy += below * np.log(below / epsilon) if below else 0.0
        tail = np.e * stats.binom.cdf(np.ceil(samples * mean), samples, epsilon)
        expected = min(np.exp(-samples * entropy), tail)
        assert hoeffding_bentkus(mean, samples, epsilon) == pytest.approx(expected, rel=1e-8)


def test_p_value_is_uniform_or_larger_under_the_null() -> None:
    draw = np.random.default_rng(11)
    epsilon, samples = 0.05, 400
    values = [
        hoeffding_bentkus(float(draw.binomial(samples, epsilon)) / samples, samples, epsilon)
        for _ in range(3000)
    ]
    for level in (0.05, 0.1, 0.2):
        assert np.mean(np.asarray(values) <= level) <= level + 0.01


def test_betting_bound_covers_the_mean() -> None:
    draw = np.random.default_rng(12)
    covered = [betting_bound((draw.random(300) < 0.05).astype(np.float64), 0.1) >= 0.05 for _ in range(600)]
    assert np.mean(covered) >= 0.88
    assert betting_bound(np.zeros(1000), 0.1) < 0.006
    assert betting_bound(np.ones(50), 0.1) == 1.0
    assert betting_bound(np.zeros(0), 0.1) == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("method", ["learn-then-test", "upper-confidence-bound"])
def test_guarantee_holds_over_many_resplits(method: Method) -> None:
    """The share of calibrations whose true risk exceeds epsilon stays under delta."""
    epsilon, delta, trials = 0.03, 0.1, 400
    scores, correct = population(60_000, 21)
    losses = accuracy_drop(correct)
    truth = early_losses(scores, losses).mean(axis=1)
    draw = np.random.default_rng(22)
    violations = stopped = 0
    for _ in range(trials):
        chosen = draw.integers(0, len(scores), 500)
        found = certify(scores[chosen], losses[chosen], method=method, epsilon=epsilon, delta=delta)
        level = found.thresholds[0]
        if level < NEVER:
            stopped += 1
            violations += truth[GRID.index(level)] > epsilon
    assert stopped > 0.5 * trials, "a guarantee that never stops early is empty"
    # Three standard deviations of a binomial above delta.
    assert violations <= delta * trials + 3.0 * (delta * (1.0 - delta) * trials) ** 0.5


def test_conformal_control_holds_on_average() -> None:
    epsilon, trials = 0.03, 300
    scores, correct = population(60_000, 31)
    losses = accuracy_drop(correct)
    truth = early_losses(scores, losses).mean(axis=1)
    draw = np.random.default_rng(32)
    risks: list[float] = []
    for _ in range(trials):
        chosen = draw.integers(0, len(scores), 400)
        found = certify(scores[chosen], losses[chosen], method="conformal-risk-control", epsilon=epsilon)
        level = found.thresholds[0]
        risks.append(0.0 if level >= NEVER else float(truth[GRID.index(level)]))
    assert np.mean(risks) <= epsilon


def test_naive_thresholds_break_the_promise_that_certified_ones_keep() -> None:
    epsilon, trials = 0.03, 200
    fine = tuple(float(level) for level in np.linspace(1.0, 0.3, 150))
    scores, correct = population(60_000, 41)
    losses = accuracy_drop(correct)
    truth = early_losses(scores, losses, fine).mean(axis=1)
    draw = np.random.default_rng(42)
    broken: dict[Method, int] = {"naive": 0, "learn-then-test": 0}
    for _ in range(trials):
        chosen = draw.integers(0, len(scores), 300)
        for method in broken:
            found = certify(scores[chosen], losses[chosen], method=method, epsilon=epsilon, grid=fine)
            level = found.thresholds[0]
            broken[method] += level < NEVER and bool(truth[fine.index(level)] > epsilon)
    assert broken["naive"] > 0.3 * trials
    assert broken["learn-then-test"] < 0.1 * trials


def test_too_few_samples_certify_nothing() -> None:
    assert samples_needed(0.01, 0.1) == 230
    assert samples_needed(0.05, 0.1) == 45
    scores = np.full((44, EXITS), 0.9)
    losses = np.zeros((44, EXITS))
    assert certify(scores, losses, epsilon=0.05).thresholds == (NEVER, NEVER, NEVER, 0.0)
    scores, losses = np.full((46, EXITS), 0.9), np.zeros((46, EXITS))
    assert certify(scores, losses, epsilon=0.05).thresholds[0] < 1.0


def test_more_tolerance_never_makes_thresholds_stricter() -> None:
    scores, correct = population(3000, 51)
    losses = accuracy_drop(correct)
    levels = [certify(scores, losses, epsilon=epsilon).thresholds[0] for epsilon in (0.01, 0.02, 0.05, 0.1)]
    assert levels == sorted(levels, reverse=True)


def test_losses_count_what_they_say() -> None:
    correct = np.array([[False, True], [True, True], [False, False], [True, False]])
    assert accuracy_drop(correct).tolist() == [[1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    labels = np.array([[1, 2], [2, 2]])
    assert inconsistency(labels).tolist() == [[1.0, 0.0], [0.0, 0.0]]
    assert quality_drop(np.array([[0.5, 0.9], [1.0, 0.9]]), 0.5).tolist() == [
        [pytest.approx(0.8), 0.0],
        [0.0, 0.0],
    ]


def test_entry_of_the_manifest_says_what_it_rests_on() -> None:
    scores, correct = population(2000, 61)
    entry = control_risk(
        scores, accuracy_drop(correct), epsilon=0.05, delta=0.1, variant="int8", data="calibration split"
    )
    assert entry.samples == 2000
    assert entry.thresholds[-1] == 0.0
    assert len(entry.thresholds) == EXITS
    assert entry.empirical_risk <= 0.05


@pytest.mark.parametrize(("epsilon", "delta"), [(0.0, 0.1), (1.0, 0.1), (0.1, 0.0), (0.1, 1.0)])
def test_impossible_levels_are_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(ConfigError):
        certify(np.zeros((5, 2)), np.zeros((5, 2)), epsilon=epsilon, delta=delta)


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ConfigError):
        certify(np.zeros((5, 2)), np.zeros((5, 3)), epsilon=0.1)
    with pytest.raises(ConfigError):
        certify(np.zeros((0, 2)), np.zeros((0, 2)), epsilon=0.1)
    with pytest.raises(ConfigError):
        certify(np.zeros((5, 2)), np.full((5, 2), 1.5), epsilon=0.1)


def test_an_early_answer_must_be_every_last_exits_within_the_tolerance() -> None:
    labels = np.array([[1, 2, 2], [2, 2, 2], [0, 2, 1]])
    assert inconsistency(labels).tolist() == [[1, 0, 0], [0, 0, 0], [1, 1, 0]]
    others = np.array([[2], [1], [1]])
    assert inconsistency(labels, others).tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 0]]
    values = np.array([[1.0, 1.4, 1.5], [3.0, 2.0, 2.2]])
    assert inconsistency(values, tolerance=0.3).tolist() == [[1, 0, 0], [1, 0, 0]]
