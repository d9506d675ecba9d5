from __future__ import annotations

import random
from itertools import pairwise
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.decide.latency import LatencyModel
from edgeexit.errors import ConfigError

PROFILE = (10.0, 20.0, 30.0, 40.0)
times = st.floats(allow_nan=True, allow_infinity=True)
positive = st.floats(min_value=1e-6, max_value=1e9)


def fed(ratios: list[float]) -> LatencyModel:
    model = LatencyModel(PROFILE)
    now = 0.0
    for index, ratio in enumerate(ratios):
        now += PROFILE[index % 4] * ratio
        model.observe(index % 4, PROFILE[index % 4] * ratio, now)
    return model


def test_profile_is_believed_before_anything_was_measured() -> None:
    forecast = LatencyModel(PROFILE).forecast(0.0)
    assert forecast.median_ms(0, 4) == pytest.approx(100.0)
    assert forecast.probability_within(0, 4, 160.0) > 0.98
    assert forecast.probability_within(0, 4, 50.0) < 0.02


def test_steady_board_is_known_sharply() -> None:
    draw = random.Random(3)
    model = fed([draw.lognormvariate(0.0, 0.03) for _ in range(400)])
    assert model.slowdown.mean == pytest.approx(1.0, abs=0.1)
    assert model.forecast(1e4).probability_within(2, 3, 30.0 * 1.3) > 0.98
    assert model.forecast(1e4).probability_within(2, 3, 30.0 * 0.7) < 0.02


def test_burst_is_followed_within_three_stages_and_left_again() -> None:
    model = fed([1.0] * 40 + [1.8] * 3)
    assert model.slowdown.mean == pytest.approx(1.8, rel=0.12)
    for _ in range(3):
        model.observe(0, 10.0, 0.0)
    assert model.slowdown.mean == pytest.approx(1.0, rel=0.15)


def test_one_stall_moves_the_mean_less_than_its_size() -> None:
    model = fed([1.0] * 40)
    model.observe(0, 1000.0, 0.0)
    assert model.slowdown.mean < 5.0
    for _ in range(4):
        model.observe(0, 10.0, 0.0)
    assert model.slowdown.mean == pytest.approx(1.0, rel=0.3)


def test_two_times_out_of_reach_are_a_new_regime() -> None:
    model = fed([1.0] * 40)
    for _ in range(2):
        model.observe(1, 20.0 * 40.0, 0.0)
    assert model.slowdown.mean == pytest.approx(40.0, rel=0.05)


def test_heavy_tail_is_never_forgotten_by_the_gaussian() -> None:
    # One stage in ten takes three times as long: a Gaussian around the mean would promise too much.
    ratios = [3.0 if index % 10 == 9 else 1.0 for index in range(300)]
    model = fed(ratios)
    for _ in range(5):
        model.observe(0, 10.0, 0.0)
    assert model.forecast(0.0).probability_within(0, 1, 20.0) < 0.95


def test_stage_in_flight_already_slower_raises_the_forecast() -> None:
    model = fed([1.0] * 40)
    before = model.forecast(0.0).median_ms(2, 4)
    model.running(1, 60.0, 0.0)
    assert model.forecast(0.0).median_ms(2, 4) > 2.5 * before
    model.observe(1, 20.0, 0.0)
    assert model.forecast(0.0).median_ms(2, 4) == pytest.approx(before, rel=0.05)


def test_belief_widens_while_nothing_is_measured() -> None:
    model = fed([1.0] * 100)
    soon = model.forecast(1e4).probability_within(0, 4, 120.0)
    late = model.forecast(1e6).probability_within(0, 4, 120.0)
    assert late < soon


def test_a_forecast_does_not_change_after_it_was_taken() -> None:
    model = fed([1.0] * 100)
    forecast = model.forecast(0.0)
    before = forecast.probability_within(0, 2, 31.0)
    for _ in range(30):
        model.observe(0, 50.0, 0.0)
    assert forecast.probability_within(0, 2, 31.0) == before


@pytest.mark.parametrize("profile", [(), (0.0,), (-1.0, 2.0), (nan,), (inf,)])
def test_bad_profiles_are_refused(profile: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError):
        LatencyModel(profile)


@given(
    st.lists(st.tuples(st.integers(0, 3), times, times), max_size=120),
    st.lists(st.floats(allow_nan=False), min_size=2, max_size=6),
)
def test_any_measurement_leaves_probabilities_monotone(
    observed: list[tuple[int, float, float]], limits: list[float]
) -> None:
    model = LatencyModel(PROFILE)
    for stage, measured_ms, now_ms in observed:
        model.observe(stage, measured_ms, now_ms)
        model.running(stage, measured_ms, now_ms)
    forecast = model.forecast(0.0)
    chances = [forecast.probability_within(0, 4, limit) for limit in sorted(limits)]
    assert all(0.0 <= chance <= 1.0 for chance in chances)
    assert chances == sorted(chances)
    assert forecast.probability_within(0, 0, -1.0) == 1.0
    assert 0.0 < model.slowdown.mean < inf


@given(st.lists(positive, min_size=1, max_size=60), positive)
def test_more_stages_are_never_likelier_in_the_same_time(ratios: list[float], limit_ms: float) -> None:
    forecast = fed([min(max(ratio, 1e-3), 1e3) for ratio in ratios]).forecast(0.0)
    chances = [forecast.probability_within(0, stop, limit_ms) for stop in range(1, 5)]
    assert all(first >= second - 1e-12 for first, second in pairwise(chances))
