"""Reality beside replay: figures, differences, and whether they agree within bounds stated beforehand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgeexit.decide.answer import Place
from edgeexit.replay.frames import RunRows, figures

# One frame in fifty: a burst of lateness of this machine (another guest, a stall of its disk) costs some.
ON_TIME_POINTS = 2.0
# An exit more or less is worth a third of a point in a hundred; what is late counts for nothing as well.
CORRECT_POINTS = 3.0
# One step of the budget lasts 3 % of a run: which exit is right for it, and whether a payload pays, may be a
# close decision in two steps, and the estimators of both worlds have seen different noise before it.
SHARE_POINTS = 8.0
# What 8 points of frames carry, where a third of all frames is sent.
BYTES_SHARE = 0.25
# Steps of the loop are whole stages, and payloads come back within the jitter of the link.
LATENCY_SHARE = 0.10
# Below this a wake-up of this machine decides.
LATENCY_MS = 6.0

# Quantiles that a plot of latencies needs.
QUANTILES = tuple(range(2, 100, 4))


@dataclass(frozen=True, slots=True)
class Figures:
    """One run, over all frames that are counted.

    Units: fractions of all frames; offloaded, those of which a payload was sent; `shares` by place and exit,
    as in `gateway/3`, dropped ones by reason; `late_by`, of answers, by what made them late; latencies,
    capture to answer, `latency_ms` at `QUANTILES`.
    """

    frames: int
    on_time_fraction: float
    correct_by_deadline_fraction: float
    offloaded_fraction: float
    gateway_fraction: float
    shares: dict[str, float]
    bytes_per_frame: float
    latency_mean_ms: float
    latency_p95_ms: float
    latency_ms: tuple[float, ...]
    late_by: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure in both worlds.

    A real run is one draw of many that might have been: what counts is how far it lies outside the range of
    single replays, from `low` to `high`. It agrees where this difference is within the bound.
    Units: `unit`, all; replayed, of all replays together.
    """

    figure: str
    unit: str
    real: float
    replayed: float
    low: float
    high: float
    difference: float
    bound: float
    agrees: bool


def figures_of(run: RunRows, *, counted_ms: float, runs: int = 1) -> Figures:
    """The figures of one run, or of `runs` runs pooled, over frames captured from `counted_ms` on."""
    rows = tuple(row for row in run.rows if row.captured_ms >= counted_ms)
    counted = figures(RunRows(run.name, rows, run.offloads))
    frames = max(1, counted.frames)
    shares = {
        f"{place}/{exit_}": round(count / frames, 4)
        for place, by_exit in counted.answers.items()
        for exit_, count in by_exit.items()
    }
    shares |= {f"dropped/{reason}": round(count / frames, 4) for reason, count in counted.dropped.items()}
    latency_ms = [row.latency_ms for row in rows if row.latency_ms is not None] or [0.0]
    return Figures(
        frames=frames // runs,
        on_time_fraction=round(counted.on_time_fraction, 4),
        correct_by_deadline_fraction=round(counted.correct_by_deadline_fraction or 0.0, 4),
        offloaded_fraction=round(sum(row.uplink_bytes > 0 for row in rows) / frames, 4),
        gateway_fraction=round(sum(row.place is Place.GATEWAY for row in rows) / frames, 4),
        shares=dict(sorted(shares.items())),
        late_by={fate: round(count / frames, 4) for fate, count in counted.late_by.items()},
        bytes_per_frame=round(counted.uplink_bytes / frames, 1),
        latency_mean_ms=round(float(np.mean(latency_ms)), 2),
        latency_p95_ms=round(float(np.percentile(latency_ms, 95)), 2),
        latency_ms=tuple(round(each, 1) for each in np.percentile(latency_ms, QUANTILES).tolist()),
    )


def pooled(runs: Sequence[RunRows]) -> RunRows:
    """All frames of several runs as one; fractions and percentiles are then of all of them."""
    return RunRows(runs[0].name, tuple(row for run in runs for row in run.rows))


def compare(real: Figures, replayed: Figures, runs: Sequence[Figures]) -> list[Compared]:
    """Every figure that is compared, with its bound; `replayed` is of all `runs` together."""
    worst = max(
        {**real.shares, **replayed.shares},
        key=lambda name: abs(real.shares.get(name, 0.0) - replayed.shares.get(name, 0.0)),
    )

    def one(figure: str, unit: str, of: Callable[[Figures], float], bound: float) -> Compared:
        values = [of(each) for each in runs]
        low, high, truly = min(values), max(values), of(real)
        difference = max(0.0, low - truly, truly - high)
        return Compared(
            figure,
            unit,
            real=round(truly, 2),
            replayed=round(of(replayed), 2),
            low=round(low, 2),
            high=round(high, 2),
            difference=round(difference, 2),
            bound=round(bound, 2),
            agrees=difference <= bound,
        )

    def latency_bound(real_ms: float) -> float:
        return max(LATENCY_MS, LATENCY_SHARE * real_ms)

    larger_bytes = max(real.bytes_per_frame, replayed.bytes_per_frame)
    # No median of latencies: half of all answers come early, half late, and one frame more on either side
    # would move it from one to the other.
    return [
        one("on time", "%", lambda run: 100.0 * run.on_time_fraction, ON_TIME_POINTS),
        one(
            "right by the deadline", "%", lambda run: 100.0 * run.correct_by_deadline_fraction, CORRECT_POINTS
        ),
        one("offloaded", "%", lambda run: 100.0 * run.offloaded_fraction, SHARE_POINTS),
        one("answered by the gateway", "%", lambda run: 100.0 * run.gateway_fraction, SHARE_POINTS),
        one(
            f"answered at {worst}, the exit furthest apart",
            "%",
            lambda run: 100.0 * run.shares.get(worst, 0.0),
            SHARE_POINTS,
        ),
        one("bytes a frame", "B", lambda run: run.bytes_per_frame, BYTES_SHARE * larger_bytes),
        one("latency mean", "ms", lambda run: run.latency_mean_ms, latency_bound(real.latency_mean_ms)),
        one("latency p95", "ms", lambda run: run.latency_p95_ms, latency_bound(real.latency_p95_ms)),
    ]


def worst_points(compared: Sequence[Compared]) -> float:
    """The larger difference of the two figures that the project is about: on time, and right by then."""
    return max(each.difference for each in compared[:2])
