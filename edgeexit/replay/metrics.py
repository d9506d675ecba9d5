"""What a run was worth: the objective, its parts, and how certain differences between runs are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeexit.replay.deadlines import SEGMENT_FRAMES
from edgeexit.replay.outages import Outage
from edgeexit.replay.outcome import (
    LATE_COMPUTE,
    LATE_CUT,
    LATE_NETWORK,
    NEVER_ANSWERED,
    REPLACED,
    Outcome,
)

# Below this gap between floor and oracle a quotient of two noises would be reported: give points instead.
SMALLEST_GAP = 0.005
# Resamples of a bootstrap interval; its ends then move by about a twentieth of its width between seeds.
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the ends of its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Recovery:
    """Medians over the outages of a run; None where it never recovered, or had none.

    Units: answer_ms, start of the outage to the next answer in time; offload_ms, its end to the next
    reply that was used.
    """

    answer_ms: float | None
    offload_ms: float | None


@dataclass(frozen=True, slots=True)
class Metrics:
    """Figures of one run. Units: fractions of all frames; bytes a frame, probes included; ms.

    `objective` is the mean quality by the deadline less the price of the bytes sent up.
    """

    policy: str
    objective: float
    correct_by_deadline: float
    on_time: float
    late_network: float
    late_compute: float
    late_cut: float
    replaced: float
    never_answered: float
    remote: float
    by_timer: float
    bytes_per_frame: float
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    sent: int
    used: int
    unused: int
    late_replies: int
    failed: int

    @property
    def late(self) -> float:
        """Share of frames answered late, or not at all, by whatever cause but a newer frame."""
        return self.late_network + self.late_compute + self.late_cut + self.never_answered


def metrics(outcome: Outcome, *, byte_price: float = 0.0) -> Metrics:
    """The figures of one run."""
    frames = len(outcome.captured_ms)
    latency_ms = outcome.emitted_ms - outcome.captured_ms
    latency_ms = latency_ms[np.isfinite(latency_ms)]
    value = float(outcome.value.mean())
    up_bytes = float(outcome.uplink_bytes.sum() + outcome.probe_bytes)
    down_bytes = float(outcome.downlink_bytes.sum() + outcome.probe_bytes)
    count = outcome.offloads

    def share(fate: int) -> float:
        return float(np.mean(outcome.fates == fate))

    return Metrics(
        policy=outcome.policy,
        objective=value - byte_price * up_bytes / frames,
        correct_by_deadline=value,
        on_time=float(outcome.on_time.mean()),
        late_network=share(LATE_NETWORK),
        late_compute=share(LATE_COMPUTE),
        late_cut=share(LATE_CUT),
        replaced=share(REPLACED),
        never_answered=share(NEVER_ANSWERED),
        remote=float(outcome.remote.mean()),
        by_timer=float(outcome.by_timer.mean()),
        bytes_per_frame=(up_bytes + down_bytes) / frames,
        latency_p50_ms=float(np.percentile(latency_ms, 50)) if len(latency_ms) else None,
        latency_p99_ms=float(np.percentile(latency_ms, 99)) if len(latency_ms) else None,
        sent=count.sent,
        used=count.used,
        unused=count.unused,
        late_replies=count.late,
        failed=count.failed,
    )


def gap_closed(policy: float, floor: float, oracle: float) -> float | None:
    """Share of the way from floor to oracle; None where there is hardly a way."""
    gap = oracle - floor
    return None if gap < SMALLEST_GAP else (policy - floor) / gap


def recovery(outcome: Outcome, outages: tuple[Outage, ...]) -> Recovery:
    """How soon answers and offloads were back."""
    answers: list[float] = []
    offloads: list[float] = []
    emitted_ms = outcome.emitted_ms
    for outage in outages:
        again = emitted_ms[outcome.on_time & (outcome.captured_ms >= outage.start_ms)]
        if len(again):
            answers.append(float(again.min()) - outage.start_ms)
        used = emitted_ms[outcome.remote & (outcome.captured_ms >= outage.end_ms)]
        if len(used):
            offloads.append(float(used.min()) - outage.end_ms)
    return Recovery(
        answer_ms=float(np.median(answers)) if answers else None,
        offload_ms=float(np.median(offloads)) if offloads else None,
    )


def window_outage(outcome: Outcome, *, target: float, window: int = 50) -> tuple[float, float]:
    """Probability that a window's quality is below a target, and that a window has any miss.

    Source: inference outage and missed-deadline probability, after Pacheco, Couto and Simeone.
    """
    count = len(outcome.captured_ms) // window
    if count == 0:
        return float(outcome.value.mean() < target), float(not outcome.on_time.all())
    value = outcome.value[: count * window].reshape(count, window)
    on_time = outcome.on_time[: count * window].reshape(count, window)
    return float((value.mean(axis=1) < target).mean()), float((~on_time.all(axis=1)).mean())


def block_interval(
    values: NDArray[np.float64], *, block: int = SEGMENT_FRAMES, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """Mean of a series with a block bootstrap, because neighbouring frames resemble each other.

    For a paired difference give the difference, frame by frame. Blocks are segments of deadlines.
    Shapes: values (F,). Source: non-overlapping block bootstrap, Carlstein, Annals of Statistics 1986.
    """
    blocks = -(-len(values) // block)
    sums = np.add.reduceat(values, np.arange(0, len(values), block))
    sizes = np.diff([*range(0, len(values), block), len(values)])
    random = np.random.default_rng(seed)
    drawn = random.integers(0, blocks, (resamples, blocks))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(values.mean()), float(low), float(high))


def block_error(values: NDArray[np.float64], *, block: int = SEGMENT_FRAMES) -> float:
    """Standard error of the mean of a series whose neighbours resemble each other; whole blocks count.

    Shapes: values (F,). It is infinite where there are fewer than two blocks.
    """
    count = len(values) // block
    if count < 2:
        return float("inf")
    means = values[: count * block].reshape(count, block).mean(axis=1)
    return float(means.std(ddof=1) / count**0.5)


def gap_closed_error(
    policy: NDArray[np.float64], floor: NDArray[np.float64], oracle: NDArray[np.float64]
) -> float | None:
    """Standard error of the share of the way from floor to oracle; None where there is hardly a way.

    Shapes: all (F,), paired. Source: delta method for a ratio of means, with blocks as above.
    """
    gap = float((oracle - floor).mean())
    if gap < SMALLEST_GAP:
        return None
    closed = float((policy - floor).mean()) / gap
    return block_error((policy - floor) - closed * (oracle - floor)) / gap


def cumulative_regret(reference: NDArray[np.float64], outcome: Outcome) -> NDArray[np.float64]:
    """Sum of what a reference had over this run, frame by frame. Shapes: reference (F,), result (F,)."""
    return np.cumsum(reference - outcome.value)
