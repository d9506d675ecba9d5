"""A window of past prediction errors, sorted for lookup, that begins with a prior."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque

# Errors are logarithms of measured over predicted. The prior is the seven even quantiles of a normal
# of deviation 0.5 (a factor of 1.65): about what a first guess on a mobile link deserves.
PRIOR_ERRORS = (-0.73, -0.44, -0.21, 0.0, 0.21, 0.44, 0.73)
# Exchanges remembered: at three frames a second, the last quarter of a minute.
WINDOW = 48
# Weight of replies that never come, counted as late beside the window: nothing is ever certain.
LATE_WEIGHT = 0.25


class ResidualWindow:
    """The last errors of a predictor; the prior's errors leave first as real ones come."""

    __slots__ = ("_count", "_order", "_snapshot", "_sorted")

    def __init__(self) -> None:
        self._order: deque[float] = deque(PRIOR_ERRORS)
        self._sorted = sorted(PRIOR_ERRORS)
        self._snapshot: tuple[float, ...] | None = None
        self._count = 0

    @property
    def count(self) -> int:
        """How many real errors were seen."""
        return self._count

    @property
    def weight(self) -> float:
        """Weight of all errors and of what never came."""
        return len(self._order) + LATE_WEIGHT

    def ordered(self) -> tuple[float, ...]:
        """The errors in rising order, as a snapshot."""
        if self._snapshot is None:
            self._snapshot = tuple(self._sorted)
        return self._snapshot

    def middle(self) -> float:
        """The median error."""
        return self._sorted[len(self._sorted) // 2]

    def add(self, error: float) -> None:
        """Take one error in; infinity is a reply that never came."""
        # One prior error goes for every second real one: after fourteen the window speaks for itself.
        crowded = self._count % 2 == 1 and self._count < 2 * len(PRIOR_ERRORS)
        if crowded or len(self._order) >= WINDOW:
            self._drop()
        self._order.append(error)
        insort(self._sorted, error)
        self._count += 1
        self._snapshot = None

    def _drop(self) -> None:
        oldest = self._order.popleft()
        del self._sorted[bisect_left(self._sorted, oldest)]


# Drift and alarm of the change-point detection, in standard deviations: a shift of one deviation is
# found in about eight errors, one of three in two.
DRIFT = 0.5
ALARM = 4.0
# The deviation begins at that of the prior and is never taken for less than this.
START_SPREAD = 0.5
LEAST_SPREAD = 0.2
# Weight of the newest error in it; an absolute error of a normal is 0.8 of its deviation.
SPREAD_WEIGHT = 0.1
ABSOLUTE_TO_DEVIATION = 1.25
LARGEST_ERROR = 2.0


class ChangePoint:
    """Two-sided CUSUM over prediction errors. Source: Page, Biometrika 1954."""

    __slots__ = ("_down", "_spread", "_up")

    def __init__(self) -> None:
        self._spread = START_SPREAD
        self._up = 0.0
        self._down = 0.0

    def watch(self, error: float) -> bool:
        """Take one error; True when errors have shifted for good, after which it begins anew."""
        standard = error / max(LEAST_SPREAD, self._spread)
        size = min(abs(error), LARGEST_ERROR)
        self._spread += SPREAD_WEIGHT * (ABSOLUTE_TO_DEVIATION * size - self._spread)
        self._up = max(0.0, self._up + standard - DRIFT)
        self._down = max(0.0, self._down - standard - DRIFT)
        if max(self._up, self._down) <= ALARM:
            return False
        self._up = self._down = 0.0
        return True
