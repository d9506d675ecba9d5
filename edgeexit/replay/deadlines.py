"""Schedules of the latency budget: constant, redrawn, swinging, in tight bursts, changed in mid-frame.

A DeadlineRule is what a scenario names; drawn with a seed it becomes a DeadlineSchedule.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf, pi, sin
from typing import Protocol

import numpy as np

from edgeexit.decide.budget import Budget, Expiry, ScheduleBudget

# Deadlines that never change have no segments of their own: statistics take blocks of this many frames.
SEGMENT_FRAMES = 25


class DeadlineSchedule:
    """Latency budgets in force over time, each from its start until the next; the last one stays.

    Units: starts_ms, rising from 0; budgets_ms, positive.
    Raises: ValueError when the starts do not rise from 0 or a budget is not positive.
    """

    __slots__ = ("_budgets_ms", "_starts_ms")

    def __init__(self, starts_ms: Sequence[float], budgets_ms: Sequence[float]) -> None:
        if len(starts_ms) != len(budgets_ms) or not starts_ms or starts_ms[0] != 0.0:
            raise ValueError("starts begin at 0, one for every budget")
        if not all(a < b for a, b in pairwise(starts_ms)):
            raise ValueError("starts rise")
        if not all(0.0 < budget < inf for budget in budgets_ms):
            raise ValueError("budgets are positive and finite")
        self._starts_ms = [float(start) for start in starts_ms]
        self._budgets_ms = [float(budget) for budget in budgets_ms]

    def latency_ms(self, now_ms: float) -> float:
        """Budget in force; the first one before time 0."""
        return self._budgets_ms[max(0, bisect_right(self._starts_ms, now_ms) - 1)]

    def next_change_ms(self, now_ms: float) -> float:
        """When the budget changes next; infinity when it never does."""
        index = bisect_right(self._starts_ms, now_ms)
        return self._starts_ms[index] if index < len(self._starts_ms) else inf

    def expiry_ms(self, captured_ms: float) -> float:
        """The last moment at which an answer to a frame counts; once past its deadline it is missed."""
        return self.expiry(captured_ms).at_ms

    def expiry(self, captured_ms: float) -> Expiry:
        """The same moment, and whether it is that of a cut which left nothing."""
        expiry = Expiry(captured_ms, self.latency_ms(captured_ms))
        change_ms = self.next_change_ms(captured_ms)
        while change_ms <= expiry.at_ms and not expiry.over:
            expiry.change(change_ms, self.latency_ms(change_ms))
            change_ms = self.next_change_ms(change_ms)
        return expiry

    def budget_source(self) -> ScheduleBudget:
        """The same schedule as a budget source for a device."""
        steps = zip(self._starts_ms, self._budgets_ms, strict=True)
        return ScheduleBudget([(start, Budget(latency_ms=budget)) for start, budget in steps])


class DeadlineRule(Protocol):
    """Port: how the deadlines of a scenario come about."""

    @property
    def name(self) -> str:
        """Name in reports."""
        ...

    def draw(self, random: np.random.Generator, *, frames: int, period_ms: float) -> DeadlineSchedule:
        """The schedule of one run."""
        ...


@dataclass(frozen=True, slots=True)
class Constant:
    """One budget for ever."""

    budget_ms: float

    @property
    def name(self) -> str:
        """Name in reports."""
        return f"constant-{self.budget_ms:g}"

    def draw(self, random: np.random.Generator, *, frames: int, period_ms: float) -> DeadlineSchedule:
        """The schedule of one run."""
        return DeadlineSchedule((0.0,), (self.budget_ms,))


@dataclass(frozen=True, slots=True)
class Redrawn:
    """A budget drawn anew from a few after every segment."""

    choices_ms: tuple[float, ...]
    every: int = SEGMENT_FRAMES

    @property
    def name(self) -> str:
        """Name in reports."""
        return "redrawn-" + "/".join(f"{choice:g}" for choice in self.choices_ms)

    def draw(self, random: np.random.Generator, *, frames: int, period_ms: float) -> DeadlineSchedule:
        """The schedule of one run."""
        draws = -(-frames // self.every)
        budgets = [self.choices_ms[index] for index in random.integers(0, len(self.choices_ms), draws)]
        return DeadlineSchedule([index * self.every * period_ms for index in range(draws)], budgets)


@dataclass(frozen=True, slots=True)
class Swinging:
    """A sine between two budgets, sampled at every frame."""

    low_ms: float
    high_ms: float
    swing_frames: int = 200

    @property
    def name(self) -> str:
        """Name in reports."""
        return f"sine-{self.low_ms:g}-{self.high_ms:g}"

    def draw(self, random: np.random.Generator, *, frames: int, period_ms: float) -> DeadlineSchedule:
        """The schedule of one run."""
        middle, half = (self.low_ms + self.high_ms) / 2, (self.high_ms - self.low_ms) / 2
        budgets = [middle + half * sin(2 * pi * frame / self.swing_frames) for frame in range(frames)]
        return DeadlineSchedule([frame * period_ms for frame in range(frames)], budgets)


@dataclass(frozen=True, slots=True)
class TightBursts:
    """A loose budget with bursts of a tight one, 5 to 15 frames long, in a share of all frames."""

    loose_ms: float
    tight_ms: float
    share: float = 0.2

    @property
    def name(self) -> str:
        """Name in reports."""
        return f"tight-bursts-{self.loose_ms:g}/{self.tight_ms:g}"

    def draw(self, random: np.random.Generator, *, frames: int, period_ms: float) -> DeadlineSchedule:
        """The schedule of one run."""
        starts, budgets = [0.0], [self.loose_ms]
        frame = 0
        while frame < frames:
            burst = int(random.integers(5, 16))
            gap = max(1, round(burst * (1.0 - self.share) / self.share * random.uniform(0.5, 1.5)))
            starts += [(frame + gap) * period_ms, (frame + gap + burst) * period_ms]
            budgets += [self.tight_ms, self.loose_ms]
            frame += gap + burst
        return DeadlineSchedule(starts, budgets)


@dataclass(frozen=True, slots=True)
class ChangedInFrame:
    """A budget that is cut (or extended) while a frame is worked on, in a share of the frames."""

    budget_ms: float
    to_ms: float
    share: float = 0.3

    @property
    def name(self) -> str:
        """Name in reports."""
        kind = "cut" if self.to_ms < self.budget_ms else "extended"
        return f"{kind}-{self.budget_ms:g}-to-{self.to_ms:g}"

    def draw(self, random: np.random.Generator, *, frames: int, period_ms: float) -> DeadlineSchedule:
        """The schedule of one run."""
        starts, budgets = [0.0], [self.budget_ms]
        shorter_ms = min(self.budget_ms, self.to_ms)
        earliest_ms, latest_ms = 0.2 * shorter_ms, min(0.9 * shorter_ms, 0.9 * period_ms)
        for frame in np.flatnonzero(random.random(frames) < self.share):
            at_ms = float(frame) * period_ms
            starts += [at_ms + random.uniform(earliest_ms, latest_ms), at_ms + period_ms]
            budgets += [self.to_ms, self.budget_ms]
        return DeadlineSchedule(starts, budgets)
