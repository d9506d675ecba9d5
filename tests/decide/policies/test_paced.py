"""A camera that is faster than the board: what the price of time is for."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from edgeexit.decide.decision import Action, Decision, Evidence, Policy, Situation
from edgeexit.decide.learner import FrameClosed, Learner, StageDone
from edgeexit.decide.policies.hedged import HedgedGain
from edgeexit.decide.policies.local import AlwaysLocal
from edgeexit.decide.policies.paced import Paced

K = 4
QUALITY = (0.58, 0.70, 0.77, 0.80)
STAGE_MS = 50.0
BUDGET_MS = 250.0


@dataclass(frozen=True, slots=True)
class Compute:
    def probability_within(self, first: int, stop: int, limit_ms: float) -> float:
        return 1.0 if STAGE_MS * (stop - first) <= limit_ms else 0.0

    def median_ms(self, first: int, stop: int) -> float:
        return STAGE_MS * (stop - first)


def quality_per_frame(
    policy: Policy, period_ms: float, frames: int = 2000, handover_ms: float = 0.0
) -> float:
    """Mean quality over all frames of a camera, replaced ones counting nothing; the last 1500.

    Units: handover_ms, from a frame's capture until the loop has it.
    """
    now_ms = total = 0.0
    frame = 0
    while frame < frames:
        captured_ms = frame * period_ms
        now_ms = max(now_ms, captured_ms + handover_ms)
        evidence: Evidence | None = None
        done = 0
        while True:
            elapsed_ms = now_ms - captured_ms
            situation = Situation(
                BUDGET_MS - elapsed_ms, elapsed_ms, done, K, evidence, QUALITY, Compute(), None, (), None
            )
            if policy.decide(situation).action is not Action.CONTINUE:
                break
            now_ms += STAGE_MS
            evidence = Evidence(done, 0.5, 0, QUALITY)
            done += 1
            if isinstance(policy, Learner):
                policy.learn(StageDone(frame, done - 1, STAGE_MS), now_ms)
        if isinstance(policy, Learner):
            latency_ms = now_ms - captured_ms
            policy.learn(FrameClosed(frame, latency_ms, BUDGET_MS, done - 1, done, 0), now_ms)
        if frame >= frames // 4 and now_ms - captured_ms <= BUDGET_MS:
            total += QUALITY[done - 1]
        frame = max(frame + 1, int(now_ms // period_ms))
    return total / (frames - frames // 4)


def test_slow_camera_changes_nothing() -> None:
    assert quality_per_frame(Paced(HedgedGain()), 300.0) == quality_per_frame(HedgedGain(), 300.0)


def test_reading_a_frame_takes_time_and_is_no_waiting() -> None:
    paced = quality_per_frame(Paced(HedgedGain()), 300.0, handover_ms=5.0)
    assert paced == pytest.approx(QUALITY[-1])


def test_fast_camera_gets_more_answers_of_less_depth() -> None:
    for period_ms in (55.0, 105.0):
        paced = quality_per_frame(Paced(HedgedGain()), period_ms)
        assert paced > 1.2 * quality_per_frame(HedgedGain(), period_ms)


def test_it_is_named_and_timed_as_what_it_holds() -> None:
    assert Paced(HedgedGain()).name == "hedged-gain"
    assert not Paced(AlwaysLocal()).anytime


def test_learners_inside_are_told_everything() -> None:
    class Told:
        def __init__(self) -> None:
            self.seen = 0

        @property
        def name(self) -> str:
            return "told"

        @property
        def anytime(self) -> bool:
            return False

        def decide(self, situation: Situation) -> Decision:
            return Decision(Action.CONTINUE, "on")

        def learn(self, observation: object, now_ms: float) -> None:
            self.seen += 1

    inner = Told()
    paced = Paced(inner)
    paced.learn(StageDone(0, 0, 5.0), 5.0)
    paced.learn(FrameClosed(0, 5.0, 10.0, 0, 1, 0), 5.0)
    paced.learn(FrameClosed(1, None, 10.0, None, 1, 0), 6.0)
    assert inner.seen == 3
