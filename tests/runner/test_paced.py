"""A slower board, played: the same answers, each a set factor later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.bundle import Bundle
from edgeexit.errors import ConfigError, RunnerError
from edgeexit.runner.paced import PacedRunner
from edgeexit.runner.preprocess import input_tensors
from edgeexit.runner.table import TableRunner


class MadeUpTime:
    """A clock that stages and sleeps move on; sleeping wakes up early or late by `drift`."""

    def __init__(self, stage_ms: float, drift: float = 1.0) -> None:
        self.now_ms = 1000.0
        self.slept_s: list[float] = []
        self._stage_ms = stage_ms
        self._drift = drift

    def clock(self) -> float:
        return self.now_ms

    def work(self, stage: int) -> None:
        self.now_ms += self._stage_ms * (stage + 1)

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now_ms += max(1e-3, seconds * 1000.0 * self._drift)


def paced(bundle: Bundle, factor: float, time: MadeUpTime) -> tuple[PacedRunner, dict[str, np.ndarray]]:
    rows = [np.eye(3, dtype=np.float32)] * 3
    table = TableRunner(bundle.manifest, rows, work=time.work)
    spec = bundle.manifest.boundaries[0].tensors[0]
    image = input_tensors(table.image_of(2), bundle.manifest.preprocessing, spec)
    return PacedRunner(table, factor, time.clock, time.sleep), dict(image)


@given(factor=st.floats(1.0, 100.0), stage_ms=st.floats(0.01, 500.0))
def test_every_stage_takes_the_factor_times_its_own_time(
    tiny_bundle: Bundle, factor: float, stage_ms: float
) -> None:
    time = MadeUpTime(stage_ms)
    runner, image = paced(tiny_bundle, factor, time)
    begun_ms = time.now_ms
    given_ = runner.run(0, image)
    assert time.now_ms - begun_ms == pytest.approx(factor * stage_ms, rel=1e-6, abs=2e-3)
    begun_ms = time.now_ms
    runner.run(1, given_.boundary)
    assert time.now_ms - begun_ms == pytest.approx(factor * stage_ms * 2, rel=1e-6, abs=2e-3)
    np.testing.assert_array_equal(given_.output, [0.0, 0.0, 1.0])


class SlowImage(Mapping[str, np.ndarray]):
    """Tensors whose numbers are made when they are asked for, in 7 ms."""

    def __init__(self, tensors: dict[str, np.ndarray], time: MadeUpTime) -> None:
        self._tensors = tensors
        self._time = time

    def __getitem__(self, name: str) -> np.ndarray:
        self._time.now_ms += 7.0
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def test_making_numbers_of_an_image_is_not_stretched(tiny_bundle: Bundle) -> None:
    time = MadeUpTime(10.0)
    runner, image = paced(tiny_bundle, 3.0, time)
    begun_ms = time.now_ms
    runner.run(0, SlowImage(image, time))
    assert time.now_ms - begun_ms == pytest.approx(7.0 + 3.0 * 10.0, abs=1e-6)


def test_a_sleep_that_ends_early_is_taken_up_again(tiny_bundle: Bundle) -> None:
    time = MadeUpTime(10.0, drift=0.7)
    runner, image = paced(tiny_bundle, 5.0, time)
    runner.run(0, image)
    assert time.now_ms - 1000.0 == pytest.approx(50.0, abs=0.01)
    assert len(time.slept_s) > 1


def test_a_factor_of_one_never_sleeps(tiny_bundle: Bundle) -> None:
    time = MadeUpTime(10.0)
    runner, image = paced(tiny_bundle, 1.0, time)
    runner.run(0, image)
    assert time.slept_s == []


def test_a_failure_is_not_slept_upon(tiny_bundle: Bundle) -> None:
    time = MadeUpTime(10.0)
    runner, _ = paced(tiny_bundle, 8.0, time)
    with pytest.raises(RunnerError):
        runner.run(0, {})
    assert time.slept_s == []


@pytest.mark.parametrize("factor", [0.0, 0.99, -3.0, 101.0, float("nan"), float("inf")])
def test_a_factor_that_no_board_has_is_refused(tiny_bundle: Bundle, factor: float) -> None:
    with pytest.raises(ConfigError):
        paced(tiny_bundle, factor, MadeUpTime(1.0))


def test_the_rest_is_the_runner_underneath(tiny_bundle: Bundle) -> None:
    runner, _ = paced(tiny_bundle, 2.0, MadeUpTime(1.0))
    assert runner.stage_count == 3
    assert runner.variant(1) == "f32"
    runner.close()
