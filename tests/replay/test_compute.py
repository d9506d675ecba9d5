from __future__ import annotations

import numpy as np
import pytest

from edgeexit.replay.compute import ComputeTrace, Contended, ThermalRamp, Unloaded


def test_work_takes_its_time_times_the_slowdown() -> None:
    trace = ComputeTrace(10.0, (1.0, 2.0))
    assert trace.finish_ms(0.0, 5.0) == pytest.approx(5.0)
    assert trace.finish_ms(5.0, 10.0) == pytest.approx(20.0)
    assert trace.finish_ms(10.0, 5.0) == pytest.approx(20.0)
    assert [trace.at(at) for at in (0.0, 9.9, 10.0, 20.0)] == [1.0, 1.0, 2.0, 1.0]


def test_an_unloaded_board_keeps_its_profile() -> None:
    trace = Unloaded().draw(np.random.default_rng(1), frames=10, period_ms=100.0)
    assert trace.finish_ms(12_345.0, 77.0) == pytest.approx(12_422.0)


def test_contention_never_speeds_up_and_bursts_as_named() -> None:
    slowdown = np.asarray(
        Contended(3.0).draw(np.random.default_rng(1), frames=20_000, period_ms=100.0).slowdown
    )
    assert slowdown.min() >= 1.0
    burst = slowdown > 2.5
    assert 0.05 < burst.mean() < 0.35
    assert np.median(slowdown[~burst]) < 1.2
    assert np.median(slowdown[burst]) == pytest.approx(3.1, abs=0.2)


def test_a_hot_board_slows_evenly_to_its_limit() -> None:
    trace = ThermalRamp(2.0).draw(np.random.default_rng(1), frames=10, period_ms=100.0)
    assert trace.at(0.0) == 1.0
    assert trace.at(599_999.0) == 2.0
    assert trace.at(300_000.0) == pytest.approx(1.5, abs=0.01)
    assert list(trace.slowdown) == sorted(trace.slowdown)


def test_a_board_that_stands_still_or_runs_backwards_is_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        ComputeTrace(10.0, (1.0, 0.0))
