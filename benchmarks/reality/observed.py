"""What a real run shows of causes that the replay only assumes: how steady the board was, and TCP."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from benchmarks.reality.isolation import Isolated
from benchmarks.reality.real_run import RealRun, busy_stretches, inside
from benchmarks.reality.shaping import RESTART_MS

# Medians of fewer frames would tell nothing.
FEWEST = 10


def drift(real: RealRun, isolated: Isolated) -> float | None:
    """How much slower the board was in a run than when it was measured; None where too few frames tell.

    It is the median, over frames that were answered alone, free of load, before their deadline, of latency
    over overhead and the stages that were run.
    """
    busy = busy_stretches(real)
    run_ms = np.cumsum(np.median(isolated.stage_draws, axis=0)).tolist()
    ratios = [
        each.latency_ms / (isolated.overhead_ms + run_ms[each.stages_run - 1])
        for each in real.answers
        if each.captured_ms >= real.counted_ms
        and each.offloads == 0
        and each.reason != "deadline"
        and not inside(each.captured_ms - real.begin_ms, busy)
    ]
    return round(float(np.median(ratios)), 3) if len(ratios) >= FEWEST else None


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
