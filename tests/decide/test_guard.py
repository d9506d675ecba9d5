"""The guard before deadlines: as long as the timer needs, and no longer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.decide.guard import FRESH_MS, LEAST_MS, MOST_SHARE, OUTLIERS, WAKES, Guard, due_after_ms

LATE = st.floats(0.0, 50.0)


def test_a_punctual_timer_keeps_the_least_guard() -> None:
    guard = Guard()
    assert guard.ms(0.0) == LEAST_MS
    for index in range(100):
        guard.woke(0.3, 100.0 * index)
    assert guard.ms(10_000.0) == LEAST_MS


def test_a_stall_now_and_then_costs_nothing() -> None:
    guard = Guard()
    for index in range(100):
        guard.woke(40.0 if index % WAKES == 0 else 0.2, 100.0 * index)
        assert guard.ms(100.0 * index) == LEAST_MS


def test_a_timer_that_has_to_wait_is_set_earlier_until_it_need_not() -> None:
    guard = Guard()
    for index in range(WAKES):
        guard.woke((0.2, 3.0, 7.0, 12.0)[index % 4], 100.0 * index)
    assert guard.ms(2000.0) == 12.0
    for index in range(WAKES):
        guard.woke(0.2, 2000.0 + 100.0 * index)
    assert guard.ms(4000.0) == LEAST_MS


def test_what_was_long_ago_says_nothing_of_now() -> None:
    guard = Guard()
    guard.woke(9.0, 0.0)
    guard.woke(9.0, 100.0)
    assert guard.ms(100.0 + FRESH_MS - 1.0) == 9.0
    assert guard.ms(100.0 + FRESH_MS) == LEAST_MS
    guard.woke(9.0, 200.0 + FRESH_MS)
    assert guard.ms(201.0 + FRESH_MS) == LEAST_MS, "the first one after all were forgotten"


@given(st.lists(LATE, min_size=1, max_size=60))
def test_all_but_the_outliers_of_the_last_wakes_would_have_been_in_time(late_ms: list[float]) -> None:
    guard = Guard()
    for index, each in enumerate(late_ms):
        guard.woke(each, float(index))
    now_ms = guard.ms(float(len(late_ms)))
    assert now_ms >= LEAST_MS
    assert sum(each > now_ms for each in late_ms[-WAKES:]) <= OUTLIERS
    assert now_ms == LEAST_MS or now_ms in late_ms[-WAKES:]


@given(st.floats(0.0, 1e6), st.floats(LEAST_MS, 1e3))
def test_a_guard_never_takes_more_than_its_share(latency_ms: float, guard_ms: float) -> None:
    due_ms = due_after_ms(latency_ms, guard_ms)
    assert (1.0 - MOST_SHARE) * latency_ms <= due_ms * (1.0 + 1e-12)
    assert due_ms <= latency_ms
    assert latency_ms - due_ms <= guard_ms + 1e-9
    assert due_after_ms(1000.0, 10.0) == pytest.approx(990.0)
