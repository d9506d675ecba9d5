"""Notes of a run put to the policy again: it repeats itself, and the input that differs is found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.reality.noting import FrameNotes, Noted, by_frame
from benchmarks.reality.redriven import Mind, inputs, redrive
from edgeexit.decide.decision import OffloadOption
from edgeexit.decide.latency import LatencyModel
from edgeexit.decide.link import LinkEstimator
from edgeexit.decide.policies.hedged import HedgedGain
from edgeexit.replay.controller import Controller
from edgeexit.replay.deadlines import Redrawn
from edgeexit.replay.delays import constant_delay
from edgeexit.replay.formats.steps import Steps
from edgeexit.replay.profile import CostProfile
from edgeexit.replay.recording import RecordedOption, Recording
from edgeexit.replay.simulator import replay
from edgeexit.replay.synthetic import synthetic_recording
from edgeexit.replay.traces import LinkTrace
from edgeexit.replay.world import Scenario, world_of

STAGE_MS = (30.0,) * 4
FRAMES = 200


@pytest.fixture(scope="module")
def recording() -> Recording:
    return synthetic_recording(
        options=(RecordedOption(boundary=0, codec="u8", payload_bytes=40_000, quality_cost=0.0),),
        stage_ms=STAGE_MS,
    )


@pytest.fixture(scope="module")
def mind(recording: Recording) -> Mind:
    return Mind(lambda: HedgedGain(tables=recording.tables), STAGE_MS, recording.prior_quality)


def notes_of(recording: Recording, mind: Mind, *, encode_ms: float) -> list[FrameNotes]:
    profile = CostProfile(
        "board", STAGE_MS, (2.0,) * 4, (OffloadOption(0, "u8", 40_000, encode_ms),), (0,), noise=0.05
    )
    scenario = Scenario(
        name="steady",
        profile=profile,
        frames=FRAMES,
        period_ms=200.0,
        deadlines=Redrawn((50.0, 58.0, 66.0, 74.0, 90.0, 150.0)),
        uplink=LinkTrace("steady", Steps((0.0, 1000.0), (8e5,))),
        delay=constant_delay(16.0),
        byte_price=1e-7,
    )
    policy = Noted(mind.make())
    replay(world_of(scenario, recording, 1), Controller(policy, LatencyModel(STAGE_MS), LinkEstimator()))
    return by_frame(policy.notes)


def test_the_policy_repeats_every_decision_of_its_notes(recording: Recording, mind: Mind) -> None:
    noted = notes_of(recording, mind, encode_ms=0.1)
    assert len(noted) == FRAMES
    askings = [asking for frame in redrive(noted, mind) for asking in frame]
    assert len(askings) > FRAMES
    for asking in askings:
        assert (asking.noted.action, asking.noted.reason) == (asking.decision.action, asking.decision.reason)
    found = inputs(noted, [noted], mind, counted_ms=0.0, begin_ms=0.0)
    assert found.repeated == 1.0
    assert set(found.taken.values()) == {found.sent_really} == {found.sent_replayed}


def test_the_input_that_differs_is_the_one_that_makes_up_for_it(recording: Recording, mind: Mind) -> None:
    """Encoding that takes long keeps payloads from being sent; taking that input alone shows it."""
    real = notes_of(recording, mind, encode_ms=12.0)
    replayed = notes_of(recording, mind, encode_ms=0.1)
    found = inputs(real, [replayed], mind, counted_ms=0.0, begin_ms=0.0)
    assert found.sent_really < found.sent_replayed
    assert found.taken["all of them"] == found.sent_really
    missed = {name: abs(sent - found.sent_really) for name, sent in found.taken.items()}
    del missed["all of them"]
    assert min(missed, key=missed.__getitem__) == "encoding"


def test_a_mind_of_another_board_does_not_repeat_everything(recording: Recording, mind: Mind) -> None:
    noted = notes_of(recording, mind, encode_ms=0.1)
    slower = replace(mind, stage_ms=tuple(3.0 * each for each in STAGE_MS))
    assert inputs(noted, [], slower, counted_ms=0.0, begin_ms=0.0).repeated < 1.0
