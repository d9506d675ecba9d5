"""How a conversion tells what it is doing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

# Often enough to see that something moves, seldom enough for a log.
LINE_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a conversion, and how far it is: `done` of `total` parts.

    `detail` is empty until the step has ended.
    """

    name: str
    done: int
    total: int
    detail: str = ""


Progress = Callable[[Step], None]


def silent(step: Step) -> None:
    """Tell nothing."""


class ProgressLines:
    """Writes plain lines: one when a step begins, one when it is done, and one every few seconds between.

    Units: clock, monotonic seconds.
    """

    def __init__(self, write: Callable[[str], object], *, clock: Callable[[], float] = monotonic) -> None:
        self._write = write
        self._clock = clock
        self._step: str | None = None
        self._last_s = 0.0

    def __call__(self, step: Step) -> None:
        """Write a line where it is time for one."""
        now_s = self._clock()
        begins, ends = step.name != self._step, bool(step.detail)
        if not begins and not ends and now_s - self._last_s < LINE_EVERY_S:
            return
        self._step, self._last_s = step.name, now_s
        self._write(f"{step.name:<16} {step.done:>6}/{step.total}  {step.detail}".rstrip())


@dataclass(frozen=True, slots=True)
class StepTime:
    """How long one step took. Units: seconds."""

    step: str
    duration_s: float


class Steps:
    """Tells the progress of steps, one after the other, and keeps how long each took.

    Units: clock, monotonic seconds.
    """

    def __init__(self, progress: Progress, clock: Callable[[], float]) -> None:
        self._progress = progress
        self._clock = clock
        self._times: list[StepTime] = []

    @property
    def times(self) -> tuple[StepTime, ...]:
        """The steps done."""
        return tuple(self._times)

    @contextmanager
    def step(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """One step of `total` parts; what it yields is told how many of them are done."""
        start_s = self._clock()
        self._progress(Step(name, 0, total))
        yield lambda done: self._progress(Step(name, done, total))
        duration_s = self._clock() - start_s
        self._progress(Step(name, total, total, f"{duration_s:.1f} s"))
        self._times.append(StepTime(name, duration_s))
