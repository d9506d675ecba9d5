"""Prices: of bytes and energy, so that long-run use meets a budget; of time, while frames wait."""

from __future__ import annotations

from math import isfinite

from edgeexit.errors import ConfigError

# One look every five seconds: long against a frame, short against the load of a day.
WINDOW_MS = 5000.0
# Using twice the budget for a window makes one second's budget dearer by this much quality. Larger
# steps swing between sending all and nothing, smaller ones take minutes to settle.
STEP = 0.02
# No answer is worth more than quality 1: above this price of one second's budget nothing is bought.
PRICE_CAP = 1.0


class DualPrice:
    """The price λ of one unit (a byte, a millijoule): dual step λ ← max(0, λ + η·(used - budget)).

    The price rises while more than the budget is used and falls while less is, so that the long-run
    mean meets the budget wherever the objective can be met at all.
    Units: budget_per_s, units a second, positive.
    Raises: ConfigError when the budget is not positive and finite.
    Source: dual (sub)gradient ascent; drift-plus-penalty view in Neely, Stochastic Network
    Optimization, 2010.
    """

    __slots__ = ("_budget_per_s", "_price", "_since_ms", "_step", "_used", "_window_ms")

    def __init__(self, budget_per_s: float, *, window_ms: float = WINDOW_MS, step: float = STEP) -> None:
        if not (isfinite(budget_per_s) and budget_per_s > 0.0):
            raise ConfigError(
                f"long-run budget of {budget_per_s} a second is refused",
                key="budget_per_s",
                why="it must be positive and finite",
            )
        self._budget_per_s = budget_per_s
        self._window_ms = window_ms
        self._step = step
        self._price = 0.0
        self._used = 0.0
        self._since_ms: float | None = None

    def used(self, amount: float) -> None:
        """Count units that were used; an amount that is not positive and finite counts nothing."""
        if isfinite(amount) and amount > 0.0:
            self._used += amount

    def price(self, now_ms: float) -> float:
        """The price in force: quality that one unit must buy. Steps once per window that has passed."""
        if self._since_ms is None:
            self._since_ms = now_ms
        passed_ms = now_ms - self._since_ms
        if passed_ms >= self._window_ms:
            allowed = self._budget_per_s * passed_ms * 1e-3
            windows = passed_ms / self._window_ms
            # Several windows without a look are several steps at their mean use.
            change = self._step * windows * (self._used / allowed - 1.0)
            # One burst, however large, moves the price of a second's budget by a tenth at most.
            change = min(change, 0.1)
            cap = PRICE_CAP / self._budget_per_s
            self._price = min(cap, max(0.0, self._price + change / self._budget_per_s))
            self._used = 0.0
            self._since_ms = now_ms
        return self._price


# Weight of the newest frame in the averages of a time price: some thirty frames count.
NEWEST_WEIGHT = 0.03


class TimePrice:
    """What a millisecond of the device is worth to the frames that wait for it.

    While frames wait, each millisecond spent on one is taken from the next, which would have earned
    quality at the mean rate: that rate is the price. While none waits, time is free.
    Units: price, quality a millisecond.
    Source: marginal value theorem, Charnov, Theoretical Population Biology 1976.
    """

    __slots__ = ("_busy_ms", "_quality", "_waited")

    def __init__(self) -> None:
        self._quality = 0.0
        self._busy_ms = 0.0
        self._waited = 0.0

    def frame(self, quality: float, busy_ms: float, *, waited: bool) -> None:
        """Take a closed frame: its quality, how long it held the device, whether it had to wait for it."""
        if not (isfinite(busy_ms) and busy_ms > 0.0 and isfinite(quality)):
            return
        self._quality += NEWEST_WEIGHT * (quality - self._quality)
        self._busy_ms += NEWEST_WEIGHT * (busy_ms - self._busy_ms)
        self._waited += NEWEST_WEIGHT * (waited - self._waited)

    @property
    def price(self) -> float:
        """The price in force."""
        if self._busy_ms <= 0.0:
            return 0.0
        return self._waited * max(0.0, self._quality) / self._busy_ms
