"""Neurosurgeon: the one cut of least predicted latency; no exits, no deadline, no fallback."""

from __future__ import annotations

from edgeexit.decide.decision import Action, Decision, Situation
from edgeexit.decide.learner import Observation
from edgeexit.decide.policies.averages import LinkAverages
from edgeexit.decide.policies.network_profile import NetworkProfile, sendable

_CONTINUE = Decision(Action.CONTINUE, "before-cut")
_WAIT = Decision(Action.WAIT, "reply-awaited")
_LAST = Decision(Action.EXIT, "last-exit")


class Neurosurgeon:
    """Cuts at argmin_j [front_j + b_j / B + rtt + back_j · load], with the last bandwidth and load.

    Its regressions from layer type to time are replaced by measured stage medians, which are better.
    Source: Kang et al., Neurosurgeon, ASPLOS 2017.
    """

    __slots__ = ("_averages", "_cut", "_profile")

    def __init__(self, profile: NetworkProfile) -> None:
        self._profile = profile
        # The paper takes the bandwidth and the server load last seen.
        self._averages = LinkAverages(profile, newest_weight=1.0)
        self._cut = profile.stage_count

    @property
    def name(self) -> str:
        """Name in reports."""
        return "neurosurgeon"

    @property
    def anytime(self) -> bool:
        """It answers only when it is done."""
        return False

    def decide(self, situation: Situation) -> Decision:
        """Cut once a frame, then run to the cut, send, and wait."""
        if situation.in_flight is not None:
            return _WAIT
        if situation.stages_done == 0 and situation.offloads == 0:
            self._cut = self._best_cut()
        if situation.stages_done >= situation.stage_count:
            return _LAST
        if situation.offloads == 0 and situation.stages_done == self._cut:
            option = sendable(situation, self._profile.payloads[self._cut])
            if option is not None:
                return Decision(Action.OFFLOAD, "cut", option)
        return _CONTINUE

    def learn(self, observation: Observation, now_ms: float) -> None:
        """Remember the last bandwidth, round trip and server load."""
        self._averages.learn(observation)

    def _best_cut(self) -> int:
        profile = self._profile
        best, least_ms = profile.stage_count, profile.front_ms(profile.stage_count)
        for cut in profile.cuts():
            total_ms = profile.front_ms(cut) + self._averages.remote_ms(cut)
            if total_ms < least_ms:
                best, least_ms = cut, total_ms
        return best
