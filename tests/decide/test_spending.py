"""Prices in force: what is set, what long-run budgets add, and energy only where a sensor tells it."""

from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.decide.budget import Budget
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


def test_sending_has_a_price_of_energy_where_it_is_known_what_it_takes() -> None:
    """Without any sensor: stages have none then."""
    spending = Spending(byte_price=1e-6, energy_mj_per_s=100.0, sending_mj_per_byte=0.01)
    assert spending.byte_price(0.0) == 1e-6
    for second in range(60):
        spending.sent(50_000)  # 500 mJ a second where 100 are allowed
        spending.byte_price(1000.0 * second)
    dear = spending.byte_price(60_000.0)
    assert dear > 1e-6
    assert (spending.energy_price(60_000.0), spending.stage_energy_mj((10.0,))) == (0.0, ())
    spending.power(2.0)
    # A millijoule is worth the same, whatever it is spent on.
    assert dear == pytest.approx(1e-6 + 0.01 * spending.energy_price(60_000.0))
    spending.sending(None)
    assert spending.byte_price(60_000.0) == 1e-6


def test_what_stages_use_makes_sending_dearer_too() -> None:
    spending = Spending(energy_mj_per_s=1000.0, sending_mj_per_byte=0.01)
    spending.power(4.0)
    for second in range(60):
        spending.ran(900.0)
        spending.byte_price(1000.0 * second)
    assert spending.byte_price(60_000.0) > 0.0


steps = st.lists(
    st.tuples(st.sampled_from(["sent", "ran", "power"]), st.floats(0.0, 1e5), st.floats(0.0, 2e4)),
    max_size=40,
)
budgets = st.one_of(st.none(), st.floats(1e-3, 1e6))


@given(steps, budgets, budgets, budgets, st.integers(0, 10**6))
def test_an_absent_figure_is_the_same_as_zero_and_without_a_budget_any_figure_is(
    taken: list[tuple[str, float, float]],
    bytes_per_s: float | None,
    energy_mj_per_s: float | None,
    frame_mj: float | None,
    sent_bytes: int,
) -> None:
    def made(energy: float | None, figure: float | None) -> Spending:
        return Spending(
            byte_price=1e-6, bytes_per_s=bytes_per_s, energy_mj_per_s=energy, sending_mj_per_byte=figure
        )

    alike = [
        (made(energy_mj_per_s, None), made(energy_mj_per_s, 0.0)),
        (made(None, None), made(None, 0.02)),
    ]
    budget = Budget(100.0, energy_mj=frame_mj, uplink_bytes=20_000)
    for absent, other in alike:
        now_ms = 0.0
        for what, amount, passed_ms in taken:
            now_ms += passed_ms
            for spending in (absent, other):
                if what == "sent":
                    spending.sent(int(amount))
                elif what == "ran":
                    spending.ran(amount)
                else:
                    spending.power(amount)
            assert absent.byte_price(now_ms) == other.byte_price(now_ms)
            assert absent.energy_price(now_ms) == other.energy_price(now_ms)
            assert absent.stage_energy_mj((5.0,)) == other.stage_energy_mj((5.0,))
    absent, zero = alike[0]
    assert absent.bytes_left(budget, sent_bytes) == zero.bytes_left(budget, sent_bytes) == 20_000 - sent_bytes


def test_a_frame_sends_no_more_than_its_energy_pays_for() -> None:
    spending = Spending(sending_mj_per_byte=0.01)
    assert spending.bytes_left(Budget(100.0, energy_mj=50.0), 1000) == 4000
    assert spending.bytes_left(Budget(100.0, energy_mj=50.0, uplink_bytes=2000), 1000) == 1000
    assert spending.bytes_left(Budget(100.0), 1000) is None
    endless = spending.bytes_left(Budget(100.0, energy_mj=1e300), 0)
    assert endless is not None
    assert endless > 10**15


@pytest.mark.parametrize("figure", [-1.0, inf, nan])
def test_energy_that_is_none_is_refused(figure: float) -> None:
    with pytest.raises(ConfigError):
        Spending(sending_mj_per_byte=figure)
