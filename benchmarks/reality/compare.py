"""Reality beside replay: figures, differences, and whether they agree within bounds stated beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeexit.replay.frames import RunFigures, RunRows, figures


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far reality and replay may be apart, in every scenario.

    Units: points, hundredths of all frames; share_points, of the share of one exit at one place; bytes, the
    larger of a share and so many of the smallest payload a frame; latency, the larger of a share and so many
    ms.
    """

    on_time_points: float = 2.0
    correct_points: float = 3.0
    # One step of the budget lasts 3 % of a run: which exit is right for it may be a close decision in two.
    share_points: float = 8.0
    offload_points: float = 8.0
    # Payloads of one network differ by a factor of four or more, and few of them make the sum.
    bytes_share: float = 0.25
    bytes_payloads: float = 0.05
    latency_share: float = 0.10
    latency_ms: float = 6.0


@dataclass(frozen=True, slots=True)
class Figures:
    """One run.

    Units: fractions of all frames; offloads and bytes, of one frame; `shares`, fractions of all frames by
    place and exit, as in `gateway/3`, dropped ones included by reason; latency_ms, capture to answer.
    """

    frames: int
    on_time_fraction: float
    correct_by_deadline_fraction: float
    shares: dict[str, float]
    bytes_per_frame: float
    offloads_sent: float
    offloads_used: float
    offloads_late: float
    offloads_failed: float
    latency_p50_ms: float
    latency_p95_ms: float


@dataclass(frozen=True, slots=True)
class Differences:
    """Reality less replay, absolute.

    Units: points; share_points and offload_points, the largest of all; bytes_share, of the larger figure;
    bytes_payloads, of the smallest payload.
    """

    on_time_points: float
    correct_points: float
    share_points: float
    offload_points: float
    bytes_share: float
    bytes_payloads: float
    latency_p50_ms: float
    latency_p95_ms: float


def figures_of(run: RunRows, *, counted_ms: float, runs: int = 1) -> Figures:
    """The figures of one run, or of `runs` runs pooled, over frames captured from `counted_ms` on.

    Offloads are counted over all frames: a replay tells their ends only for the run as a whole.
    """
    rows = tuple(row for row in run.rows if row.captured_ms >= counted_ms)
    counted: RunFigures = figures(RunRows(run.name, rows, run.offloads))
    frames, all_frames = max(1, counted.frames), max(1, len(run.rows))
    shares = {
        f"{place}/{exit_}": count / frames
        for place, by_exit in counted.answers.items()
        for exit_, count in by_exit.items()
    }
    shares |= {f"dropped/{reason}": count / frames for reason, count in counted.dropped.items()}
    latency, offloads = counted.latency_ms, counted.offloads
    return Figures(
        frames=frames // runs,
        on_time_fraction=round(counted.on_time_fraction, 4),
        correct_by_deadline_fraction=round(counted.correct_by_deadline_fraction or 0.0, 4),
        shares={name: round(share, 4) for name, share in sorted(shares.items())},
        bytes_per_frame=round(counted.uplink_bytes / frames, 1),
        offloads_sent=round(offloads.sent / all_frames, 4),
        offloads_used=round(offloads.used / all_frames, 4),
        offloads_late=round(offloads.late / all_frames, 4),
        offloads_failed=round(offloads.failed / all_frames, 4),
        latency_p50_ms=round(latency.p50, 2) if latency is not None else 0.0,
        latency_p95_ms=round(latency.p95, 2) if latency is not None else 0.0,
    )


def differences(real: Figures, replayed: Figures, *, payload_bytes: int) -> Differences:
    """How far two runs are apart. Units: payload_bytes, of the smallest payload."""
    larger_bytes = max(real.bytes_per_frame, replayed.bytes_per_frame, 1.0)
    apart_bytes = abs(real.bytes_per_frame - replayed.bytes_per_frame)
    offloads = (
        (real.offloads_sent, replayed.offloads_sent),
        (real.offloads_used, replayed.offloads_used),
        (real.offloads_late, replayed.offloads_late),
        (real.offloads_failed, replayed.offloads_failed),
    )
    return Differences(
        on_time_points=_points(real.on_time_fraction, replayed.on_time_fraction),
        correct_points=_points(real.correct_by_deadline_fraction, replayed.correct_by_deadline_fraction),
        share_points=max((_points(*pair) for pair in _paired(real.shares, replayed.shares)), default=0.0),
        offload_points=max(_points(*pair) for pair in offloads),
        bytes_share=round(apart_bytes / larger_bytes, 4),
        bytes_payloads=round(apart_bytes / payload_bytes, 4),
        latency_p50_ms=round(abs(real.latency_p50_ms - replayed.latency_p50_ms), 2),
        latency_p95_ms=round(abs(real.latency_p95_ms - replayed.latency_p95_ms), 2),
    )


def agreement(real: Figures, apart: Differences, bounds: Bounds) -> dict[str, bool]:
    """Which figures agree."""

    def near(difference_ms: float, latency_ms: float) -> bool:
        return difference_ms <= max(bounds.latency_ms, bounds.latency_share * latency_ms)

    return {
        "on_time_fraction": apart.on_time_points <= bounds.on_time_points,
        "correct_by_deadline_fraction": apart.correct_points <= bounds.correct_points,
        "shares": apart.share_points <= bounds.share_points,
        "offloads": apart.offload_points <= bounds.offload_points,
        "bytes_per_frame": apart.bytes_share <= bounds.bytes_share
        or apart.bytes_payloads <= bounds.bytes_payloads,
        "latency_p50_ms": near(apart.latency_p50_ms, real.latency_p50_ms),
        "latency_p95_ms": near(apart.latency_p95_ms, real.latency_p95_ms),
    }


def worst_points(apart: Differences) -> float:
    """The larger difference of the two figures that the project is about: on time, and right by then."""
    return max(apart.on_time_points, apart.correct_points)


def _points(one: float, other: float) -> float:
    return round(100.0 * abs(one - other), 2)


def _paired(one: Mapping[str, float], other: Mapping[str, float]) -> list[tuple[float, float]]:
    return [(one.get(name, 0.0), other.get(name, 0.0)) for name in sorted({*one, *other})]
