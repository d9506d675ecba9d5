"""What the reality check reads off real runs: how late the deadline timer woke, and TCP after a pause."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks.reality.noting import FrameNotes, Note, RunOn
from benchmarks.reality.observed import FEWEST, seen_after_pause_ms
from benchmarks.reality.real_run import SETTLE_S, RealRun
from benchmarks.reality.shaper import Stats
from benchmarks.reality.shaping import Counted
from benchmarks.reality.waking import Waking, woke_late_ms
from edgeexit.decide.answer import Answer, Place, Record
from edgeexit.decide.decision import Action, Evidence, OffloadOption, Situation
from edgeexit.decide.latency import LatencyModel
from edgeexit.decide.learner import Failed, Observation, Replied, StageDone
from edgeexit.device.records import RunStarted
from edgeexit.errors import DataError

PERIOD_MS = 100.0
IMAGE = OffloadOption(boundary=0, codec="u8", payload_bytes=1000, encode_ms=1.0)


def run_of(frames: Sequence[FrameNotes], records: Sequence[Record] = ()) -> RealRun:
    silence = Counted()
    stats = Stats(
        origin_ms=0.0,
        now_ms=0.0,
        worst_lateness_ms=0.0,
        late_share=0.0,
        priority="",
        up=silence,
        down=silence,
    )
    return RealRun(
        started=RunStarted("d", "b", "", (), (), "here", None, None, "p", 0.0, 0.0),
        records=tuple(records),
        begin_ms=-1000.0 * SETTLE_S,
        end_ms=1e9,
        link_before=stats,
        link_after=stats,
        changes=(),
        noted=tuple(frames),
    )


def answer(frame: int, latency_ms: float, *, exit_index: int = 0, reason: str = "deadline") -> Answer:
    return Answer(
        frame=frame,
        source="still",
        label=0,
        score=1.0,
        quality=1.0,
        output=(1.0,),
        exit=exit_index,
        place=Place.DEVICE,
        captured_ms=PERIOD_MS * frame,
        latency_ms=latency_ms,
        deadline_ms=50.0,
        reason=reason,
        stages_run=exit_index + 1,
        offloads=0,
        uplink_bytes=0,
        link_up=True,
        decision_us=(),
    )


def staged(frame: int, *ended_ms: float) -> FrameNotes:
    """A frame whose stages ended so long after its capture, each begun where the one before ended."""
    began_ms = (0.0, *ended_ms)
    return FrameNotes(
        frame,
        PERIOD_MS * frame,
        tuple(
            (PERIOD_MS * frame + end, StageDone(frame, stage, end - began_ms[stage]))
            for stage, end in enumerate(ended_ms)
        ),
    )


def test_a_timer_is_late_by_what_passes_after_the_guard() -> None:
    # Due at 48 ms: 50 less the guard.
    real = run_of([staged(0, 30.0, 70.0), staged(1, 30.0, 70.0)], [answer(0, 48.2), answer(1, 55.0)])
    assert woke_late_ms(real) == pytest.approx((0.2, 7.0))


def test_answers_that_the_loop_gave_tell_nothing_of_the_timer() -> None:
    frames = [
        (staged(0, 30.0, 70.0), answer(0, 49.0)),
        (staged(1, 52.0, 90.0), answer(1, 52.1)),  # the first answer came after the deadline
        (staged(2, 30.0, 60.0), answer(2, 60.1, exit_index=1)),  # the loop met the deadline first
        (staged(3, 30.0, 44.0), answer(3, 44.1, exit_index=1, reason="last-exit")),
    ]
    real = run_of([notes for notes, _ in frames], [given for _, given in frames])
    assert woke_late_ms(real) == pytest.approx((1.0,))


def test_a_timer_that_never_answered_is_an_error() -> None:
    with pytest.raises(DataError, match="timer"):
        woke_late_ms(run_of([staged(0, 30.0)], [answer(0, 30.1, reason="last-exit")]))


def test_frames_draw_by_the_load_at_their_capture() -> None:
    waking = Waking((0.1, 0.2), (5.0, 6.0))
    random = np.random.default_rng(1)
    captured_ms = [float(each) for each in range(0, 200, 10)]
    drawn = waking.draws(random, captured_ms, [(100.0, 150.0)])
    for at_ms, late_ms in zip(captured_ms, drawn, strict=True):
        assert late_ms in ((5.0, 6.0) if 100.0 <= at_ms < 150.0 else (0.1, 0.2))
    assert set(Waking((0.1,), None).draws(random, captured_ms, [(100.0, 150.0)])) == {0.1}


def test_only_the_timer_stops_a_policy_that_runs_on() -> None:
    policy = RunOn()
    assert policy.anytime
    held = Evidence(exit=0, score=1.0, label=1, expected_quality=(1.0, 1.0))
    for done, action in ((0, Action.CONTINUE), (1, Action.CONTINUE), (2, Action.EXIT)):
        situation = Situation(
            remaining_ms=-50.0,
            elapsed_ms=100.0,
            stages_done=done,
            stage_count=2,
            evidence=held if done else None,
            prior_quality=(0.5, 0.6),
            compute=LatencyModel([1.0, 1.0]).forecast(0.0),
            link=None,
            options=(),
            in_flight=None,
            offloads=0,
        )
        assert policy.decide(situation).action is action


def exchanged(frame: int, captured_ms: float, seen: Observation) -> FrameNotes:
    # What became of a payload is told in the notes of a later frame as a rule.
    note: Note = (captured_ms + 60.0, seen)
    return FrameNotes(frame, captured_ms, (note,))


def test_what_a_pause_costs_is_told_by_requests_taken_back_as_well() -> None:
    frames: list[FrameNotes] = []
    at_ms = 0.0
    for frame in range(2 * FEWEST + 1):
        rested = frame % 2 == 1
        at_ms += 1000.0 if rested else 100.0
        network_ms = 38.0 if rested else 30.0
        seen: Observation = Replied(frame, IMAGE, network_ms + 7.0, 2.0, 5.0, 100)
        if frame % 3 == 0:
            # Waited from before it was encoded.
            seen = Failed(frame, IMAGE, network_ms + 8.0, "cancelled", 2.0, 5.0)
        frames.append(exchanged(frame, at_ms, seen))
    assert seen_after_pause_ms(run_of(frames)) == pytest.approx(8.0)
    assert seen_after_pause_ms(run_of(frames[:FEWEST])) is None
    silent = [
        exchanged(each.frame, each.captured_ms, Failed(each.frame, IMAGE, 40.0, "no reply"))
        for each in frames
    ]
    assert seen_after_pause_ms(run_of(silent)) is None
