"""The gateway's own times, told apart from the link's: queue, and compute per boundary."""

from __future__ import annotations

from collections import deque

# Requests remembered: long enough for a tenth of them to show, short enough to follow a busy gateway.
WINDOW = 20
# Before any reply, and for boundaries never asked for: a small network on a desktop.
START_MS = 5.0


class ServerTimes:
    """Typical and slow service times of the gateways, by boundary. Units: ms."""

    __slots__ = ("_compute", "_points", "_queue", "_queue_points")

    def __init__(self) -> None:
        self._queue: deque[float] = deque(maxlen=WINDOW)
        self._compute: dict[int, deque[float]] = {}
        self._points: dict[int, tuple[float, float]] = {}
        self._queue_points = (0.0, 0.0)

    @property
    def queue_ms(self) -> float | None:
        """Median time in the gateway's queue; None before the first reply."""
        return self._queue_points[0] if self._queue else None

    def compute_ms(self, boundary: int) -> float | None:
        """Median time of the gateway's own computing from this boundary on; None when never asked."""
        times = self._compute.get(boundary)
        return sorted(times)[len(times) // 2] if times else None

    def observe(self, boundary: int, queue_ms: float, compute_ms: float) -> None:
        """Learn from one reply."""
        self._queue.append(queue_ms)
        self._queue_points = _middle_and_high(self._queue)
        times = self._compute.get(boundary)
        if times is None:
            times = self._compute[boundary] = deque(maxlen=WINDOW)
        times.append(compute_ms)
        self._points[boundary] = _middle_and_high(times)

    def typical_and_slow_ms(self, boundary: int) -> tuple[float, float]:
        """Service time of a typical request, and of the slowest tenth.

        A boundary never asked for is taken to cost what the nearest one before it does, which runs
        more stages, else the nearest one after it.
        """
        points = self._points.get(boundary)
        if points is None:
            if not self._points:
                return START_MS, 2.0 * START_MS
            before = [known for known in self._points if known < boundary]
            points = self._points[max(before) if before else min(self._points)]
        queue = self._queue_points
        return queue[0] + points[0], queue[1] + points[1]


def _middle_and_high(values: deque[float]) -> tuple[float, float]:
    ordered = sorted(values)
    return ordered[len(ordered) // 2], ordered[(9 * len(ordered)) // 10]
