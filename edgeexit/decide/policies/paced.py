"""A policy that knows what its time is worth: while frames wait, it spends less on each."""

from __future__ import annotations

from dataclasses import replace
from math import inf

from edgeexit.decide.decision import Decision, Policy, Situation
from edgeexit.decide.learner import FrameClosed, Learner, Observation, StageDone
from edgeexit.decide.price import TimePrice


class Paced:
    """Puts a price on time, learnt from the frames it closes, into the situations that it passes on.

    Where frames come slower than they are answered the price is 0 and nothing changes; where they come
    faster, the price makes the policy answer earlier and lose fewer of them.
    """

    __slots__ = (
        "_began_ms",
        "_elapsed_ms",
        "_free_before_ms",
        "_free_ms",
        "_inner",
        "_learner",
        "_price",
        "_prior",
        "_quality",
        "_waited",
    )

    def __init__(self, inner: Policy) -> None:
        self._inner = inner
        # Asking a port whether something keeps it takes longer than most of what is learnt.
        self._learner = inner if isinstance(inner, Learner) else None
        self._price = TimePrice()
        self._prior: tuple[float, ...] = ()
        # The frame in hand, or the last one while the device is still busy with it.
        self._elapsed_ms = 0.0
        self._waited = False
        self._quality: float | None = None
        self._began_ms = 0.0
        self._free_ms = -inf
        # When the device was done with the frame before the one in hand.
        self._free_before_ms = -inf

    @property
    def name(self) -> str:
        """Name in reports."""
        return self._inner.name

    @property
    def anytime(self) -> bool:
        """As the policy inside."""
        return self._inner.anytime

    def decide(self, situation: Situation) -> Decision:
        """What the policy inside says, told what time is worth."""
        if situation.stages_done == 0 and situation.offloads == 0 and situation.in_flight is None:
            self._begin(situation)
        price = self._price.price
        if price > 0.0:
            situation = replace(situation, time_price=price)
        return self._inner.decide(situation)

    def learn(self, observation: Observation, now_ms: float) -> None:
        """Note when a frame is closed and when its last stage ends; pass everything on."""
        if isinstance(observation, StageDone):
            self._free_ms = max(self._free_ms, now_ms)
        elif isinstance(observation, FrameClosed) and observation.latency_ms is not None:
            exit_ = observation.exit
            in_time = observation.latency_ms <= observation.budget_ms
            known = exit_ is not None and exit_ < len(self._prior) and in_time
            self._quality = self._prior[exit_] if known and exit_ is not None else 0.0
            captured_ms = now_ms - observation.latency_ms
            self._began_ms = captured_ms + self._elapsed_ms
            # Its age at the first decision would not tell: reading and handing over a frame take time too.
            self._waited = captured_ms < self._free_before_ms
            self._free_ms = max(self._free_ms, now_ms)
        if self._learner is not None:
            self._learner.learn(observation, now_ms)

    def _begin(self, situation: Situation) -> None:
        """A new frame: the one before it is done with, its last stage included."""
        if self._quality is not None:
            self._price.frame(self._quality, self._free_ms - self._began_ms, waited=self._waited)
            self._quality = None
        self._elapsed_ms = situation.elapsed_ms
        self._free_before_ms = self._free_ms
        self._prior = situation.prior_quality
