"""How late the deadline timer wakes: measured on the free and on the busy board, beside every scenario.

A quota stops all threads of the daemon, the one that sleeps until the deadline among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.reality.house import House
from benchmarks.reality.plan import DeviceSettings
from benchmarks.reality.real_run import RealRun, Say, inside, run_really
from benchmarks.reality.shaping import Shape
from benchmarks.reality.stages import StageTimes
from edgeexit.decide.answer import Place
from edgeexit.decide.guard import LEAST_MS, MOST_SHARE, Guard, due_after_ms
from edgeexit.errors import DataError

# How long the daemon runs for it; some sixty frames of the computing board.
SECONDS = 10.0
# The deadline lies so far into the second stage, on the median: mostly after the first answer, and with the
# rest of the stage for the timer to wake in before the loop sees the deadline by itself.
INTO_STAGE = 0.3


@dataclass(frozen=True, slots=True)
class Waking:
    """Shapes: free_ms (N,), busy_ms (M,) on the busy board, None for a board that is never busy."""

    free_ms: tuple[float, ...]
    busy_ms: tuple[float, ...] | None

    def draws(
        self,
        random: np.random.Generator,
        captured_ms: Sequence[float],
        busy: Sequence[tuple[float, float]],
    ) -> list[float]:
        """One for every frame, by the load at its capture."""
        late_ms: list[float] = []
        for at_ms in captured_ms:
            seen = self.busy_ms if self.busy_ms is not None and inside(at_ms, busy) else self.free_ms
            late_ms.append(seen[int(random.integers(0, len(seen)))])
        return late_ms


def wake_times(
    house: House, settings: DeviceSettings, stages: StageTimes, folder: Path, say: Say, *, busy: bool
) -> Waking:
    """The daemon with a deadline within its second stage. Raises: DeviceError, DataError."""

    def times(name: str, stage_ms: Sequence[Sequence[float]]) -> tuple[float, ...]:
        hurried = within_second_stage(settings, stage_ms)
        return woke_late_ms(
            run_really(house, hurried, Shape(), folder / name, seconds=SECONDS, say=say),
        )

    say("the deadline timer")
    free_ms = times("waking", stages.free_ms)
    if not busy or stages.busy_ms is None:
        return Waking(free_ms, None)
    say("the same on the busy board")
    with house.busy():
        return Waking(free_ms, times("waking-busy", stages.busy_ms))


def within_second_stage(settings: DeviceSettings, stage_ms: Sequence[Sequence[float]]) -> DeviceSettings:
    """The same daemon, alone and with one deadline. Shapes: stage_ms (N, K)."""
    first_ms, second_ms = np.median(np.asarray(stage_ms, dtype=np.float64), axis=0)[:2]
    due_ms = float(first_ms + INTO_STAGE * second_ms)
    latency_ms = min(due_ms + LEAST_MS, due_ms / (1.0 - MOST_SHARE))
    return replace(
        settings,
        budgets=((0.0, latency_ms),),
        budget_period_ms=1e6,
        offload=False,
        run_on=True,
    )


def woke_late_ms(run: RealRun) -> tuple[float, ...]:
    """How long after the moment for which it was set the timer answered. Raises: DataError if it never did.

    Only frames count whose first answer was there before that moment, and whose second stage was still
    running when they were answered: the others were answered by the loop.
    """
    stages = {each.frame: each.stages for each in run.noted}
    # The daemon learns how late its timer wakes, and sets it earlier; so it was for these frames.
    guard = Guard()
    late_ms: list[float] = []
    for each in run.answers:
        if each.reason != "deadline" or each.place is not Place.DEVICE:
            continue
        due_ms = each.captured_ms + due_after_ms(each.deadline_ms, guard.ms(each.captured_ms))
        answered_ms = each.captured_ms + each.latency_ms
        ran = stages.get(each.frame, {})
        if each.exit + 1 in ran and ran[each.exit][1] <= due_ms and answered_ms < ran[each.exit + 1][1]:
            guard.woke(answered_ms - due_ms, answered_ms)
            if each.captured_ms >= run.counted_ms:
                late_ms.append(max(0.0, answered_ms - due_ms))
    if not late_ms:
        raise DataError("the deadline timer never answered", file="results.jsonl")
    return tuple(late_ms)
