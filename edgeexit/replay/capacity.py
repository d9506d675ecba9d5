"""Something that flows at a varying rate and repeats: bytes through a link, work through a busy core.

One piecewise linear running total answers both questions of the replay: how much has flowed by a
time, and when an amount that starts now will be through. Both take O(log n) by bisection.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise


class Capacity:
    """A rate that is constant between edges and repeats after the last one.

    Units: edges_ms, rising from 0, the last one is the period; amounts, what flows between each two
    edges, in the flow's own unit (bytes, or milliseconds of work on an idle core).
    Raises: ValueError when the edges do not rise from 0, an amount is negative, or nothing ever flows.
    """

    __slots__ = ("_edges_ms", "_total", "_totals", "period_ms")

    def __init__(self, edges_ms: Sequence[float], amounts: Sequence[float]) -> None:
        if len(edges_ms) != len(amounts) + 1 or edges_ms[0] != 0.0:
            raise ValueError("edges start at 0 and enclose every amount")
        if not all(a < b for a, b in pairwise(edges_ms)):
            raise ValueError("edges rise")
        if min(amounts) < 0.0 or not 0.0 < sum(amounts) < float("inf"):
            raise ValueError("amounts are not negative, and not all zero")
        self._edges_ms = [float(edge) for edge in edges_ms]
        self._totals = [0.0, *accumulate(float(amount) for amount in amounts)]
        self._total = self._totals[-1]
        self.period_ms = self._edges_ms[-1]

    @property
    def mean_rate(self) -> float:
        """Amount per millisecond over one period."""
        return self._total / self.period_ms

    def flowed(self, until_ms: float) -> float:
        """How much has flowed from 0 to `until_ms`."""
        cycles, at_ms = divmod(until_ms, self.period_ms)
        edges, totals = self._edges_ms, self._totals
        index = min(bisect_right(edges, at_ms), len(edges) - 1)
        left = edges[index - 1]
        share = (at_ms - left) / (edges[index] - left)
        return cycles * self._total + totals[index - 1] + share * (totals[index] - totals[index - 1])

    def finish_ms(self, start_ms: float, amount: float) -> float:
        """When `amount` that starts at `start_ms` is through; `start_ms` itself for nothing."""
        if amount <= 0.0:
            return start_ms
        period_ms, edges, totals = self.period_ms, self._edges_ms, self._totals
        cycle = start_ms // period_ms
        base_ms = cycle * period_ms
        at_ms = start_ms - base_ms
        last = len(edges) - 1
        index = min(bisect_right(edges, at_ms), last)
        left = edges[index - 1]
        before = totals[index - 1]
        inside = totals[index] - before
        target = before + inside * ((at_ms - left) / (edges[index] - left)) + amount
        if target > self._total:
            extra, target = divmod(target, self._total)
            base_ms += extra * period_ms
            if target == 0.0:
                # A whole number of periods ends where the last of the flow passes, not at the next start.
                base_ms -= period_ms
                target = self._total
            index = 1
        # Stretches without flow have equal totals: the leftmost edge that reaches the target is the end.
        index = max(1, bisect_left(totals, target, index - 1))
        index = min(index, last)
        before = totals[index - 1]
        inside = totals[index] - before
        if inside <= 0.0:
            return max(start_ms, base_ms + edges[index - 1])
        left = edges[index - 1]
        end_ms = base_ms + left + (edges[index] - left) * min(1.0, (target - before) / inside)
        return max(start_ms, end_ms)
