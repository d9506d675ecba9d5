"""Prices in force: what is set, what long-run budgets add, and energy only where a sensor tells it."""

from __future__ import annotations

from math import inf, nan

import pytest

from edgeexit.decide.spending import Spending
from edgeexit.errors import ConfigError


def test_without_budgets_there_is_only_the_price_that_was_set() -> None:
    spending = Spending(byte_price=1e-6)
    spending.sent(10**9)
    spending.ran(1e6)
    spending.power(5.0)
    assert [spending.byte_price(at_ms) for at_ms in (0.0, 60_000.0)] == [1e-6, 1e-6]
    assert spending.energy_price(60_000.0) == 0.0
    assert spending.stage_energy_mj((10.0, 20.0)) == ()


def test_bytes_beyond_the_budget_get_dearer_and_cheaper_again() -> None:
    spending = Spending(byte_price=1e-6, bytes_per_s=1000.0)
    assert spending.byte_price(0.0) == 1e-6
    for second in range(30):
        spending.sent(5000)
        spending.byte_price(1000.0 * second)
    dear = spending.byte_price(30_000.0)
    assert dear > 1e-6
    for second in range(30, 600):
        spending.byte_price(1000.0 * second)
    assert spending.byte_price(600_000.0) == 1e-6


def test_energy_has_a_price_only_where_a_sensor_tells_the_power() -> None:
    spending = Spending(energy_mj_per_s=1000.0)
    for second in range(30):
        spending.ran(900.0)
        assert spending.energy_price(1000.0 * second) == 0.0
    assert not spending.prices_energy
    spending.power(4.0)
    assert spending.stage_energy_mj((10.0, 20.0)) == (40.0, 80.0)
    for second in range(30, 60):
        spending.ran(900.0)  # 3.6 J a second where one is allowed
        spending.energy_price(1000.0 * second)
    assert spending.energy_price(60_000.0) > 0.0


@pytest.mark.parametrize("power_w", [None, 0.0, -1.0, nan, inf])
def test_a_sensor_that_says_nothing_usable_is_no_sensor(power_w: float | None) -> None:
    spending = Spending(energy_mj_per_s=1000.0)
    spending.power(5.0)
    spending.power(power_w)
    assert not spending.prices_energy
    assert spending.stage_energy_mj((10.0,)) == ()


@pytest.mark.parametrize("budget", [0.0, -1.0, inf, nan])
def test_a_budget_that_is_none_is_refused(budget: float) -> None:
    with pytest.raises(ConfigError):
        Spending(bytes_per_s=budget)
    with pytest.raises(ConfigError):
        Spending(energy_mj_per_s=budget)
