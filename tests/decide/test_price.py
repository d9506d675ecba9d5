from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.decide.price import DualPrice, TimePrice
from edgeexit.errors import ConfigError


def settled_use(budget_per_s: float, *, payload: float, seconds: int = 1200) -> float:
    """Mean use a second when three frames a second each have something to gain from being sent."""
    price = DualPrice(budget_per_s)
    draw = random.Random(4)
    used = 0.0
    for frame in range(3 * seconds):
        now_ms = frame * 1000.0 / 3.0
        gain = draw.uniform(0.0, 0.4)
        if gain > price.price(now_ms) * payload:
            price.used(payload)
            if frame > 3 * seconds // 3:
                used += payload
    return used / (seconds * 2 / 3)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.7])
def test_long_run_use_meets_the_budget(share: float) -> None:
    payload = 15_000.0
    budget = share * 3.0 * payload
    assert settled_use(budget, payload=payload) == pytest.approx(budget, rel=0.1)


def test_a_budget_that_is_never_reached_costs_nothing() -> None:
    price = DualPrice(1e9)
    for second in range(100):
        price.used(15_000.0)
        assert price.price(second * 1000.0) == 0.0


def test_a_price_falls_back_when_nothing_is_used() -> None:
    price = DualPrice(1000.0)
    price.price(0.0)
    price.used(1e6)
    risen = price.price(5000.0)
    assert risen > 0.0
    assert price.price(500_000.0) == 0.0


@given(
    st.lists(st.tuples(st.floats(allow_nan=True), st.floats(0.0, 1e7)), max_size=50),
    st.floats(1e-3, 1e12),
)
def test_a_price_is_never_negative_nor_above_its_cap(uses: list[tuple[float, float]], budget: float) -> None:
    price = DualPrice(budget)
    now_ms = 0.0
    for amount, step_ms in uses:
        now_ms += step_ms
        price.used(amount)
        assert 0.0 <= price.price(now_ms) <= 1.0 / budget


@pytest.mark.parametrize("budget", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_budgets_are_refused(budget: float) -> None:
    with pytest.raises(ConfigError):
        DualPrice(budget)


def test_time_is_free_while_no_frame_waits() -> None:
    price = TimePrice()
    assert price.price == 0.0
    for _ in range(200):
        price.frame(0.8, 50.0, waited=False)
    assert price.price == 0.0


def test_time_costs_what_waiting_frames_would_earn() -> None:
    price = TimePrice()
    for _ in range(300):
        price.frame(0.6, 50.0, waited=True)
    assert price.price == pytest.approx(0.6 / 50.0, rel=0.01)
    for index in range(300):
        price.frame(0.6, 50.0, waited=index % 2 == 0)
    assert price.price == pytest.approx(0.5 * 0.6 / 50.0, rel=0.1)


@given(st.lists(st.tuples(st.floats(allow_nan=True), st.floats(allow_nan=True), st.booleans()), max_size=50))
def test_a_time_price_is_never_negative(frames: list[tuple[float, float, bool]]) -> None:
    price = TimePrice()
    for quality, busy_ms, waited in frames:
        price.frame(quality, busy_ms, waited=waited)
        assert price.price >= 0.0
