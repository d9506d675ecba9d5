from __future__ import annotations

from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.replay.deadlines import (
    ChangedInFrame,
    Constant,
    DeadlineRule,
    DeadlineSchedule,
    Redrawn,
    Swinging,
    TightBursts,
)

RULES: list[DeadlineRule] = [
    Constant(80.0),
    Redrawn((60.0, 100.0, 150.0, 250.0)),
    Swinging(40.0, 200.0),
    TightBursts(200.0, 40.0),
    ChangedInFrame(150.0, 60.0),
    ChangedInFrame(60.0, 150.0),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_rules_draw_positive_budgets_the_same_for_the_same_seed(rule: DeadlineRule) -> None:
    schedules = [rule.draw(np.random.default_rng(3), frames=500, period_ms=300.0) for _ in range(2)]
    first, second = ([each.latency_ms(at) for at in np.arange(0.0, 150_000.0, 37.0)] for each in schedules)
    assert first == second
    assert min(first) > 0.0
    assert len(set(first)) > 1 or isinstance(rule, Constant)


def test_an_expiry_is_where_the_deadline_in_force_is_reached() -> None:
    schedule = DeadlineSchedule((0.0, 50.0, 100.0), (80.0, 30.0, 200.0))
    assert schedule.expiry_ms(0.0) == 50.0  # cut to less than had passed
    assert schedule.expiry_ms(-100.0) == -20.0
    assert schedule.expiry_ms(30.0) == 60.0  # cut, but not yet over
    assert schedule.expiry_ms(60.0) == 90.0
    assert schedule.expiry_ms(80.0) == 280.0  # extended in time
    assert [schedule.expiry(at_ms).cut for at_ms in (0.0, -100.0, 30.0, 60.0, 80.0)] == [True] + [False] * 4
    assert schedule.next_change_ms(99.0) == 100.0
    assert schedule.next_change_ms(100.0) == inf


@given(st.floats(0.0, 100_000.0), st.integers(0, 5))
def test_until_its_expiry_a_frame_is_never_past_its_deadline(captured_ms: float, index: int) -> None:
    schedule = RULES[index].draw(np.random.default_rng(5), frames=400, period_ms=300.0)
    expiry_ms = schedule.expiry_ms(captured_ms)
    assert expiry_ms >= captured_ms
    for share in (0.0, 0.3, 0.7, 0.999):
        at_ms = captured_ms + share * (expiry_ms - captured_ms)
        assert at_ms <= captured_ms + schedule.latency_ms(at_ms) + 1e-6


def test_the_device_reads_the_same_budgets() -> None:
    schedule = Redrawn((60.0, 250.0)).draw(np.random.default_rng(1), frames=200, period_ms=100.0)
    source = schedule.budget_source()
    for at_ms in np.arange(0.0, 25_000.0, 333.0):
        assert source.budget(at_ms).latency_ms == schedule.latency_ms(at_ms)


@pytest.mark.parametrize(
    ("starts", "budgets"),
    [((), ()), ((1.0,), (5.0,)), ((0.0, 0.0), (5.0, 6.0)), ((0.0,), (0.0,)), ((0.0,), (inf,))],
)
def test_schedules_out_of_order_or_without_time_are_refused(
    starts: tuple[float, ...], budgets: tuple[float, ...]
) -> None:
    with pytest.raises(ValueError, match=r"start|rise|positive"):
        DeadlineSchedule(starts, budgets)
