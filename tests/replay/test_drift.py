"""The watch over early exits in virtual time: it notices a world that has changed, and only that."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from edgeexit.decide.drift import AuditTerms
from edgeexit.decide.policies.hedged import HedgedGain
from edgeexit.errors import ConfigError
from edgeexit.replay.controller import controller_of
from edgeexit.replay.deadlines import Constant
from edgeexit.replay.drift import DriftTerms, replay_drift
from edgeexit.replay.outcome import AuditCount, Outcome
from edgeexit.replay.recording import Recording
from edgeexit.replay.simulator import replay
from edgeexit.replay.world import Scenario, world_of

# Time for all stages, no worth in sending: all that leaves early does so by its threshold.
FRAMES = 6000
THRESHOLDS = (0.7, 0.7, 0.7, 0.0)


@pytest.fixture(scope="module")
def calm(scenario: Scenario) -> Scenario:
    return replace(
        scenario, name="calm", frames=FRAMES, deadlines=Constant(290.0), period_ms=400.0, byte_price=1.0
    )


def test_a_drift_is_noticed_and_answered_with_tighter_thresholds(
    calm: Scenario, recording: Recording
) -> None:
    found = replay_drift(calm, recording, DriftTerms(0.5, epsilon=0.2, audit_fraction=0.1), seed=1)
    assert found.began_at == FRAMES // 2
    assert found.noticed_after is not None
    assert 0 < found.noticed_after < 1500
    assert found.false_alarms == 0
    assert found.breaches >= 1
    assert found.state in ("tightened", "stopped")
    assert found.differing_before is not None
    assert found.differing_unnoticed is not None
    assert found.differing_after is not None
    assert found.differing_before < 0.2 < found.differing_unnoticed
    assert found.differing_after < found.differing_unnoticed
    assert 0 < found.sent <= found.audits
    assert found.uplink_bytes > 0


def test_a_world_that_stays_as_it_was_is_left_alone(calm: Scenario, recording: Recording) -> None:
    found = replay_drift(calm, recording, DriftTerms(0.0, epsilon=0.2, audit_fraction=0.1), seed=1)
    assert (found.breaches, found.noticed_after, found.state) == (0, None, "watching")
    assert found.audits + found.skipped == pytest.approx(0.1 * FRAMES, rel=0.1)
    assert found == replay_drift(calm, recording, DriftTerms(0.0, epsilon=0.2, audit_fraction=0.1), seed=1)


def test_more_audits_notice_sooner(calm: Scenario, recording: Recording) -> None:
    noticed = [
        replay_drift(calm, recording, DriftTerms(0.5, epsilon=0.2, audit_fraction=each), seed=2).noticed_after
        for each in (0.02, 0.5)
    ]
    assert noticed[1] is not None
    assert noticed[0] is None or noticed[1] < noticed[0]


def test_audits_delay_no_answer(calm: Scenario, recording: Recording) -> None:
    world = world_of(calm, recording, 3).beginning(1000)

    def run(fraction: float) -> Outcome:
        made = controller_of(lambda _, recorded: HedgedGain(tables=recorded.tables, thresholds=THRESHOLDS))
        controller = replace(made(calm.profile, recording), audits=AuditTerms(fraction))
        return replay(world, controller)

    without, audited = run(0.0), run(1.0)
    assert without.audits == AuditCount()
    assert audited.audits.sent > 100
    np.testing.assert_array_equal(without.emitted_ms, audited.emitted_ms)
    np.testing.assert_array_equal(without.exits, audited.exits)


def test_what_cannot_drift_is_refused(calm: Scenario, recording: Recording) -> None:
    values = replace(recording, note=msgspec.structs.replace(recording.note, task="regression"))
    with pytest.raises(ConfigError):
        replay_drift(calm, values, DriftTerms(0.5), seed=0)
    with pytest.raises(ConfigError):
        DriftTerms(1.5)
