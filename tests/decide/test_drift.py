from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.decide.drift import (
    BREACHES_TO_STOP,
    WINDOW,
    AuditTerms,
    DriftState,
    DriftWatch,
    is_audited,
)
from edgeexit.decide.risk import NEVER
from edgeexit.errors import ConfigError

CERTIFIED = (0.8, 0.8, 0.0)


def audits_to_breach(risk: float, seed: int, limit: int = 20_000) -> int | None:
    watch = DriftWatch(CERTIFIED, epsilon=0.05)
    draw = random.Random(seed)
    for count in range(1, limit + 1):
        if watch.audit(draw.random() >= risk) is not None:
            return count
    return None


def test_false_alarms_in_a_window_stay_under_delta() -> None:
    alarms = sum(audits_to_breach(0.05, seed, WINDOW) is not None for seed in range(400))
    assert alarms <= 0.1 * 400


def test_risk_four_times_the_promise_is_found_within_a_window() -> None:
    counts = [audits_to_breach(0.2, seed) for seed in range(50)]
    assert all(count is not None and count < WINDOW for count in counts)


def test_a_drift_that_begins_late_is_found_too() -> None:
    watch = DriftWatch(CERTIFIED, epsilon=0.05)
    for _ in range(5000):
        assert watch.audit(True) is None
    draw = random.Random(3)
    found = [watch.audit(draw.random() >= 0.25) for _ in range(2 * WINDOW)]
    assert any(found)


def test_a_breach_tightens_and_enough_of_them_stop_early_exits() -> None:
    watch = DriftWatch(CERTIFIED, epsilon=0.05)
    seen = [watch.thresholds]
    breaches = 0
    while breaches < BREACHES_TO_STOP:
        breach = watch.audit(False)
        if breach is not None:
            breaches += 1
            assert breach.risk == 1.0
            assert breach.thresholds == watch.thresholds
            seen.append(watch.thresholds)
    firsts = [thresholds[0] for thresholds in seen]
    assert firsts == sorted(firsts)
    assert firsts[1] == pytest.approx(0.9)
    assert watch.state.value == DriftState.STOPPED.value
    assert watch.thresholds == (NEVER, NEVER, 0.0)
    watch.recalibrated((0.7, 0.7, 0.0))
    assert watch.state.value == DriftState.WATCHING.value
    assert watch.thresholds == (0.7, 0.7, 0.0)


@given(st.lists(st.booleans(), max_size=2000), st.floats(0.005, 0.5))
def test_thresholds_are_never_looser_than_certified(audits: list[bool], epsilon: float) -> None:
    watch = DriftWatch(CERTIFIED, epsilon=epsilon)
    for agreed in audits:
        watch.audit(agreed)
        assert all(now >= then for now, then in zip(watch.thresholds, CERTIFIED, strict=True))
        assert watch.thresholds[-1] == 0.0


def test_the_audit_sample_is_a_fixed_fair_share() -> None:
    chosen = [frame for frame in range(100_000) if is_audited(frame)]
    assert len(chosen) == pytest.approx(1000, rel=0.1)
    assert chosen == [frame for frame in range(100_000) if is_audited(frame)]
    assert is_audited(5, fraction=1.0)
    assert not is_audited(5, fraction=0.0)


def test_impossible_levels_are_refused() -> None:
    with pytest.raises(ConfigError):
        DriftWatch(CERTIFIED, epsilon=0.0)


def test_figures_count_since_the_beginning_not_since_the_window() -> None:
    watch = DriftWatch(CERTIFIED, epsilon=0.05)
    for audit in range(3 * WINDOW):
        watch.audit(audit % 100 != 0)
    assert (watch.status.audits, watch.status.disagreements) == (3 * WINDOW, 12)
    assert str(watch.status) == "watching, 12 of 1200 audits differ"


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=8),
    st.floats(-1e6, 1e6, width=32),
    st.floats(1e-3, 1e3),
)
def test_answers_agree_by_class_or_within_the_tolerance(
    output: list[float], value: float, tolerance: float
) -> None:
    classes, values = AuditTerms(), AuditTerms(tolerance=tolerance)
    assert classes.agree(output, output)
    lifted = [each + 1.0 for each in output]
    assert classes.agree(output, [2.0 * each for each in lifted]) == (
        output.index(max(output)) == lifted.index(max(lifted))
    )
    assert values.agree(output, [value, 0.0]) == (abs(output[0] - value) <= tolerance)


def test_devices_have_samples_of_their_own() -> None:
    first, second = AuditTerms(0.1, salt=1), AuditTerms(0.1, salt=2)
    frames = range(10_000)
    picked = [{frame for frame in frames if terms.picks(frame)} for terms in (first, second)]
    assert [len(each) for each in picked] == [pytest.approx(1000, rel=0.1)] * 2
    assert len(picked[0] & picked[1]) < 200


@pytest.mark.parametrize("fraction", [-0.1, 1.5, float("nan")])
def test_impossible_fractions_are_refused(fraction: float) -> None:
    with pytest.raises(ConfigError):
        AuditTerms(fraction)
