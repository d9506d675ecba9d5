"""Times between frames are medians over rounds, each after a pause, and a slow board is not kept waiting."""

from __future__ import annotations

import numpy as np
import pytest

from edgeexit.runner.cadence import FEWEST_ROUNDS, MOST_ROUNDS, PAUSE_S, times_between_frames
from edgeexit.runner.protocol import StageOutput, Tensors


class TimedRunner:
    """Stages that take set times on an invented clock; the third round is disturbed."""

    def __init__(self, stage_ms: tuple[float, ...]) -> None:
        self._stage_ms = stage_ms
        self.stage_count = len(stage_ms)
        self.now_ms = 0.0
        self.pauses_s: list[float] = []
        self.runs = 0

    def clock(self) -> float:
        return self.now_ms

    def sleep(self, seconds: float) -> None:
        self.pauses_s.append(seconds)
        self.now_ms += 1000.0 * seconds

    def variant(self, stage: int) -> str:
        return "f32"

    def run(self, stage: int, tensors: Tensors) -> StageOutput:
        self.runs += 1
        disturbed = 100.0 if len(self.pauses_s) == 3 else 0.0
        self.now_ms += self._stage_ms[stage] + disturbed
        return StageOutput({}, np.zeros(2, np.float32))

    def close(self) -> None:
        pass


def test_a_disturbed_round_does_not_count() -> None:
    runner = TimedRunner((1.0, 3.0))
    times_ms = times_between_frames(runner, {}, clock=runner.clock, sleep=runner.sleep)
    assert times_ms == pytest.approx((1.0, 3.0))
    assert runner.pauses_s == [PAUSE_S] * len(runner.pauses_s)
    assert FEWEST_ROUNDS < len(runner.pauses_s) <= MOST_ROUNDS


def test_a_slow_board_is_timed_in_few_rounds() -> None:
    runner = TimedRunner((300.0, 300.0))
    assert times_between_frames(runner, {}, clock=runner.clock, sleep=runner.sleep) == (300.0, 300.0)
    assert len(runner.pauses_s) == FEWEST_ROUNDS
