"""Compute traces: how much slower than its profile a board runs, over time.

A ComputeRule is what a scenario names; drawn with a seed it becomes a ComputeTrace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edgeexit.replay.capacity import Capacity


class ComputeTrace:
    """Slowdown of a board in steps of equal length, repeating; 1 is the profiled speed.

    Raises: ValueError when a slowdown is not positive and finite.
    """

    __slots__ = ("_work", "finish_ms", "slowdown", "step_ms")

    def __init__(self, step_ms: float, slowdown: Sequence[float]) -> None:
        if not all(0.0 < value < float("inf") for value in slowdown):
            raise ValueError("slowdowns are positive and finite")
        self.step_ms = step_ms
        self.slowdown = tuple(float(value) for value in slowdown)
        edges_ms = [step_ms * index for index in range(len(slowdown) + 1)]
        self._work = Capacity(edges_ms, [step_ms / value for value in self.slowdown])
        self.finish_ms = self._work.finish_ms
        """When work that takes so many milliseconds on the unloaded board is done."""

    def at(self, now_ms: float) -> float:
        """Slowdown in force."""
        return self.slowdown[int(now_ms // self.step_ms) % len(self.slowdown)]


class ComputeRule(Protocol):
    """Port: how the load of a scenario comes about."""

    @property
    def name(self) -> str:
        """Name in reports."""
        ...

    def draw(self, random: np.random.Generator, *, frames: int, period_ms: float) -> ComputeTrace:
        """The trace of one run."""
        ...


@dataclass(frozen=True, slots=True)
class Unloaded:
    """A board with nothing else to do."""

    @property
    def name(self) -> str:
        """Name in reports."""
        return "none"

    def draw(self, random: np.random.Generator, *, frames: int, period_ms: float) -> ComputeTrace:
        """The trace of one run."""
        return ComputeTrace(1000.0, (1.0,))


@dataclass(frozen=True, slots=True)
class Contended:
    """Wandering load with bursts of another program, as on a board that does other work too.

    The logarithm of the slowdown is an AR(1) process (0.9, deviation 0.05) that stays above the
    profiled speed; bursts of `burst_frames` frames multiply it.
    """

    burst: float = 1.8
    start_probability: float = 0.004
    burst_frames: tuple[int, int] = (20, 80)

    @property
    def name(self) -> str:
        """Name in reports."""
        return f"bursts-x{self.burst:g}"

    def draw(self, random: np.random.Generator, *, frames: int, period_ms: float) -> ComputeTrace:
        """The trace of one run, one step a frame."""
        level = 0.0
        levels: list[float] = []
        for noise in random.standard_normal(frames).tolist():
            level = 0.9 * level + 0.05 * noise
            levels.append(level)
        slowdown = np.exp(np.maximum(levels, 0.0))
        starts = (random.random(frames) < self.start_probability).tolist()
        lengths = random.integers(self.burst_frames[0], self.burst_frames[1] + 1, frames).tolist()
        frame = 0
        while frame < frames:
            if starts[frame]:
                slowdown[frame : frame + lengths[frame]] *= self.burst
                frame += lengths[frame]
            else:
                frame += 1
        return ComputeTrace(period_ms, slowdown.tolist())


@dataclass(frozen=True, slots=True)
class ThermalRamp:
    """A board that heats up and throttles evenly from its profiled speed, then starts cool again."""

    to: float = 2.0
    ramp_ms: float = 600_000.0

    @property
    def name(self) -> str:
        """Name in reports."""
        return f"thermal-x{self.to:g}"

    def draw(self, random: np.random.Generator, *, frames: int, period_ms: float) -> ComputeTrace:
        """The trace of one run, a step a second."""
        steps = max(2, round(self.ramp_ms / 1000.0))
        return ComputeTrace(self.ramp_ms / steps, np.linspace(1.0, self.to, steps).tolist())
