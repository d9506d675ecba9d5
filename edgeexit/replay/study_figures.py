"""The figures of a study: of one policy on one row, and of the row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeexit.replay.comparison import Beaten
from edgeexit.replay.metrics import Metrics, gap_closed, metrics
from edgeexit.replay.outcome import Outcome


@dataclass(frozen=True, slots=True)
class PolicyFigures:
    """One policy on one row, over all seeds. Units: fractions of all frames; bytes a frame; ms."""

    objective: float
    correct_by_deadline: float
    on_time: float
    late_network: float
    late_cut: float
    late: float
    replaced: float
    remote: float
    bytes_per_frame: float
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    gap_closed: float | None


@dataclass(frozen=True, slots=True)
class RowFigures:
    """One row of a study.

    `oracle_latency` is O1 on the same device, which must emit a guard before the deadline; for a fleet
    it knows the queue too, which hangs on what all others will do. `oracle_own_latencies`, of fleets
    alone, knows all latencies of its own device and meets the queue as it comes. `oracle_relaxed` is O1
    without guard, `oracle_correctness` O2, a bound for every policy. `gap_points` is what the first has
    over the floor, in points; `gap_closed` the policy's share of it with its 95 % interval, None where
    the gap is under half a point; `gap_closed_free_decisions` what its share would be if its decisions took
    no time, as the oracle's take none; `gain_points` what the policy has over the floor; `gap_error` and
    `gap_closed_error` are standard errors of the gap, in points, and of the share. `frames` and `seeds`
    are of these figures; those in `policies` are of the first seeds alone. `late_avoidable` is the share
    of frames that were late although the relaxed oracle had an answer in time. `late_network` and
    `late_cut` are frames, by why they were late.
    """

    scenario: str
    board: str
    trace: str
    scale: float
    deadlines: str
    contention: str
    outages: str
    fleet: str | None
    frames: int
    seeds: int
    floor: float
    own: float
    oracle_latency: float
    oracle_relaxed: float
    oracle_correctness: float
    gap_points: float
    gap_error: float
    gain_points: float
    gain_low: float
    gain_high: float
    gap_closed: float | None
    gap_closed_low: float | None
    gap_closed_high: float | None
    gap_closed_error: float | None
    gap_closed_relaxed: float | None
    gap_closed_free_decisions: float | None
    oracle_own_latencies: float | None
    gap_closed_own_latencies: float | None
    late_network: int
    late_cut: int
    late_fraction: float
    late_avoidable: float
    hindsight_rule: str | None
    policies: Mapping[str, PolicyFigures]
    beaten_by: tuple[Beaten, ...]


def policy_figures(outcomes: Sequence[Outcome], price: float, floor: float, latency: float) -> PolicyFigures:
    """The figures of runs in equally many worlds; `floor` and `latency` are objectives there."""
    each = [metrics(outcome, byte_price=price) for outcome in outcomes]

    def mean(read: Callable[[Metrics], float | None]) -> float:
        return float(np.mean([value for one in each if (value := read(one)) is not None]))

    objective = mean(lambda one: one.objective)
    return PolicyFigures(
        objective=objective,
        correct_by_deadline=mean(lambda one: one.correct_by_deadline),
        on_time=mean(lambda one: one.on_time),
        late_network=mean(lambda one: one.late_network),
        late_cut=mean(lambda one: one.late_cut),
        late=mean(lambda one: one.late),
        replaced=mean(lambda one: one.replaced),
        remote=mean(lambda one: one.remote),
        bytes_per_frame=mean(lambda one: one.bytes_per_frame),
        latency_p50_ms=mean(lambda one: one.latency_p50_ms),
        latency_p99_ms=mean(lambda one: one.latency_p99_ms),
        gap_closed=gap_closed(objective, floor, latency),
    )
