"""What a real run shows of causes that the replay only assumes: how steady the board was, and TCP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from benchmarks.reality.real_run import RealRun, busy_stretches, inside
from benchmarks.reality.shaping import RESTART_MS
from benchmarks.reality.stages import StageTimes

# Medians of fewer frames would tell nothing.
FEWEST = 10


def stages_seen(real: RealRun, before: StageTimes, after: StageTimes) -> dict[str, tuple[float | None, ...]]:
    """Median stage times before, within and after a run, on the free and on the busy one."""
    busy = busy_stretches(real)
    within: dict[bool, list[dict[int, float]]] = {False: [], True: []}
    for frame in real.noted:
        if frame.captured_ms >= real.counted_ms:
            within[inside(frame.captured_ms - real.begin_ms, busy)].append(frame.stage_ms)
    count = len(real.started.stage_ms)

    def median(times_ms: list[float]) -> float | None:
        return round(float(np.median(times_ms)), 2) if times_ms else None

    def medians(frames: Sequence[Mapping[int, float]]) -> tuple[float | None, ...]:
        return tuple(median([each[stage] for each in frames if stage in each]) for stage in range(count))

    def around(frames: Sequence[Sequence[float]]) -> tuple[float | None, ...]:
        return tuple(median([each[stage] for each in frames]) for stage in range(count))

    seen: dict[str, tuple[float | None, ...]] = {
        "before": around(before.free_ms),
        "within": medians(within[False]),
        "after": around(after.free_ms),
    }
    if before.busy_ms is not None and after.busy_ms is not None:
        seen |= {
            "before, busy": around(before.busy_ms),
            "within, busy": medians(within[True]),
            "after, busy": around(after.busy_ms),
        }
    return seen


def seen_after_pause_ms(real: RealRun) -> float | None:
    """How much longer exchanges of the smallest payload took after a pause; None where too few tell."""
    captured_ms = {each.frame: each.captured_ms for each in real.answers}
    sent = sorted(
        ((captured_ms[each.frame], each) for each in real.offloads if each.frame in captured_ms),
        key=lambda pair: pair[0],
    )
    least = min((each.uplink_bytes for _, each in sent), default=0)
    rested: list[float] = []
    awake: list[float] = []
    for (before_ms, _), (at_ms, each) in pairwise(sent):
        if each.uplink_bytes == least and each.compute_ms is not None and each.queue_ms is not None:
            network_ms = each.elapsed_ms - each.compute_ms - each.queue_ms
            (rested if at_ms - before_ms > RESTART_MS else awake).append(network_ms)
    if min(len(rested), len(awake)) < FEWEST:
        return None
    return round(float(np.median(rested) - np.median(awake)), 2)
