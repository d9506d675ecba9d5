"""The gateway's own times, told apart from the link's: queue, and compute per boundary."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

# Requests remembered: long enough for a tenth of them to show, short enough to follow a busy gateway.
WINDOW = 20
# A queue is a matter of seconds: after so long without a reply the gateways are taken to be free again,
# else a device that a queue keeps from asking would never learn that it is gone.
QUEUE_FRESH_MS = 5000.0
# Before any reply: a tiny network on a desktop. Taking gateways for quick costs one frame at most, for
# the first reply tells; taking them for slow keeps tight frames from ever asking.
START_MS = 1.0

Tenths = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class ServiceTimes:
    """What is known of the gateways at one moment. Units: ms, each a quick tenth's, median, slow tenth's."""

    queue_ms: Tenths = (0.0, 0.0, 0.0)
    compute_ms: Mapping[int, Tenths] = field(default_factory=dict)

    def service_ms(self, boundary: int) -> Tenths:
        """Service time of the quickest tenth of requests, of a typical one, and of the slowest tenth.

        A boundary never asked for is taken to cost what the nearest one before it does, which runs
        more stages, else the nearest one after it.
        """
        known = self.compute_ms
        times = known.get(boundary)
        if times is None:
            if not known:
                return START_MS, START_MS, 2.0 * START_MS
            before = [other for other in known if other < boundary]
            times = known[max(before) if before else min(known)]
        queue = self.queue_ms
        return queue[0] + times[0], queue[1] + times[1], queue[2] + times[2]


class ServerTimes:
    """Learns the service times of the gateways from what their replies say of themselves."""

    __slots__ = ("_compute", "_now", "_queue", "_seen_ms")

    def __init__(self) -> None:
        self._queue: deque[float] = deque(maxlen=WINDOW)
        self._compute: dict[int, deque[float]] = {}
        self._now = ServiceTimes()
        self._seen_ms = -inf

    def at(self, now_ms: float) -> ServiceTimes:
        """What is known at `now_ms`; later replies do not change it."""
        if now_ms - self._seen_ms > QUEUE_FRESH_MS:
            return ServiceTimes(compute_ms=self._now.compute_ms)
        return self._now

    @property
    def queue_ms(self) -> float | None:
        """Median time in the gateway's queue; None before the first reply."""
        return self._now.queue_ms[1] if self._queue else None

    def compute_ms(self, boundary: int) -> float | None:
        """Median time of the gateway's own computing from this boundary on; None when never asked."""
        times = self._now.compute_ms.get(boundary)
        return None if times is None else times[1]

    def observe(
        self, boundary: int, queue_ms: float, compute_ms: float, now_ms: float, *, whole: bool = True
    ) -> None:
        """Learn from one reply; of one that is not `whole`, that all stages take no less."""
        if now_ms - self._seen_ms > QUEUE_FRESH_MS:
            self._queue.clear()
        self._seen_ms = now_ms
        self._queue.append(queue_ms)
        times = self._compute.get(boundary)
        if times is None:
            times = self._compute[boundary] = deque(maxlen=WINDOW)
        elif not whole:
            # An answer of an early exit is no sign of a quick gateway.
            compute_ms = max(compute_ms, self._now.compute_ms[boundary][1])
        times.append(compute_ms)
        self._now = ServiceTimes(_tenths(self._queue), {**self._now.compute_ms, boundary: _tenths(times)})

    def waited(self, queue_ms: float, now_ms: float) -> None:
        """Learn that a request without a reply had waited for so long: a queue of less it does not tell."""
        if queue_ms > self.at(now_ms).queue_ms[1]:
            if now_ms - self._seen_ms > QUEUE_FRESH_MS:
                self._queue.clear()
            self._seen_ms = now_ms
            self._queue.append(queue_ms)
            self._now = ServiceTimes(_tenths(self._queue), self._now.compute_ms)


def _tenths(values: deque[float]) -> Tenths:
    ordered = sorted(values)
    count = len(ordered)
    return ordered[count // 10], ordered[count // 2], ordered[(9 * count) // 10]
