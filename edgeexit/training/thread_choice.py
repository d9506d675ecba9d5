"""How many threads train fastest now: all of them on an idle machine, one beside other load."""

from __future__ import annotations

from collections import deque
from statistics import median

# So many steps stand for a number of threads: their median forgives one that was disturbed.
STEPS = 5
# A trial that is slower than this, even once its threads are up, is not worth its other steps.
GIVE_UP_RATIO = 1.5
# The first step of a trial wakes threads up; only one that is far slower ends the trial at once.
GIVE_UP_AT_ONCE_RATIO = 3.0
# A smaller gain than this is noise.
GAIN = 0.95
# Steps that have become so much slower say that load has come: a trial is due whatever the hold.
SLOWED_RATIO = 1.5
# Load comes and goes within seconds; trials that fail become rarer, up to the second figure.
HOLD_S = 10.0
LONGEST_HOLD_S = 80.0


class ThreadChoice:
    """Tries one thread against `most`, now and then, and keeps to the faster of the two.

    Torch's threads wait for the slowest of them at every operation: where another program takes a core,
    two can be several times slower than one. Sums in other numbers of threads differ in their last bits,
    so this is for training that ends by the clock, whose length differs from run to run anyway.
    """

    __slots__ = (
        "_hold_s",
        "_kept",
        "_kept_steps_s",
        "_most",
        "_settled_step_s",
        "_trial_steps_s",
        "_trying",
        "_until_trial_s",
    )

    def __init__(self, most: int) -> None:
        self._most = max(1, most)
        self._kept = self._most
        self._kept_steps_s: deque[float] = deque(maxlen=STEPS)
        self._trial_steps_s: list[float] = []
        self._trying = False
        self._hold_s = HOLD_S
        self._until_trial_s = 0.0
        self._settled_step_s = float("inf")

    @property
    def threads(self) -> int:
        """How many to use for the next step."""
        return self._other if self._trying else self._kept

    @property
    def _other(self) -> int:
        return 1 if self._kept == self._most else self._most

    def took(self, step_s: float) -> None:
        """Learn how long a step with `threads` took."""
        if self._most == 1:
            return
        if self._trying:
            self._try(step_s)
            return
        self._kept_steps_s.append(step_s)
        self._until_trial_s -= step_s
        if len(self._kept_steps_s) < STEPS:
            return
        slowed = median(self._kept_steps_s) > SLOWED_RATIO * self._settled_step_s
        self._trying = slowed or self._until_trial_s <= 0.0

    def _try(self, step_s: float) -> None:
        first = not self._trial_steps_s
        self._trial_steps_s.append(step_s)
        usual_s = median(self._kept_steps_s)
        if step_s > usual_s * (GIVE_UP_AT_ONCE_RATIO if first else GIVE_UP_RATIO):
            self._settle(better=False)
        elif len(self._trial_steps_s) == STEPS:
            self._settle(better=median(self._trial_steps_s) < GAIN * usual_s)

    def _settle(self, *, better: bool) -> None:
        if better:
            self._kept = self._other
            self._kept_steps_s.clear()
            self._kept_steps_s.extend(self._trial_steps_s)
        self._hold_s = HOLD_S if better else min(2.0 * self._hold_s, LONGEST_HOLD_S)
        self._until_trial_s = self._hold_s
        self._settled_step_s = median(self._kept_steps_s)
        self._trial_steps_s.clear()
        self._trying = False
