"""Edgent: the most accurate exit and cut whose predicted latency meets the deadline."""

from __future__ import annotations

from collections import deque
from math import exp, log

from edgeexit.decide.decision import Action, Decision, Situation
from edgeexit.decide.learner import Observation
from edgeexit.decide.policies.averages import LinkAverages
from edgeexit.decide.policies.network_profile import NetworkProfile, sendable

# Width of a bandwidth state: a factor of 1.5 between neighbours, as the paper bins its states by rate.
STATE_RATIO = 1.5
# CUSUM on the logarithm of bandwidth, in standard deviations: the constants used elsewhere here.
DRIFT = 0.5
ALARM = 4.0
SPREAD_FLOOR = 0.1
# Measurements of a segment that its mean is taken over.
SEGMENT = 20

_CONTINUE = Decision(Action.CONTINUE, "before-cut")
_WAIT = Decision(Action.WAIT, "reply-awaited")
_PLANNED = Decision(Action.EXIT, "planned-exit")


class Edgent:
    """Scans exits from the deepest, takes the first with a cut that is predicted in time.

    Static form: averaged bandwidth. Dynamic form: the mean of the present bandwidth segment, rounded
    to a state, segments told apart by change-point detection; a plan is looked up by (state, deadline).
    Gateways here always run to the last exit, so a remote plan always answers with that one.
    Source: Li et al., Edge AI, IEEE Trans. Wireless Communications 2020.
    """

    __slots__ = ("_averages", "_cut", "_dynamic", "_exit", "_profile", "_segment")

    def __init__(self, profile: NetworkProfile, *, dynamic: bool = False) -> None:
        self._profile = profile
        self._averages = LinkAverages(profile)
        self._dynamic = dynamic
        self._segment = BandwidthSegment()
        self._exit = 0
        self._cut = 1

    @property
    def name(self) -> str:
        """Name in reports."""
        return "edgent-dynamic" if self._dynamic else "edgent-static"

    @property
    def anytime(self) -> bool:
        """It answers only when its plan is done."""
        return False

    def decide(self, situation: Situation) -> Decision:
        """Plan once a frame, then follow the plan."""
        if situation.in_flight is not None:
            return _WAIT
        done = situation.stages_done
        if done == 0 and situation.offloads == 0:
            self._exit, self._cut = self._plan(situation.remaining_ms)
        if situation.offloads == 0 and done == self._cut and self._cut <= self._exit:
            option = sendable(situation, self._profile.payloads[self._cut])
            if option is not None:
                return Decision(Action.OFFLOAD, "cut", option)
        return _PLANNED if done > self._exit else _CONTINUE

    def learn(self, observation: Observation, now_ms: float) -> None:
        """Average the link, and tell bandwidth segments apart."""
        if self._averages.learn(observation) and self._dynamic:
            fresh = self._averages.fresh_bytes_per_ms
            if fresh is not None and fresh > 0.0:
                self._averages.bytes_per_ms = self._segment.observe(fresh)

    def _plan(self, limit_ms: float) -> tuple[int, int]:
        """Exit and cut; a cut past the exit means all of it here."""
        profile = self._profile
        last = profile.stage_count - 1
        best_cut: int | None = None
        least_ms = profile.front_ms(last + 1)
        for cut in profile.cuts():
            total_ms = profile.front_ms(cut) + self._averages.remote_ms(cut)
            if total_ms < least_ms:
                best_cut, least_ms = cut, total_ms
        if least_ms <= limit_ms:
            return last, last + 1 if best_cut is None else best_cut
        for exit_ in range(last - 1, -1, -1):
            if profile.front_ms(exit_ + 1) <= limit_ms:
                return exit_, exit_ + 1
        return 0, 1


class BandwidthSegment:
    """Mean of the present bandwidth segment as a state; a change-point begins a new segment."""

    __slots__ = ("_down", "_logs", "_spread", "_up")

    def __init__(self) -> None:
        self._logs: deque[float] = deque(maxlen=SEGMENT)
        self._spread = 0.3
        self._up = 0.0
        self._down = 0.0

    def observe(self, bytes_per_ms: float) -> float:
        """Take a measurement; the bandwidth of the state in force."""
        value = log(bytes_per_ms)
        if self._logs:
            error = value - sum(self._logs) / len(self._logs)
            standard = error / max(SPREAD_FLOOR, self._spread)
            self._spread += 0.1 * (1.25 * abs(error) - self._spread)
            self._up = max(0.0, self._up + standard - DRIFT)
            self._down = max(0.0, self._down - standard - DRIFT)
            if max(self._up, self._down) > ALARM:
                self._logs.clear()
                self._up = self._down = 0.0
        self._logs.append(value)
        width = log(STATE_RATIO)
        state = round(sum(self._logs) / len(self._logs) / width)
        return exp(state * width)
