"""Counts what became of frames, for metrics, the status line and the last word of a run."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

from edgeexit.decide.answer import Answer, Drop, OffloadRecord, Record

# Latencies kept for percentiles: 100 s at ten frames a second.
WINDOW = 1000


@dataclass(frozen=True, slots=True)
class LatencyPercentiles:
    """Of the last answers, capture to emission. Units: milliseconds."""

    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Counts:
    """One look at the tally; counts since the start. Keys of `exits`: exit, then place, as in `2/gateway`."""

    answered: int
    late: int
    dropped: int
    drops: dict[str, int]
    exits: dict[str, int]
    offloads: dict[str, int]
    uplink_bytes: int
    latency: LatencyPercentiles | None

    def __str__(self) -> str:
        drops = ", ".join(f"{reason} {count}" for reason, count in sorted(self.drops.items()))
        exits = ", ".join(f"{place} {count}" for place, count in sorted(self.exits.items()))
        offloads = ", ".join(f"{outcome} {count}" for outcome, count in sorted(self.offloads.items()))
        median = "" if self.latency is None else f", p50 {self.latency.p50_ms:.1f} ms"
        return (
            f"answered {self.answered} (late {self.late}{median}), dropped {self.dropped}"
            f"{f' ({drops})' if drops else ''}; exits: {exits or 'none'}; offloads: {offloads or 'none'}"
        )


class Tally:
    """Adds records up; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answered = 0
        self._late = 0
        self._uplink_bytes = 0
        self._drops: Counter[str] = Counter()
        self._exits: Counter[str] = Counter()
        self._offloads: Counter[str] = Counter()
        self._latency_ms: deque[float] = deque(maxlen=WINDOW)

    def add(self, record: Record) -> None:
        """Count one record."""
        with self._lock:
            if isinstance(record, Answer):
                self._answered += 1
                self._late += not record.on_time
                self._exits[f"{record.exit}/{record.place.value}"] += 1
                self._latency_ms.append(record.latency_ms)
            elif isinstance(record, Drop):
                self._drops[record.reason] += 1
            else:
                self._add_offload(record)

    def _add_offload(self, record: OffloadRecord) -> None:
        self._offloads[record.outcome.value] += 1
        self._uplink_bytes += record.uplink_bytes

    def counts(self) -> Counts:
        """The counts now."""
        with self._lock:
            return Counts(
                answered=self._answered,
                late=self._late,
                dropped=self._drops.total(),
                drops=dict(self._drops),
                exits=dict(self._exits),
                offloads=dict(self._offloads),
                uplink_bytes=self._uplink_bytes,
                latency=_percentiles(self._latency_ms),
            )


def _percentiles(latency_ms: Sequence[float]) -> LatencyPercentiles | None:
    if not latency_ms:
        return None
    ordered = sorted(latency_ms)

    def at(fraction: float) -> float:
        """Nearest rank: a value that was really measured."""
        return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]

    return LatencyPercentiles(p50_ms=at(0.50), p95_ms=at(0.95), p99_ms=at(0.99))
