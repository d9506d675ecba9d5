"""A guarded policy keeps to its guarantee, and tightens when audits speak against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from hypothesis import given
from hypothesis import strategies as st

from edgeexit.decide.decision import Action, Decision, Policy, Situation
from edgeexit.decide.drift import BREACHES_TO_STOP, Breach, DriftState, DriftWatch
from edgeexit.decide.learner import Audited, Observation, StageDone
from edgeexit.decide.policies.guarded import Guarded
from edgeexit.decide.policies.hedged import HedgedGain
from edgeexit.decide.risk import NEVER

CERTIFIED_AT = (0.8, 0.8, 0.0)


@dataclass(frozen=True, slots=True)
class Sure:
    """A forecast in which every stage is in time, or none."""

    chance: float = 1.0

    def probability_within(self, first: int, stop: int, limit_ms: float) -> float:
        return self.chance

    def median_ms(self, first: int, stop: int) -> float:
        return 1.0


@dataclass(slots=True)
class Scripted:
    """Always decides the same; keeps what it is told."""

    decision: Decision
    told: list[Observation] = field(default_factory=list)
    name: str = "scripted"
    anytime: bool = True

    def decide(self, situation: Situation) -> Decision:
        return self.decision

    def learn(self, observation: Observation, now_ms: float) -> None:
        self.told.append(observation)


def situation(stages_done: int = 1, chance: float = 1.0) -> Situation:
    return Situation(
        remaining_ms=50.0,
        elapsed_ms=5.0,
        stages_done=stages_done,
        stage_count=3,
        evidence=None,
        prior_quality=(0.6, 0.7, 0.8),
        compute=Sure(chance),
        link=None,
        options=(),
        in_flight=None,
    )


def guarded(decision: Decision) -> Guarded:
    return Guarded(lambda _: Scripted(decision), DriftWatch(CERTIFIED_AT, epsilon=0.05), lambda _: None)


def test_confidence_without_a_certificate_is_no_reason_to_leave_early() -> None:
    confident = Decision(Action.EXIT, "confident")
    assert guarded(confident).decide(situation()).action is Action.CONTINUE
    assert guarded(confident).decide(situation(chance=0.0)) is confident, "no time for another stage"
    assert guarded(confident).decide(situation(stages_done=3)) is confident
    assert guarded(confident).decide(replace(situation(), time_price=0.01)) is confident, "frames wait"
    for reason in ("certified", "deadline", "last-exit", "nothing-better-in-time"):
        other = Decision(Action.EXIT, reason)
        assert guarded(other).decide(situation()) is other


def test_a_breach_puts_tighter_thresholds_in_force_and_is_told_once() -> None:
    made: list[tuple[float, ...]] = []
    told: list[Breach] = []

    def make(thresholds: Sequence[float]) -> Policy:
        made.append(tuple(thresholds))
        return HedgedGain(thresholds=thresholds)

    watch = DriftWatch(CERTIFIED_AT, epsilon=0.05)
    policy = Guarded(make, watch, told.append)
    frame = 0
    while len(told) < BREACHES_TO_STOP:
        policy.learn(Audited(frame, agreed=False), float(frame))
        frame += 1
    assert made == [CERTIFIED_AT, *(breach.thresholds for breach in told)]
    assert made[1][0] > made[0][0]
    assert made[-1] == (NEVER, NEVER, 0.0)
    assert watch.state.value == DriftState.STOPPED.value
    assert (policy.name, policy.anytime) == ("hedged-gain", True)


def test_everything_observed_reaches_the_policy_inside() -> None:
    inner = Scripted(Decision(Action.CONTINUE, "deeper"))
    policy = Guarded(lambda _: inner, DriftWatch(CERTIFIED_AT, epsilon=0.05), lambda _: None)
    seen: list[Observation] = [StageDone(1, 0, 2.0), Audited(1, agreed=True)]
    for observation in seen:
        policy.learn(observation, 1.0)
    assert inner.told == seen


@given(st.lists(st.booleans(), max_size=1500))
def test_thresholds_in_force_are_those_of_the_watch(audits: list[bool]) -> None:
    made: list[tuple[float, ...]] = []

    def make(thresholds: Sequence[float]) -> Policy:
        made.append(tuple(thresholds))
        return Scripted(Decision(Action.CONTINUE, "deeper"))

    breaches: list[Breach] = []
    watch = DriftWatch(CERTIFIED_AT, epsilon=0.05)
    policy = Guarded(make, watch, breaches.append)
    for frame, agreed in enumerate(audits):
        policy.learn(Audited(frame, agreed), float(frame))
        assert made[-1] == watch.thresholds
    assert watch.status.audits == len(audits)
    assert watch.status.disagreements == audits.count(False)
    assert watch.status.breaches == len(breaches)
