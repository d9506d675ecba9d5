"""The deadline of a frame, in invented time: kept at once through every change of budget, by few looks."""

from __future__ import annotations

from math import inf
from threading import Event

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.decide.answer import Answer, Fate
from edgeexit.decide.budget import Budget, BudgetSource, FixedBudget, LatestBudget
from edgeexit.decide.decision import Evidence
from edgeexit.decide.guard import LEAST_MS, Guard, due_after_ms
from edgeexit.engine.frame import Frame, OpenFrame
from edgeexit.replay.deadlines import DeadlineSchedule

OUTPUT = np.array([1.0, 0.0], np.float32)

# Whole milliseconds: sums of them are exact, so that moments can be compared.
lengths_ms = st.integers(1, 60)


class Played:
    """A frame whose clock the test turns."""

    def __init__(self, budgets: BudgetSource, captured_ms: float) -> None:
        self.now_ms = captured_ms
        self.emitted: list[Answer] = []
        self.frame = OpenFrame(
            Frame(0, "still", captured_ms, np.zeros((2, 2), np.uint8)),
            budgets=budgets,
            clock=lambda: self.now_ms,
            emit=self.emitted.append,
            judge=lambda exit_index, _: Evidence(exit_index, 0.5, 0, (0.5,)),
            link_up=lambda: None,
            wake=Event(),
            guard=Guard(),
        )

    def until_answered(self, begins_ms: float, first_ms: float) -> int:
        """Look as the timer does, from when the engine begins; something comes in hand at `first_ms`."""
        looks, self.now_ms = 1, begins_ms
        next_ms = self.frame.look(begins_ms)
        while self.frame.answer is None:
            if not self.frame.in_hand and first_ms <= next_ms:
                self.now_ms = first_ms
                self.frame.hold(0, OUTPUT, self.now_ms)
                continue
            assert self.now_ms <= next_ms < inf
            assert looks < 100
            self.now_ms, looks = next_ms, looks + 1
            next_ms = self.frame.look(next_ms)
        return looks


@st.composite
def schedules(draw: st.DrawFn) -> DeadlineSchedule:
    steps_ms = draw(st.lists(lengths_ms, max_size=8))
    starts_ms = [float(sum(steps_ms[:count])) for count in range(len(steps_ms) + 1)]
    return DeadlineSchedule(starts_ms, [float(draw(st.integers(1, 150))) for _ in starts_ms])


@given(schedules(), st.integers(0, 200), lengths_ms, lengths_ms)
def test_the_answer_comes_at_the_first_moment_that_the_deadline_in_force_is_reached(
    schedule: DeadlineSchedule, captured: int, waits: int, takes: int
) -> None:
    captured_ms = float(captured)
    begins_ms, first_ms = captured_ms + waits, captured_ms + waits + takes
    played = Played(schedule.budget_source(), captured_ms)
    looks = played.until_answered(begins_ms, first_ms)

    def due_ms(at_ms: float) -> float:
        latency_ms = schedule.latency_ms(at_ms)
        return captured_ms + due_after_ms(latency_ms, LEAST_MS)

    changes_ms = [captured_ms]
    while (change_ms := schedule.next_change_ms(changes_ms[-1])) < inf:
        changes_ms.append(change_ms)
    moments_ms = sorted([first_ms, *changes_ms, *(due_ms(at_ms) for at_ms in changes_ms)])
    expected_ms = next(at_ms for at_ms in moments_ms if at_ms >= first_ms and due_ms(at_ms) <= at_ms)
    answer = played.emitted[0]
    assert captured_ms + answer.latency_ms == expected_ms
    # Once at the beginning, once at the deadline, and once at each change.
    assert looks <= 1 + len(changes_ms)


@given(schedules(), st.integers(0, 200), lengths_ms, lengths_ms)
def test_the_device_judges_lateness_as_the_replay_does(
    schedule: DeadlineSchedule, captured: int, waits: int, takes: int
) -> None:
    captured_ms = float(captured)
    played = Played(schedule.budget_source(), captured_ms)
    played.until_answered(captured_ms + waits, captured_ms + waits + takes)
    answer, expiry = played.emitted[0], schedule.expiry(captured_ms)
    emitted_ms = captured_ms + answer.latency_ms
    in_time = emitted_ms < expiry.at_ms if expiry.cut else emitted_ms <= expiry.at_ms
    assert answer.on_time == in_time
    assert answer.cut == (expiry.cut and not in_time)


def test_a_change_counts_from_when_it_was_told_however_late_anybody_looks() -> None:
    latest = LatestBudget(Budget(100.0))
    played = Played(latest, 0.0)
    assert played.frame.look(10.0) == 98.0
    latest.set(Budget(60.0))
    played.frame.budget_changed(50.0)
    played.frame.hold(0, OUTPUT, played.now_ms)
    # At the change ten milliseconds were left: what is late is so by itself, not by a cut.
    played.now_ms = 80.0
    assert played.frame.look(80.0) == inf
    answer = played.emitted[0]
    assert (answer.on_time, answer.cut, answer.deadline_ms) == (False, False, 60.0)


def test_a_deadline_that_has_passed_without_anything_in_hand_is_forgotten_when_the_budget_grows() -> None:
    latest = LatestBudget(Budget(20.0))
    played = Played(latest, 0.0)
    assert played.frame.look(30.0) == inf
    latest.set(Budget(100.0))
    played.frame.budget_changed(40.0)
    assert played.frame.look(40.0) == 98.0
    played.frame.hold(0, OUTPUT, played.now_ms)
    assert played.emitted == []
    played.now_ms = 98.0
    played.frame.look(98.0)
    # It is worth emitting, and was missed all the same.
    assert (played.emitted[0].latency_ms, played.emitted[0].deadline_ms) == (98.0, 20.0)


@given(st.lists(st.tuples(st.booleans(), lengths_ms), max_size=6), lengths_ms, st.integers(21, 300))
def test_the_network_counts_where_the_first_answer_would_have_been_in_time_without_it(
    before: list[tuple[bool, int]], takes: int, budget: int
) -> None:
    played = Played(FixedBudget(Budget(float(budget))), 0.0)
    frame, spent_ms = played.frame, 0
    for on_network, length in before:
        if on_network:
            frame.spent.begin_network(played.now_ms, in_hand=frame.in_hand)
            spent_ms += length
        played.now_ms += length
        frame.spent.end_network(played.now_ms)
    first_ms = played.now_ms + takes
    played.until_answered(played.now_ms, first_ms)
    answer = played.emitted[0]
    if first_ms <= budget:
        assert answer.fate is Fate.ON_TIME
    else:
        assert answer.fate is (Fate.LATE_NETWORK if first_ms - spent_ms <= budget else Fate.LATE_COMPUTE)


@given(st.integers(0, 60), lengths_ms, st.integers(0, 60), st.booleans())
def test_a_timer_that_wakes_late_was_kept_by_a_sending_or_by_the_board(
    sent_before: int, first: int, late: int, is_sending: bool
) -> None:
    played = Played(FixedBudget(Budget(200.0)), 0.0)
    frame = played.frame
    frame.spent.begin_network(0.0, in_hand=frame.in_hand)
    frame.spent.end_network(sent_before)
    played.now_ms = sent_before + first
    frame.hold(0, OUTPUT, played.now_ms)
    if is_sending:
        frame.spent.begin_network(190.0, in_hand=frame.in_hand)
    assert frame.look(played.now_ms) == 198.0
    played.now_ms = 198.0 + late
    frame.look(played.now_ms)
    answer = played.emitted[0]
    assert answer.network_ms == (late if is_sending else 0)
    expected = Fate.LATE_NETWORK if is_sending else Fate.LATE_COMPUTE
    assert answer.fate is (expected if late > 2 else Fate.ON_TIME)
