"""Loaded bundles, and one request served in the time there is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeexit.bundle import Bundle
from edgeexit.errors import RunnerError
from edgeexit.gateway.loaded import LoadedBundles
from edgeexit.gateway.serve import Served, run_in_time
from edgeexit.transport.service_times import ServiceTimes

if TYPE_CHECKING:
    from tests.gateway.conftest import CopyBundle, InventedTime, MakeRunner, SpendingRunner


def image_of(bundle: Bundle) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    return {spec.name: np.zeros(spec.shape, spec.dtype) for spec in bundle.manifest.boundaries[0].tensors}


def known_times(bundle: Bundle, time: InventedTime, stage_ms: list[float]) -> ServiceTimes:
    times = ServiceTimes()
    for stage, took_ms in enumerate(stage_ms):
        times.observe(bundle.digest, stage, took_ms, time.now_ms)
    return times


@pytest.mark.parametrize(
    ("left_ms", "exit_"), [(100.0, 2), (15.1, 2), (14.5, 1), (7.1, 1), (6.5, 0), (3.1, 0), (2.5, None)]
)
def test_deepest_exit_in_time_is_given(
    tiny_bundle: Bundle, time: InventedTime, make_runner: MakeRunner, left_ms: float, exit_: int | None
) -> None:
    runner = make_runner()
    served = run_in_time(
        runner,
        tiny_bundle.digest,
        Served(0, image_of(tiny_bundle)),
        3,
        deadline_ms=time.now_ms + left_ms,
        times=known_times(tiny_bundle, time, runner.stage_ms),
        clock=time,
        overtaken=lambda: False,
    )
    assert served.exit == exit_
    if exit_ is None:
        assert runner.ran == []
    else:
        assert served.output is not None
        assert served.output.tolist() == [float(exit_)] * 3


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    stage_ms=st.lists(st.floats(0.1, 50.0), min_size=3, max_size=3),
    left_ms=st.floats(0.0, 200.0),
    stop=st.integers(1, 3),
)
def test_never_late_on_purpose(
    tiny_bundle: Bundle,
    time: InventedTime,
    make_runner: MakeRunner,
    stage_ms: list[float],
    left_ms: float,
    stop: int,
) -> None:
    runner = make_runner()
    runner.stage_ms = stage_ms
    deadline_ms = time.now_ms + left_ms
    served = run_in_time(
        runner,
        tiny_bundle.digest,
        Served(0, image_of(tiny_bundle)),
        stop,
        deadline_ms=deadline_ms,
        times=known_times(tiny_bundle, time, stage_ms),
        clock=time,
        overtaken=lambda: False,
    )
    if runner.ran:
        assert time.now_ms <= deadline_ms
    assert served.exit == (runner.ran[-1] if runner.ran else None)
    assert all(stage < stop for stage in runner.ran)


def test_a_request_that_is_overtaken_goes_on_where_it_paused(
    tiny_bundle: Bundle, time: InventedTime, make_runner: MakeRunner
) -> None:
    runner = make_runner()
    served, pauses = Served(0, image_of(tiny_bundle)), 0
    while True:
        served = run_in_time(
            runner,
            tiny_bundle.digest,
            served,
            3,
            deadline_ms=time.now_ms + 100.0,
            times=known_times(tiny_bundle, time, runner.stage_ms),
            clock=time,
            overtaken=lambda: True,
        )
        if not served.paused:
            break
        pauses += 1
    assert (pauses, served.exit, runner.ran) == (2, 2, [0, 1, 2])


class Opened:
    """Opens runners that spend invented time, and remembers them."""

    def __init__(self, make_runner: MakeRunner) -> None:
        self.make_runner = make_runner
        self.runners: list[SpendingRunner] = []
        self.fail_at: int | None = None

    def __call__(self, bundle: Bundle, count: int) -> tuple[SpendingRunner, ...]:
        made = tuple(self.make_runner() for _ in range(count))
        for runner in made:
            runner.fail_at = self.fail_at
        self.runners += made
        return made


def test_loading_measures_every_stage(
    tiny_bundle: Bundle, time: InventedTime, make_runner: MakeRunner
) -> None:
    times = ServiceTimes()
    bundles = LoadedBundles(Opened(make_runner), count=2, times=times, clock=time)
    bundles.load(tiny_bundle)
    assert [times.mean_ms(tiny_bundle.digest, stage) for stage in range(3)] == [2.0, 4.0, 8.0]
    loaded = bundles.find(tiny_bundle.short_digest)
    assert loaded is not None
    assert loaded.bundle == tiny_bundle
    assert loaded.borrow() is not None
    assert loaded.borrow() is not None
    assert loaded.borrow() is None


def test_bundle_that_cannot_run_is_not_served(
    tiny_bundle: Bundle, time: InventedTime, make_runner: MakeRunner
) -> None:
    opened = Opened(make_runner)
    opened.fail_at = 1
    bundles = LoadedBundles(opened, count=2, times=ServiceTimes(), clock=time)
    with pytest.raises(RunnerError):
        bundles.load(tiny_bundle)
    assert bundles.all == ()
    assert all(runner.closed for runner in opened.runners)


def test_unloading_lets_the_request_at_work_finish(
    tiny_bundle: Bundle, time: InventedTime, make_runner: MakeRunner
) -> None:
    opened = Opened(make_runner)
    times = ServiceTimes()
    bundles = LoadedBundles(opened, count=2, times=times, clock=time)
    bundles.load(tiny_bundle)
    loaded = bundles.find(tiny_bundle.short_digest)
    assert loaded is not None
    at_work = loaded.borrow()
    assert at_work is not None
    bundles.unload(tiny_bundle.digest)
    assert bundles.find(tiny_bundle.short_digest) is None
    assert times.mean_ms(tiny_bundle.digest, 0) is None
    assert [runner.closed for runner in opened.runners].count(True) == 1
    assert loaded.borrow() is None
    loaded.give_back(at_work)
    assert all(runner.closed for runner in opened.runners)


def test_two_bundles_are_served_side_by_side(
    tmp_path: Path,
    tiny_bundle: Bundle,
    time: InventedTime,
    make_runner: MakeRunner,
    copy_bundle: CopyBundle,
) -> None:
    other = copy_bundle(tmp_path / "other", 99)
    bundles = LoadedBundles(Opened(make_runner), count=1, times=ServiceTimes(), clock=time)
    bundles.load(tiny_bundle)
    bundles.load(other)
    assert {loaded.bundle.digest for loaded in bundles.all} == {tiny_bundle.digest, other.digest}
    bundles.close()
    assert bundles.all == ()
