"""What a real run shows of causes that the replay only assumes: how steady the board was, and TCP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

import numpy as np

from benchmarks.reality.real_run import RealRun, busy_stretches, inside
from benchmarks.reality.shaping import RESTART_MS
from benchmarks.reality.stages import StageTimes
from edgeexit.decide.learner import Failed, Replied

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
    """How much longer exchanges of the smallest payload took after a pause; None where too few tell.

    Requests that were taken back count as well, where the gateway said what they had cost it.
    """
    sent = _exchanges(real)
    least = min((each.payload_bytes for _, each in sent), default=0)
    rested: list[float] = []
    awake: list[float] = []
    for (before_ms, _), (at_ms, each) in pairwise(sent):
        if each.payload_bytes == least and each.network_ms is not None:
            (rested if at_ms - before_ms > RESTART_MS else awake).append(each.network_ms)
    if min(len(rested), len(awake)) < FEWEST:
        return None
    return round(float(np.median(rested) - np.median(awake)), 2)


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One payload. Units: network_ms, outside encoding and the gateway, None where nobody said."""

    payload_bytes: int
    network_ms: float | None


def _exchanges(real: RealRun) -> list[tuple[float, _Exchange]]:
    """How all payloads ended, each with the capture of its frame, in order."""
    captured_ms = {frame.frame: frame.captured_ms for frame in real.noted}
    found: list[tuple[float, _Exchange]] = []
    for note in (note for frame in real.noted for note in frame.notes):
        if not isinstance(note, tuple):
            continue
        seen, network_ms = note[1], None
        if isinstance(seen, Replied):
            network_ms = seen.elapsed_ms - seen.queue_ms - seen.compute_ms
        elif not isinstance(seen, Failed):
            continue
        elif seen.queue_ms is not None and seen.compute_ms is not None:
            network_ms = seen.waited_ms - seen.option.encode_ms - seen.queue_ms - seen.compute_ms
        at_ms = captured_ms.get(seen.frame, -inf)
        if at_ms >= real.begin_ms:
            found.append((at_ms, _Exchange(seen.option.payload_bytes, network_ms)))
    return sorted(found, key=lambda pair: pair[0])
