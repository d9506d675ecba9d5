from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.replay.capacity import Capacity

# Rates with zeros among them: mobile links stand still for seconds.
rates = st.lists(st.one_of(st.just(0.0), st.floats(0.01, 1000.0)), min_size=1, max_size=12).filter(
    lambda values: sum(values) > 0.0
)
lengths = st.floats(0.5, 500.0)


@st.composite
def capacities(draw: st.DrawFn) -> Capacity:
    amounts = draw(rates)
    edges = [0.0]
    for _ in amounts:
        edges.append(edges[-1] + draw(lengths))
    return Capacity(edges, amounts)


times = st.floats(0.0, 20_000.0)
loads = st.floats(0.001, 20_000.0)


@given(capacities(), times, loads)
def test_what_flows_is_what_the_rate_allows(capacity: Capacity, start_ms: float, amount: float) -> None:
    end_ms = capacity.finish_ms(start_ms, amount)
    carried = capacity.flowed(end_ms) - capacity.flowed(start_ms)
    assert end_ms >= start_ms
    assert carried == pytest.approx(amount, rel=1e-6, abs=1e-3)


@given(capacities(), times, loads, loads)
def test_more_never_ends_sooner(capacity: Capacity, start_ms: float, amount: float, more: float) -> None:
    assert capacity.finish_ms(start_ms, amount + more) >= capacity.finish_ms(start_ms, amount)


@given(capacities(), times, st.floats(0.0, 5000.0), loads)
def test_starting_later_never_ends_sooner(
    capacity: Capacity, start_ms: float, later_ms: float, amount: float
) -> None:
    early_ms = capacity.finish_ms(start_ms, amount)
    assert capacity.finish_ms(start_ms + later_ms, amount) >= early_ms - 1e-6 * early_ms


@given(capacities(), st.floats(0.0, 1000.0), loads, st.integers(1, 5))
def test_it_repeats_after_its_period(capacity: Capacity, start_ms: float, amount: float, cycles: int) -> None:
    shift_ms = cycles * capacity.period_ms
    here_ms = capacity.finish_ms(start_ms, amount) - start_ms
    there_ms = capacity.finish_ms(start_ms + shift_ms, amount) - (start_ms + shift_ms)
    # A start or an end on the edge of a standstill may fall on either side of it by rounding.
    assert capacity.flowed(start_ms + here_ms) == pytest.approx(
        capacity.flowed(start_ms + there_ms), rel=1e-6, abs=1e-3
    )


@given(capacities(), times, loads, loads)
def test_one_after_the_other_is_both_together(
    capacity: Capacity, start_ms: float, first: float, second: float
) -> None:
    together_ms = capacity.finish_ms(start_ms, first + second)
    in_turn_ms = capacity.finish_ms(capacity.finish_ms(start_ms, first), second)
    assert capacity.flowed(in_turn_ms) == pytest.approx(capacity.flowed(together_ms), rel=1e-6, abs=1e-3)


def test_nothing_takes_no_time() -> None:
    assert Capacity((0.0, 10.0), (5.0,)).finish_ms(3.0, 0.0) == 3.0


def test_a_standstill_is_waited_out() -> None:
    capacity = Capacity((0.0, 10.0, 30.0, 40.0), (10.0, 0.0, 10.0))
    assert capacity.finish_ms(5.0, 5.0) == 10.0
    assert capacity.finish_ms(5.0, 6.0) == 31.0
    assert capacity.finish_ms(12.0, 1.0) == 31.0
    assert capacity.finish_ms(0.0, 20.0) == 40.0
    assert capacity.finish_ms(0.0, 40.0) == 80.0


@pytest.mark.parametrize(
    ("edges", "amounts"),
    [
        ((0.0, 1.0), (0.0,)),
        ((0.0, 1.0), (-1.0,)),
        ((1.0, 2.0), (1.0,)),
        ((0.0, 0.0), (1.0,)),
        ((0.0,), (1.0,)),
    ],
)
def test_what_never_flows_or_runs_backwards_is_refused(
    edges: tuple[float, ...], amounts: tuple[float, ...]
) -> None:
    with pytest.raises(ValueError, match=r"edges|amounts"):
        Capacity(edges, amounts)
