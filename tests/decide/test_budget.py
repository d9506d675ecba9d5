"""Sources of budgets say when the next change comes, or tell it; the last moment of a frame follows them."""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from edgeexit.decide.budget import Budget, BudgetSource, Expiry, FixedBudget, LatestBudget, ScheduleBudget

times_ms = st.floats(-1e5, 1e6)


@st.composite
def schedules(draw: st.DrawFn) -> ScheduleBudget:
    lengths_ms = draw(st.lists(st.floats(0.5, 500.0), max_size=6))
    starts_ms = [sum(lengths_ms[:count]) for count in range(len(lengths_ms) + 1)]
    period_ms = starts_ms[-1] + draw(st.floats(0.5, 500.0)) if draw(st.booleans()) else None
    steps = [(start_ms, Budget(10.0 + index)) for index, start_ms in enumerate(starts_ms)]
    return ScheduleBudget(steps, origin_ms=draw(times_ms), period_ms=period_ms)


@given(schedules(), times_ms)
def test_a_schedule_knows_its_next_change(schedule: ScheduleBudget, now_ms: float) -> None:
    next_ms = schedule.next_change_ms(now_ms)
    assert next_ms > now_ms
    before = schedule.budget(now_ms)
    for share in (0.001, 0.3, 0.7, 0.999):
        length_ms = min(next_ms - now_ms, 1e4)
        # Rounding of times as large as a week may move a step by less than this.
        at_ms = min(now_ms + share * length_ms, next_ms - 1e-6)
        assert at_ms <= now_ms or schedule.budget(at_ms) == before
    if next_ms < inf and next_ms - now_ms > 1e-3:
        assert schedule.budget(next_ms + 1e-6) != before


@given(schedules(), times_ms)
def test_going_from_change_to_change_does_not_stand_still(schedule: ScheduleBudget, now_ms: float) -> None:
    at_ms = now_ms
    for _ in range(200):
        at_ms = schedule.next_change_ms(at_ms)
    assert at_ms > now_ms + 20.0


def test_a_budget_that_is_set_is_told_and_the_others_have_nothing_to_tell() -> None:
    told: list[float] = []
    latest = LatestBudget(Budget(50.0))
    sources: list[BudgetSource] = [latest, FixedBudget(Budget(5.0)), ScheduleBudget([(0.0, Budget(5.0))])]
    for source in sources:
        assert source.next_change_ms(0.0) == inf
        source.listen(lambda: told.append(latest.budget(0.0).latency_ms))
    latest.set(Budget(20.0))
    assert told == [20.0]
    latest.listen(None)
    latest.set(Budget(10.0))
    assert told == [20.0]


def test_a_frame_ends_with_its_deadline_or_with_the_cut_that_leaves_nothing() -> None:
    by_itself, cut, extended = (Expiry(100.0, 50.0) for _ in range(3))
    by_itself.change(151.0, 500.0)
    assert (by_itself.at_ms, by_itself.over, by_itself.cut) == (150.0, True, False)
    cut.change(140.0, 30.0)
    cut.change(145.0, 500.0)
    assert (cut.at_ms, cut.over, cut.cut) == (140.0, True, True)
    extended.change(150.0, 60.0)
    extended.change(155.0, 55.0)
    assert (extended.at_ms, extended.over, extended.cut) == (155.0, False, False)
