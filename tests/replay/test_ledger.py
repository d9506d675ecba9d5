"""Why an answer was late: by computing, by the network, or because its budget was cut into the past."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeexit.decide.decision import Action, Decision, Situation
from edgeexit.replay.controller import ControllerFactory, controller_of
from edgeexit.replay.deadlines import DeadlineSchedule
from edgeexit.replay.delays import constant_delay
from edgeexit.replay.metrics import metrics
from edgeexit.replay.outcome import LATE_COMPUTE, LATE_CUT, LATE_NETWORK, ON_TIME, Outcome
from edgeexit.replay.recording import Recording
from edgeexit.replay.simulator import simulate
from edgeexit.replay.world import Scenario

PERIOD_MS = 300.0


@dataclass(frozen=True, slots=True)
class CutInEveryFrame:
    """A budget that is cut so long after each capture. Units: ms."""

    at_ms: float
    to_ms: float
    budget_ms: float = 250.0

    @property
    def name(self) -> str:
        return "cut-in-every-frame"

    def draw(self, random: np.random.Generator, *, frames: int, period_ms: float) -> DeadlineSchedule:
        starts, budgets = [0.0], [self.budget_ms]
        for frame in range(frames):
            starts += [frame * period_ms + self.at_ms, (frame + 1) * period_ms]
            budgets += [self.to_ms, self.budget_ms]
        return DeadlineSchedule(starts, budgets)


class _SendsAndWaits:
    """One exit here, then the image is sent, and its reply awaited until the deadline."""

    name = "sends-and-waits"

    def __init__(self, *, anytime: bool = True) -> None:
        self.anytime = anytime

    def decide(self, situation: Situation) -> Decision:
        if situation.evidence is None:
            return Decision(Action.CONTINUE, "first-answer")
        if situation.in_flight is not None:
            return Decision(Action.WAIT, "reply-awaited")
        if situation.options and not situation.offloads:
            return Decision(Action.OFFLOAD, "send", situation.options[0])
        return Decision(Action.EXIT, "nothing-left")


class _ComputesAll:
    """All stages, however long they take."""

    name = "computes-all"

    def __init__(self, *, anytime: bool = True) -> None:
        self.anytime = anytime

    def decide(self, situation: Situation) -> Decision:
        if situation.stages_done < situation.stage_count:
            return Decision(Action.CONTINUE, "deeper")
        return Decision(Action.EXIT, "last-exit")


WAITS: ControllerFactory = controller_of(lambda _p, _r: _SendsAndWaits())
COMPUTES: ControllerFactory = controller_of(lambda _p, _r: _ComputesAll(), transport=False)


@pytest.fixture
def far(scenario: Scenario) -> Scenario:
    """Replies come after a fifth of a second."""
    return replace(scenario, delay=constant_delay(200.0), period_ms=PERIOD_MS, frames=40)


def run(far: Scenario, recording: Recording, rule: CutInEveryFrame, make: ControllerFactory) -> Outcome:
    return simulate(replace(far, deadlines=rule), recording, make, 1)


@pytest.mark.parametrize("make", [WAITS, COMPUTES], ids=["waiting", "computing"])
def test_a_budget_cut_to_less_than_has_passed_is_a_cause_of_its_own(
    far: Scenario, recording: Recording, make: ControllerFactory
) -> None:
    outcome = run(far, recording, CutInEveryFrame(at_ms=125.0, to_ms=80.0), make)
    assert (outcome.fates == LATE_CUT).all()
    figures = metrics(outcome)
    assert (figures.late_cut, figures.late_network, figures.late_compute) == (1.0, 0.0, 0.0)
    assert figures.late == 1.0
    assert outcome.value.sum() == 0.0


def test_an_answer_given_before_the_cut_counts(far: Scenario, recording: Recording) -> None:
    outcome = run(far, recording, CutInEveryFrame(at_ms=245.0, to_ms=80.0), COMPUTES)
    assert (outcome.fates == ON_TIME).all()


@pytest.mark.parametrize("make", [WAITS, COMPUTES], ids=["waiting", "computing"])
def test_a_cut_that_leaves_time_is_kept_at_once(
    far: Scenario, recording: Recording, make: ControllerFactory
) -> None:
    # Two milliseconds are left, which is no more than the guard.
    outcome = run(far, recording, CutInEveryFrame(at_ms=125.0, to_ms=127.0), make)
    assert (outcome.fates == ON_TIME).all()
    assert outcome.by_timer.all()
    assert outcome.emitted_ms - outcome.captured_ms == pytest.approx(125.0)


def test_a_cut_that_leaves_time_is_no_excuse_for_a_device_without_a_timer(
    far: Scenario, recording: Recording
) -> None:
    cut = CutInEveryFrame(at_ms=125.0, to_ms=127.0)
    patient = controller_of(lambda _p, _r: _SendsAndWaits(anytime=False))
    stubborn = controller_of(lambda _p, _r: _ComputesAll(anytime=False), transport=False)
    assert (run(far, recording, cut, patient).fates == LATE_NETWORK).all()
    assert (run(far, recording, cut, stubborn).fates == LATE_COMPUTE).all()


def test_a_budget_that_grows_after_a_deadline_without_an_answer_leaves_the_frame_missed(
    far: Scenario, recording: Recording
) -> None:
    # The first exit is there after 49 ms: later than the first deadline, and before the next.
    grows = CutInEveryFrame(at_ms=40.0, to_ms=120.0, budget_ms=30.0)
    outcome = run(far, recording, grows, COMPUTES)
    assert (outcome.fates == LATE_COMPUTE).all()
    assert (outcome.emitted_ms - outcome.captured_ms <= 120.0).all()


def test_waiting_past_a_deadline_that_nobody_cut_is_the_networks_doing(
    far: Scenario, recording: Recording
) -> None:
    patient = controller_of(lambda _p, _r: _SendsAndWaits(anytime=False))
    outcome = run(far, recording, CutInEveryFrame(at_ms=1.0, to_ms=150.0), patient)
    assert (outcome.fates == LATE_NETWORK).all()


@dataclass(frozen=True, slots=True)
class AnyBudgets:
    """Budgets that change at any moment. Units: ms."""

    steps: tuple[tuple[float, float], ...]

    @property
    def name(self) -> str:
        return "any-budgets"

    def draw(self, random: np.random.Generator, *, frames: int, period_ms: float) -> DeadlineSchedule:
        starts, budgets = [0.0], [120.0]
        for length_ms, budget_ms in self.steps:
            starts.append(starts[-1] + length_ms)
            budgets.append(budget_ms)
        return DeadlineSchedule(starts, budgets)


class _Erratic:
    """Sends, waits, computes and answers by no rule."""

    name = "erratic"
    anytime = True

    def __init__(self, actions: list[Action]) -> None:
        self._actions = actions
        self._turn = 0

    def decide(self, situation: Situation) -> Decision:
        self._turn += 1
        action = self._actions[self._turn % len(self._actions)]
        return Decision(action, "whim", situation.options[0] if situation.options else None)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(5.0, 400.0), st.floats(20.0, 400.0)), max_size=20),
    st.lists(st.sampled_from(list(Action)), min_size=3, max_size=9),
)
def test_with_an_answer_in_hand_nothing_makes_it_late_but_a_cut(
    scenario: Scenario, recording: Recording, steps: list[tuple[float, float]], actions: list[Action]
) -> None:
    each = replace(scenario, deadlines=AnyBudgets(tuple(steps)), period_ms=PERIOD_MS, frames=40)
    outcome = simulate(each, recording, controller_of(lambda _p, _r: _Erratic(actions)), 1)
    late = np.isin(outcome.fates, (LATE_NETWORK, LATE_COMPUTE))
    # The first that came in hand, and it came too late; a budget that grows after that has more computed.
    schedule = each.deadlines.draw(np.random.default_rng(), frames=40, period_ms=PERIOD_MS)
    grown = [schedule.next_change_ms(at_ms) for at_ms in outcome.expiry_ms] <= outcome.emitted_ms
    assert (outcome.stages_run[late & ~grown] <= 1).all()
    assert (outcome.exits[late & ~grown & ~outcome.remote] == 0).all()
    assert (outcome.sends[outcome.fates == LATE_NETWORK] > 0).all()
    answered = np.isfinite(outcome.emitted_ms)
    in_time = outcome.emitted_ms <= outcome.expiry_ms + 1e-6
    assert in_time[answered & (outcome.fates == ON_TIME)].all()
    assert not (in_time & late).any()
