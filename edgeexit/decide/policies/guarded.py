"""A policy under certified thresholds, with a watch that tightens them when audits speak against them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgeexit.decide.decision import Action, Decision, Policy, Situation
from edgeexit.decide.drift import Breach, DriftWatch
from edgeexit.decide.learner import Audited, Learner, Observation
from edgeexit.decide.plans import is_priced

Made = Callable[[Sequence[float]], Policy]
"""Makes the policy for thresholds (K,)."""

# A stage is begun when it may still end in time, as by the policy that is guarded.
RUN_PROBABILITY = 0.02

_UNCERTIFIED = Decision(Action.CONTINUE, "uncertified")


class Guarded:
    """Lets `make` decide with the thresholds that the watch holds at the time.

    A frame that its policy would close because the tables promise nothing more goes on, while there is
    time, until a certified score or the last exit: an answer that is only expected to be as good as the
    last one is not covered by the guarantee, and no audit speaks of it. Where time or energy has a price
    that is a necessity like a deadline, and stays. `on_breach` is told of every breach, in the thread
    that calls `learn`, when the new thresholds are in force.
    """

    __slots__ = ("_inner", "_learner", "_make", "_on_breach", "_watch")

    def __init__(self, make: Made, watch: DriftWatch, on_breach: Callable[[Breach], None]) -> None:
        self._make = make
        self._watch = watch
        self._on_breach = on_breach
        self._guard()

    def _guard(self) -> None:
        """Decide by the thresholds that the watch holds now."""
        self._inner = inner = self._make(self._watch.thresholds)
        self._learner = inner if isinstance(inner, Learner) else None

    @property
    def name(self) -> str:
        """Name in reports."""
        return self._inner.name

    @property
    def anytime(self) -> bool:
        """As the policy inside."""
        return self._inner.anytime

    def decide(self, situation: Situation) -> Decision:
        """What the policy inside says, save that being confident is no reason to leave early."""
        decision = self._inner.decide(situation)
        if decision.reason == "confident" and decision.action is Action.EXIT and _is_free(situation):
            return _UNCERTIFIED
        return decision

    def learn(self, observation: Observation, now_ms: float) -> None:
        """Give audits to the watch, and everything to the policy inside."""
        if isinstance(observation, Audited):
            breach = self._watch.audit(observation.agreed)
            if breach is not None:
                self._guard()
                self._on_breach(breach)
        if self._learner is not None:
            self._learner.learn(observation, now_ms)


def _is_free(situation: Situation) -> bool:
    """Whether another stage costs nothing, and may end in time."""
    done = situation.stages_done
    if done >= situation.stage_count or is_priced(situation):
        return False
    chance = situation.compute.probability_within(done, done + 1, situation.remaining_ms)
    return chance >= RUN_PROBABILITY
