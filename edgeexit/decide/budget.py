"""Budgets: what an answer may still cost, and pure sources of them.

Sources that read a file or listen to MQTT are adapters and live in `edgeexit.device`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf, nextafter
from typing import Protocol

from edgeexit.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Budget:
    """What one answer may cost, counted from the capture of its frame.

    Units: latency_ms; energy_mj and uplink_bytes, None where not limited.
    Raises: ConfigError when latency_ms is not a positive number.
    """

    latency_ms: float
    energy_mj: float | None = None
    uplink_bytes: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.latency_ms < float("inf"):
            raise ConfigError(
                f"budget of {self.latency_ms} ms is refused",
                key="latency_ms",
                why="a budget is a positive, finite number of milliseconds",
            )


class BudgetSource(Protocol):
    """Port: the budget in force, read anew before every decision.

    Times are on the device's monotonic clock. Every change is either known beforehand, by
    `next_change_ms`, or told when it happens, to whoever listens: nobody needs to ask again and again.
    """

    def budget(self, now_ms: float) -> Budget:
        """The budget in force at `now_ms`."""
        ...

    def next_change_ms(self, now_ms: float) -> float:
        """The first moment after `now_ms` at which it may be another one without being told; inf for none."""
        ...

    def listen(self, told: Callable[[], None] | None) -> None:
        """Call `told` after every change that nobody could know beforehand; it replaces the one before.

        It is called in the thread, or the signal handler, that makes the change: it must be quick.
        """
        ...


class Expiry:
    """The last moment at which an answer to a frame counts, followed through the changes of its budget.

    Once past its deadline a frame is missed, whatever its budget becomes then. A budget that is cut to less
    than has passed ends it at the moment of the cut.
    Units: at_ms, by what is known until now; `over` says that no change moves it any more, `cut` that it is
    the moment of such a cut.
    """

    __slots__ = ("_captured_ms", "at_ms", "cut", "over")

    def __init__(self, captured_ms: float, latency_ms: float) -> None:
        self._captured_ms = captured_ms
        self.over = False
        self.at_ms = captured_ms + latency_ms
        self.cut = False

    def change(self, at_ms: float, latency_ms: float) -> None:
        """Take in that the budget became this one at that moment, later than every one before."""
        due_ms = self._captured_ms + latency_ms
        if self.over:
            return
        if self.at_ms < at_ms:
            self.over = True
        elif due_ms < at_ms:
            # A deadline that is over at the moment of the cut has ended by itself.
            self.over, self.cut, self.at_ms = True, self.at_ms > at_ms, at_ms
        else:
            self.at_ms = due_ms


@dataclass(frozen=True, slots=True)
class FixedBudget:
    """The same budget always."""

    value: Budget

    def budget(self, now_ms: float) -> Budget:
        """The one budget."""
        return self.value

    def next_change_ms(self, now_ms: float) -> float:
        """Never."""
        return inf

    def listen(self, told: Callable[[], None] | None) -> None:
        """There is nothing to tell."""


class ScheduleBudget:
    """Budgets that change at set times, repeating after `period_ms` where one is given.

    Units: start_ms, times at which each budget begins, the first 0, counted from `origin_ms`.
    Raises: ConfigError when the steps are empty or out of order.
    """

    __slots__ = ("_budgets", "_origin_ms", "_period_ms", "_start_ms")

    def __init__(
        self,
        steps: Sequence[tuple[float, Budget]],
        *,
        origin_ms: float = 0.0,
        period_ms: float | None = None,
    ) -> None:
        starts = [start_ms for start_ms, _ in steps]
        in_order = all(a < b for a, b in pairwise(starts))
        if not starts or starts[0] != 0.0 or not in_order:
            raise ConfigError(
                "budget schedule is refused",
                key="budget.steps",
                why="steps must begin at 0 and rise",
            )
        if period_ms is not None and not starts[-1] < period_ms:
            raise ConfigError(
                "budget schedule is refused",
                key="budget.period_ms",
                why=f"the period {period_ms} ms ends before the last step at {starts[-1]} ms",
            )
        self._start_ms = starts
        self._budgets = [budget for _, budget in steps]
        self._origin_ms = origin_ms
        self._period_ms = period_ms

    def budget(self, now_ms: float) -> Budget:
        """The budget whose step `now_ms` lies in; the first one before the origin."""
        at_ms = max(0.0, now_ms - self._origin_ms)
        if self._period_ms is not None:
            at_ms %= self._period_ms
        return self._budgets[bisect_right(self._start_ms, at_ms) - 1]

    def next_change_ms(self, now_ms: float) -> float:
        """When the next step begins."""
        since_ms, lap_ms = now_ms - self._origin_ms, 0.0
        if self._period_ms is not None and since_ms > 0.0:
            lap_ms = since_ms - since_ms % self._period_ms
        later = bisect_right(self._start_ms, max(0.0, since_ms - lap_ms))
        if later < len(self._start_ms):
            step_ms = self._start_ms[later]
        elif self._period_ms is not None and later > 1:
            step_ms = self._period_ms
        else:
            return inf
        # Rounding must not give the moment that was asked about: time would stand still.
        return max(self._origin_ms + lap_ms + step_ms, nextafter(now_ms, inf))

    def listen(self, told: Callable[[], None] | None) -> None:
        """There is nothing to tell: every step is known beforehand."""


class LatestBudget:
    """The last budget that somebody set; safe to set from another thread."""

    __slots__ = ("_told", "_value")

    def __init__(self, first: Budget) -> None:
        self._value = first
        self._told: Callable[[], None] | None = None

    def set(self, value: Budget) -> None:
        """Replace the budget in force."""
        self._value = value
        told = self._told
        if told is not None:
            told()

    def budget(self, now_ms: float) -> Budget:
        """The budget last set."""
        return self._value

    def next_change_ms(self, now_ms: float) -> float:
        """Nobody knows; it is told."""
        return inf

    def listen(self, told: Callable[[], None] | None) -> None:
        """Call `told` after every `set`."""
        self._told = told
