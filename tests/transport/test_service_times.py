"""Service times: they follow the machine, and they never lock a stage out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeexit.transport.service_times import FORGET_HALF_MS, ServiceTimes

TIMES = st.lists(st.floats(0.01, 10_000.0), min_size=1, max_size=50)


def test_unmeasured_is_unknown() -> None:
    times = ServiceTimes()
    times.observe("a", 0, 3.0, 0.0)
    assert times.expected_ms("a", 0, 1, 0.0) == 3.0
    assert times.expected_ms("a", 0, 2, 0.0) is None
    assert times.mean_ms("b", 0) is None


def test_slower_machine_is_believed_within_a_few_requests() -> None:
    times = ServiceTimes()
    for _ in range(20):
        times.observe("a", 0, 2.0, 0.0)
    for _ in range(6):
        times.observe("a", 0, 20.0, 0.0)
    expected_ms = times.expected_ms("a", 0, 1, 0.0)
    assert expected_ms is not None
    assert expected_ms > 15.0


def test_one_long_pause_is_forgotten_without_new_samples() -> None:
    times = ServiceTimes()
    times.observe("a", 0, 2.0, 0.0)
    times.observe("a", 0, 60_000.0, 0.0)
    after_ms = times.expected_ms("a", 0, 1, 20 * FORGET_HALF_MS)
    assert after_ms is not None
    assert after_ms < 3.0


@given(TIMES)
def test_expectation_is_at_least_the_best_time_and_sinks_with_age(samples: list[float]) -> None:
    times = ServiceTimes()
    for sample_ms in samples:
        times.observe("a", 0, sample_ms, 0.0)
    expected = [times.expected_ms("a", 0, 1, now_ms) for now_ms in (0.0, 1e3, 1e4, 1e6)]
    known = [value for value in expected if value is not None]
    assert len(known) == 4
    assert known == sorted(known, reverse=True)
    assert min(samples) * (1 - 1e-9) <= known[-1] <= min(samples) * (1 + 1e-6) + 1e-6


def test_forgotten_bundle_leaves_nothing() -> None:
    times = ServiceTimes()
    times.observe("a", 0, 2.0, 0.0)
    times.observe("b", 0, 2.0, 0.0)
    times.forget("a")
    assert times.mean_ms("a", 0) is None
    assert times.mean_ms("b", 0) == 2.0
