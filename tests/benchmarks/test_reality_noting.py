"""Notes of a policy: what is noted is what was shown, said and told, and it comes back from its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.reality.noting import Asked, Noted, by_frame, read_notes, write_notes
from edgeexit.decide.decision import Action, Decision, Evidence, OffloadOption, Situation
from edgeexit.decide.latency import LatencyModel
from edgeexit.decide.learner import Failed, FrameClosed, Observation, Pinged, Replied, Sent, StageDone
from edgeexit.decide.link import LinkEstimator
from edgeexit.errors import DataError

OPTION = OffloadOption(0, "u8", 3000, encode_ms=0.5, quality_cost=0.01)
EVIDENCE = Evidence(0, 0.75, 3, (0.7, 0.9))


class Sender:
    """Sends at once, and remembers what it was told."""

    name = "sender"
    anytime = True

    def __init__(self) -> None:
        self.told: list[tuple[Observation, float]] = []

    def decide(self, situation: Situation) -> Decision:
        return Decision(Action.OFFLOAD, "gain", situation.options[0])

    def learn(self, observation: Observation, now_ms: float) -> None:
        self.told.append((observation, now_ms))


def situation(elapsed_ms: float, evidence: Evidence | None) -> Situation:
    link = LinkEstimator()
    return Situation(
        remaining_ms=50.0 - elapsed_ms,
        elapsed_ms=elapsed_ms,
        stages_done=0 if evidence is None else 1,
        stage_count=2,
        evidence=evidence,
        prior_quality=(0.6, 0.8),
        compute=LatencyModel((5.0, 5.0)).forecast(0.0),
        link=link.forecast(0.0),
        options=(OPTION,),
        in_flight=None,
        byte_price=1e-6,
        later_options=(OPTION,),
    )


TOLD: tuple[tuple[Observation, float], ...] = (
    (Sent(7, OPTION, 1.0), 101.0),
    (StageDone(7, 0, 5.5), 106.5),
    (Replied(7, OPTION, 20.0, 1.0, 2.0, 256), 121.0),
    (FrameClosed(7, 22.0, 50.0, 1, 1, 1), 122.0),
    (Pinged(64, 17.5), 140.0),
    (Failed(7, OPTION, 30.0, "too_late"), 150.0),
    (FrameClosed(8, 12.0, 50.0, 0, 1, 0), 212.0),
)


def test_notes_come_back_from_their_file_cut_into_frames(tmp_path: Path) -> None:
    inner = Sender()
    noted = Noted(inner)
    decision = noted.decide(situation(1.0, None))
    assert decision.option is OPTION
    for observation, now_ms in TOLD:
        noted.learn(observation, now_ms)
        if isinstance(observation, StageDone):
            noted.decide(situation(6.5, EVIDENCE))
    assert tuple(inner.told) == TOLD
    write_notes(noted.notes, tmp_path / "notes")
    assert read_notes(tmp_path / "notes") == noted.notes
    first, second = by_frame(noted.notes)
    assert (first.frame, first.captured_ms) == (7, 100.0)
    assert (second.frame, second.captured_ms) == (8, 200.0)
    assert [each.elapsed_ms for each in first.decisions] == [1.0, 6.5]
    assert [each.evidence for each in first.decisions] == [None, EVIDENCE]
    assert not second.decisions
    # What was told between two frames belongs to the later one.
    assert [type(each[1]) for each in second.notes if isinstance(each, tuple)] == [
        Pinged,
        Failed,
        FrameClosed,
    ]


def test_a_policy_that_does_not_learn_is_noted_like_any_other() -> None:
    class Stubborn:
        name = "stubborn"
        anytime = False

        def decide(self, situation: Situation) -> Decision:
            return Decision(Action.CONTINUE, "always")

    noted = Noted(Stubborn())
    assert (noted.name, noted.anytime) == ("stubborn", False)
    noted.decide(situation(1.0, EVIDENCE))
    noted.learn(*TOLD[1])
    asked, told = noted.notes
    assert isinstance(asked, Asked)
    assert (asked.action, asked.reason, asked.evidence) == (Action.CONTINUE, "always", EVIDENCE)
    assert told == (TOLD[1][1], TOLD[1][0])


@pytest.mark.parametrize("line", ["{}", "nothing", '{"type":"told","now_ms":1.0,"kind":"Gone","what":{}}'])
def test_a_file_of_something_else_is_refused_by_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "notes"
    path.write_text(
        f'{{"type":"told","now_ms":1.0,"kind":"Pinged","what":{{"uplink_bytes":1,"elapsed_ms":2.0}}}}\n{line}\n'
    )
    with pytest.raises(DataError, match="notes:2"):
        read_notes(path)
    with pytest.raises(DataError):
        read_notes(tmp_path / "absent")
