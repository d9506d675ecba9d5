"""How long stages take here and now: profiled medians times one slowdown, tracked by a Kalman filter.

Source: one global slowdown with a Gaussian belief is the idea of ALERT (Wan et al., USENIX ATC 2020);
the constants, the tail guard, the change-point and the growth with time are this project's.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import erfc, inf, isfinite, sqrt

from edgeexit.errors import ConfigError

# Belief before anything was measured: a profile of the same board model is right within some 14 %.
START_VARIANCE = 0.02
# Noise of a single stage around its profile (6 %), until enough stages were seen to know this board's,
# and the bounds of what is then believed: 1 % and 14 %.
STAGE_NOISE = 0.004
NOISE_LEAST = 1e-4
NOISE_MOST = 0.02
# Drift of the slowdown from one stage to the next on a steady board, as a share of that noise: the
# belief then averages over some four stages.
DRIFT_SHARE = 0.1
# With that share the variance of a prediction's error is this much of the stage noise (steady state).
ERROR_OVER_NOISE = 1.37
# Errors that make their spread worth reading: its own error is then a sixth.
SPREAD_MINIMUM = 20
# Memory of the drift estimate: short, so that the second stage of a burst is already believed.
DRIFT_MEMORY = 0.3
# Without new stage times the belief widens by this much a second, up to the cap.
GROWTH_PER_S = 0.002
GROWTH_CAP = 0.1
# A ratio further than this from the belief is clipped in the mean: one stall must not become the mean.
CLIP_FACTOR = 5.0
# Beyond this factor from the profile, either way, it was a suspended process or a broken clock.
ABSURD_FACTOR = 1e4
# Ratios of measured to predicted time kept for the tail, and how many make a tail worth reading.
RATIO_WINDOW = 200
RATIO_MINIMUM = 50

_SQRT2 = sqrt(2.0)


@dataclass(frozen=True, slots=True)
class Slowdown:
    """Belief about how much slower this board is than its profile. Units: mean and std, ratios."""

    mean: float
    std: float


class StageForecast:
    """Times of stages as known at one moment; keeps the ComputeForecast port."""

    __slots__ = ("_mean", "_noise", "_prefix", "_prefix_squares", "_ratios", "_variance")

    def __init__(
        self,
        mean: float,
        variance: float,
        noise: float,
        ratios: Sequence[float],
        prefix_ms: Sequence[float],
        prefix_squares: Sequence[float],
    ) -> None:
        self._mean = mean
        self._variance = variance
        self._noise = noise
        self._ratios = ratios
        self._prefix = prefix_ms
        self._prefix_squares = prefix_squares

    def probability_within(self, first: int, stop: int, limit_ms: float) -> float:
        """Probability that stages first … stop-1 finish within `limit_ms` from now."""
        if stop <= first:
            return 1.0
        if not limit_ms > 0.0:
            return 0.0
        profiled = self._prefix[stop] - self._prefix[first]
        squares = self._prefix_squares[stop] - self._prefix_squares[first]
        expected = self._mean * profiled
        deviation = sqrt(self._variance * profiled * profiled + self._noise * squares)
        gaussian = 0.5 * erfc((expected - limit_ms) / (deviation * _SQRT2))
        ratios = self._ratios
        if not ratios:
            return gaussian
        counted = bisect_right(ratios, limit_ms / expected) / (len(ratios) + 1)
        return counted if counted < gaussian else gaussian

    def median_ms(self, first: int, stop: int) -> float:
        """Median time of stages first … stop-1 from now."""
        if stop <= first:
            return 0.0
        return self._mean * (self._prefix[stop] - self._prefix[first])


class LatencyModel:
    """Learns this board's slowdown from stage times and forecasts stages still to run.

    Units: profile_ms, median time of each stage on the profiled board, all positive.
    Raises: ConfigError when the profile is empty or holds a time that is not positive and finite.
    """

    __slots__ = (
        "_at_ms",
        "_clipped",
        "_drift",
        "_mean",
        "_noise",
        "_order",
        "_prefix",
        "_prefix_squares",
        "_profile",
        "_running_ratio",
        "_shown",
        "_sorted",
        "_variance",
    )

    def __init__(self, profile_ms: Sequence[float]) -> None:
        if not profile_ms or not all(isfinite(value) and value > 0.0 for value in profile_ms):
            raise ConfigError(
                "stage profile is refused",
                key="profile_ms",
                why="every stage needs a positive, finite time",
            )
        self._profile = tuple(float(value) for value in profile_ms)
        prefix, squares = [0.0], [0.0]
        for value in self._profile:
            prefix.append(prefix[-1] + value)
            squares.append(squares[-1] + value * value)
        self._prefix = tuple(prefix)
        self._prefix_squares = tuple(squares)
        self._mean = 1.0
        self._variance = START_VARIANCE
        self._noise = STAGE_NOISE
        self._drift = DRIFT_SHARE * STAGE_NOISE
        self._at_ms: float | None = None
        self._clipped = 0
        self._running_ratio = 0.0
        self._order: deque[float] = deque()
        # An array, not a list: a copy is one of its bytes, and looking through it touches no objects spread
        # over memory. Once a forecast shows it, it is copied before it changes.
        self._sorted = array("d")
        self._shown = False

    @property
    def profile_ms(self) -> tuple[float, ...]:
        """The profile that the slowdown multiplies."""
        return self._profile

    @property
    def slowdown(self) -> Slowdown:
        """The belief after the last stage."""
        return Slowdown(self._mean, sqrt(self._variance + self._drift))

    def observe(self, stage: int, measured_ms: float, now_ms: float) -> None:
        """Learn from one finished stage; a time that is not positive and finite is ignored."""
        self._running_ratio = 0.0
        if not 0.0 < measured_ms < inf:
            return
        # Comparisons, because this is done for every stage, and calls of `min` and `max` take a third of it.
        mean = self._mean
        ratio = measured_ms / self._profile[stage]
        if not 1.0 / ABSURD_FACTOR < ratio < ABSURD_FACTOR:
            ratio = ABSURD_FACTOR if ratio > 1.0 else 1.0 / ABSURD_FACTOR
        self._remember(ratio / mean)
        low, high = mean / CLIP_FACTOR, mean * CLIP_FACTOR
        clipped = -1 if ratio < low else 1 if ratio > high else 0
        if clipped:
            if clipped == self._clipped:
                # Twice out of reach on the same side is a new regime, not a stall: believe it.
                self._mean = ratio
                self._variance = START_VARIANCE * max(1.0, ratio * ratio)
                self._drift = DRIFT_SHARE * self._noise
                self._clipped = 0
                self._at_ms = now_ms
                return
            ratio = low if clipped < 0 else high
        self._clipped = clipped
        before = self._variance_at(now_ms) + self._drift
        gain = before / (before + self._noise)
        step = gain * (ratio - mean)
        self._mean = mean + step
        self._variance = (1.0 - gain) * before
        drift = DRIFT_MEMORY * self._drift + (1.0 - DRIFT_MEMORY) * step * step
        least = DRIFT_SHARE * self._noise
        self._drift = drift if drift > least else least
        self._at_ms = now_ms

    def running(self, stage: int, elapsed_ms: float, now_ms: float) -> None:
        """Learn that a stage has run for `elapsed_ms` and is not done: it is at least that slow."""
        if isfinite(elapsed_ms) and elapsed_ms > 0.0:
            self._running_ratio = min(ABSURD_FACTOR, elapsed_ms / self._profile[stage])

    def forecast(self, now_ms: float) -> StageForecast:
        """What is known at `now_ms`; later observations do not change it."""
        mean = self._mean
        if self._running_ratio > mean:
            mean = self._running_ratio
        ratios: Sequence[float] = ()
        if len(self._sorted) >= RATIO_MINIMUM:
            ratios, self._shown = self._sorted, True
        variance = self._variance_at(now_ms) + self._drift
        return StageForecast(mean, variance, self._noise, ratios, self._prefix, self._prefix_squares)

    def _variance_at(self, now_ms: float) -> float:
        at_ms = self._at_ms
        if at_ms is None or not now_ms > at_ms:
            return self._variance
        grown = self._variance + GROWTH_PER_S * (now_ms - at_ms) * 1e-3
        if grown <= GROWTH_CAP:
            return grown
        return min(grown, max(GROWTH_CAP, self._variance))

    def _remember(self, ratio: float) -> None:
        order = self._order
        if self._shown:
            self._sorted, self._shown = self._sorted[:], False
        ordered = self._sorted
        if len(order) >= RATIO_WINDOW:
            oldest = order.popleft()
            del ordered[bisect_right(ordered, oldest) - 1]
        order.append(ratio)
        insort(ordered, ratio)
        count = len(ordered)
        if count >= SPREAD_MINIMUM:
            # Half the distance between the 16 % and 84 % quantiles: bursts and stalls do not move it.
            spread = 0.5 * (ordered[(84 * count) // 100] - ordered[(16 * count) // 100])
            noise = spread * spread / ERROR_OVER_NOISE
            if noise < NOISE_LEAST:
                noise = NOISE_LEAST
            self._noise = noise if noise < NOISE_MOST else NOISE_MOST
