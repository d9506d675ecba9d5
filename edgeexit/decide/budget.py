"""Budgets: what an answer may still cost, and pure sources of them.

Sources that read a file or listen to MQTT are adapters and live in `edgeexit.device`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
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
    """Port: the budget in force, read anew before every decision."""

    def budget(self, now_ms: float) -> Budget:
        """The budget in force at `now_ms` on the device's monotonic clock."""
        ...


@dataclass(frozen=True, slots=True)
class FixedBudget:
    """The same budget always."""

    value: Budget

    def budget(self, now_ms: float) -> Budget:
        """The one budget."""
        return self.value


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


class LatestBudget:
    """The last budget that somebody set; safe to set from another thread."""

    __slots__ = ("_value",)

    def __init__(self, first: Budget) -> None:
        self._value = first

    def set(self, value: Budget) -> None:
        """Replace the budget in force."""
        self._value = value

    def budget(self, now_ms: float) -> Budget:
        """The budget last set."""
        return self._value
