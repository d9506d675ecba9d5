"""How long before a deadline its timer is set: by how late it woke lately.

A timer whose thread has to wait for the processor, on a board that shares it or under a quota, would answer
late with an answer in hand; one that is set much too early gives time away that a deeper exit could use.
"""

from __future__ import annotations

from collections import deque
from math import inf

# Emitting costs time too (timer wake-up, sink hand-over): on a free board it takes a fraction of this.
LEAST_MS = 2.0
# Budgets of a few milliseconds must not be eaten up by the guard.
MOST_SHARE = 0.1
# Wake-ups remembered, and how many of them may be later than the guard: one, because a board stalls now and
# then whatever it is used for; all others shall be in time.
WAKES = 16
OUTLIERS = 1
# A load that made the timer wait this long ago is taken to be over.
FRESH_MS = 30_000.0


class Guard:
    """Learns how late the timer wakes; `woke` is for the timer's thread alone, `ms` for any."""

    __slots__ = ("_fresh_until_ms", "_late_ms", "_ms")

    def __init__(self) -> None:
        self._late_ms: deque[float] = deque(maxlen=WAKES)
        self._ms = LEAST_MS
        self._fresh_until_ms = -inf

    def ms(self, now_ms: float) -> float:
        """How long before its deadline the timer of a frame is to be set."""
        return self._ms if now_ms < self._fresh_until_ms else LEAST_MS

    def woke(self, late_ms: float, now_ms: float) -> None:
        """Learn that the timer woke so long after the moment for which it was set."""
        if now_ms >= self._fresh_until_ms:
            self._late_ms.clear()
        self._late_ms.append(max(0.0, late_ms))
        latest_first = sorted(self._late_ms, reverse=True)
        self._ms = max((LEAST_MS, *latest_first[OUTLIERS : OUTLIERS + 1]))
        self._fresh_until_ms = now_ms + FRESH_MS


def due_after_ms(latency_ms: float, guard_ms: float) -> float:
    """How long after its capture a frame is to be answered, by its budget and a guard."""
    most_ms = MOST_SHARE * latency_ms
    return latency_ms - (guard_ms if guard_ms < most_ms else most_ms)
