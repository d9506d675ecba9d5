"""What a frame is answered with, in whatever order its exits speak, and what its timer learns."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeexit.decide.answer import Answer, Place
from edgeexit.decide.budget import Budget, BudgetSource, FixedBudget
from edgeexit.decide.decision import Evidence
from edgeexit.decide.guard import LEAST_MS, WAKES, Guard
from edgeexit.engine.frame import Finding, Frame, OpenFrame
from edgeexit.replay.deadlines import DeadlineSchedule

EXITS = 4
OUTPUT = np.zeros(2, np.float32)
IMAGE = np.zeros((2, 2), np.uint8)


def said(exit_index: int, score: float) -> Evidence:
    return Evidence(exit_index, score, 0, (0.5,) * EXITS)


class Spoken:
    """A frame, the scores of its exits, and the guard that its timer teaches."""

    def __init__(
        self,
        scores: Sequence[float] = (0.9,) * EXITS,
        *,
        budgets: BudgetSource | None = None,
        guard: Guard | None = None,
        captured_ms: float = 0.0,
    ) -> None:
        self.now_ms = captured_ms
        self.scores = scores
        self.emitted: list[Answer] = []
        self.frame = OpenFrame(
            Frame(0, "still", captured_ms, IMAGE),
            budgets=FixedBudget(Budget(100.0)) if budgets is None else budgets,
            clock=lambda: self.now_ms,
            emit=self.emitted.append,
            judge=self.judge,
            link_up=lambda: None,
            wake=Event(),
            guard=Guard() if guard is None else guard,
        )

    def judge(self, exit_index: int, output: NDArray[np.float32]) -> Evidence:
        return said(exit_index, self.scores[exit_index])

    def speak(self, exit_index: int, place: Place) -> None:
        if place is Place.DEVICE:
            self.frame.hold(exit_index, OUTPUT, self.now_ms)
        else:
            self.frame.offer(Finding(self.judge(exit_index, OUTPUT), OUTPUT, place))

    def answer(self) -> tuple[int, Place]:
        assert self.frame.close("last-exit")
        return self.emitted[0].exit, self.emitted[0].place


@pytest.mark.parametrize("looks_between", [False, True])
def test_an_early_exit_of_a_gateway_does_not_replace_a_deeper_one_of_the_device(looks_between: bool) -> None:
    spoken = Spoken()
    spoken.speak(0, Place.DEVICE)
    spoken.speak(1, Place.DEVICE)
    if looks_between:
        assert spoken.frame.best is not None
    spoken.speak(0, Place.GATEWAY)
    assert spoken.answer() == (1, Place.DEVICE)


@pytest.mark.parametrize("looks_between", [False, True])
def test_a_stage_that_ends_does_not_replace_a_deeper_exit_of_a_gateway(looks_between: bool) -> None:
    spoken = Spoken()
    spoken.speak(2, Place.GATEWAY)
    spoken.speak(0, Place.DEVICE)
    if looks_between:
        assert spoken.frame.best is not None
    spoken.speak(1, Place.DEVICE)
    assert spoken.answer() == (2, Place.GATEWAY)


@given(
    st.lists(st.sampled_from([0.0, 0.4, 0.9]), min_size=EXITS, max_size=EXITS),
    st.integers(1, EXITS),
    st.lists(st.integers(0, EXITS - 1), max_size=2, unique=True),
    st.data(),
)
def test_the_deepest_exit_that_said_something_is_the_answer(
    scores: list[float], stages: int, replies: list[int], data: st.DataObject
) -> None:
    spoken = Spoken(scores)
    exits = [(exit_index, Place.DEVICE) for exit_index in range(stages)]
    for exit_index in replies:
        exits.insert(data.draw(st.integers(0, len(exits))), (exit_index, Place.GATEWAY))
    for exit_index, place in exits:
        spoken.speak(exit_index, place)
        if data.draw(st.booleans()):
            assert spoken.frame.best is not None
    usable = [exit_index for exit_index, _ in exits if scores[exit_index] > 0.0]
    exit_index, _ = spoken.answer()
    if usable:
        assert exit_index == max(usable)
        assert spoken.emitted[0].score == scores[exit_index]


def test_a_reply_that_said_nothing_leaves_the_same_exit_of_the_device_as_it_is() -> None:
    spoken = Spoken()
    spoken.speak(EXITS - 1, Place.DEVICE)
    assert spoken.frame.best is not None
    spoken.scores = (0.0,) * EXITS
    spoken.speak(EXITS - 1, Place.GATEWAY)
    assert spoken.answer() == (EXITS - 1, Place.DEVICE)


def stopped_late(
    guard: Guard, late_ms: float, captured_ms: float, budgets: BudgetSource | None = None
) -> None:
    """A frame that its timer answers so much later than it was set for."""
    spoken = Spoken(guard=guard, captured_ms=captured_ms, budgets=budgets)
    due_ms = spoken.frame.look(captured_ms)
    spoken.speak(0, Place.DEVICE)
    spoken.now_ms = due_ms + late_ms
    spoken.frame.look(spoken.now_ms)
    assert spoken.emitted


def test_a_timer_that_wakes_late_is_set_earlier_for_later_frames() -> None:
    guard = Guard()
    for index in range(WAKES):
        stopped_late(guard, 5.0, 200.0 * index)
    assert guard.ms(200.0 * WAKES) == pytest.approx(5.0)
    spoken = Spoken(guard=guard, captured_ms=200.0 * WAKES)
    assert spoken.frame.look(200.0 * WAKES) == pytest.approx(200.0 * WAKES + 95.0)
    assert spoken.frame.remaining_ms(200.0 * WAKES) == pytest.approx(95.0)


def test_a_cut_budget_and_a_late_first_answer_say_nothing_of_the_timer() -> None:
    guard = Guard()
    for index in range(WAKES):
        captured_ms = 1000.0 * index
        cut = DeadlineSchedule([0.0, captured_ms + 50.0], [100.0, 20.0])
        stopped_late(guard, 0.0, captured_ms, cut.budget_source())
        overdue = Spoken(guard=guard, captured_ms=captured_ms + 500.0)
        overdue.now_ms = captured_ms + 700.0
        overdue.speak(0, Place.DEVICE)
        overdue.frame.look(overdue.now_ms)
        assert overdue.emitted
    assert guard.ms(1000.0 * WAKES) == LEAST_MS
