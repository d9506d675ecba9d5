"""Any baseline with the anytime floor under it: the local answer at the deadline."""

from __future__ import annotations

from edgeexit.decide.decision import Action, Decision, Policy, Situation
from edgeexit.decide.learner import Learner, Observation
from edgeexit.decide.policies.local import AnytimeLocal


class WithFallback:
    """Lets a policy send as it likes, computes on while it waits, and answers by the deadline."""

    __slots__ = ("_floor", "_inner")

    def __init__(self, inner: Policy) -> None:
        self._inner = inner
        self._floor = AnytimeLocal()

    @property
    def name(self) -> str:
        """Name in reports."""
        return f"{self._inner.name}+fallback"

    @property
    def anytime(self) -> bool:
        """It answers at the deadline with what it has."""
        return True

    def decide(self, situation: Situation) -> Decision:
        """What the policy says, save that it neither idles nor overruns."""
        if situation.evidence is not None and situation.remaining_ms <= 0.0:
            return Decision(Action.EXIT, "deadline")
        choice = self._inner.decide(situation)
        if choice.action in (Action.OFFLOAD, Action.EXIT):
            return choice
        floor = self._floor.decide(situation)
        if floor.action is Action.CONTINUE:
            return floor
        if situation.in_flight is not None and floor.reason != "last-exit":
            return Decision(Action.WAIT, "reply-awaited", wait_ms=situation.remaining_ms)
        return floor

    def learn(self, observation: Observation, now_ms: float) -> None:
        """Pass on what was observed."""
        if isinstance(self._inner, Learner):
            self._inner.learn(observation, now_ms)
