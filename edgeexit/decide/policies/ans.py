"""ANS with μLinUCB: the cut as a contextual bandit over the delay beyond it."""

from __future__ import annotations

from math import ceil

import numpy as np
from numpy.typing import NDArray

from edgeexit.decide.decision import Action, Decision, Situation
from edgeexit.decide.learner import Failed, Observation, Replied
from edgeexit.decide.policies.network_profile import NetworkProfile, sendable

Floats = NDArray[np.float64]

# Ridge of the regression; the paper's β.
RIDGE = 1.0
# Width of the confidence term, ms, and the exponent of forced sampling. On the development scenario tried
# widths from 3 to 300 and exponents from 0.15 to 0.4 come to the same.
EXPLORATION = 30.0
FORCED_EXPONENT = 0.25
# First horizon; doubled whenever it is passed.
FIRST_HORIZON = 256
# Weight of an ordinary frame in the confidence term (L_t): 0 explores in full, towards 1 for key frames.
FRAME_WEIGHT = 0.0

_CONTINUE = Decision(Action.CONTINUE, "before-cut")
_WAIT = Decision(Action.WAIT, "reply-awaited")
_LAST = Decision(Action.EXIT, "last-exit")


class AutodidacticSurgeon:
    """Learns the delay behind each cut, front_j + θᵀx_j, from the cuts that it tries.

    Every ⌈T^μ⌉ frames the all-local cut is forbidden: without forced sampling nothing would be learnt
    while it looks best. No exits, no deadline, no fallback.
    Source: Zhang, Chen, Xu, Autodidactic Neurosurgeon, WWW 2021.
    """

    __slots__ = (
        "_cut",
        "_exploration",
        "_features",
        "_frame",
        "_horizon",
        "_inverse",
        "_profile",
        "_response",
        "_since_doubling",
        "_theta",
    )

    def __init__(self, profile: NetworkProfile, *, exploration: float = EXPLORATION) -> None:
        self._profile = profile
        self._exploration = exploration
        self._features = _features(profile)
        size = self._features.shape[1]
        self._inverse: Floats = np.eye(size) / RIDGE
        self._response: Floats = np.zeros(size)
        self._theta: Floats = np.zeros(size)
        self._cut = profile.stage_count
        self._frame = 0
        self._horizon = FIRST_HORIZON
        self._since_doubling = 0

    @property
    def name(self) -> str:
        """Name in reports."""
        return "ans"

    @property
    def anytime(self) -> bool:
        """It answers only when it is done."""
        return False

    def decide(self, situation: Situation) -> Decision:
        """Cut once a frame, then run to the cut, send, and wait."""
        if situation.in_flight is not None:
            return _WAIT
        if situation.stages_done == 0 and situation.offloads == 0:
            self._cut = self._choose()
        if situation.stages_done >= situation.stage_count:
            return _LAST
        if situation.offloads == 0 and situation.stages_done == self._cut:
            option = sendable(situation, self._profile.payloads[self._cut])
            if option is not None:
                return Decision(Action.OFFLOAD, "cut", option)
        return _CONTINUE

    def learn(self, observation: Observation, now_ms: float) -> None:
        """Regress the delay of an offload on the features of its cut."""
        if isinstance(observation, Replied):
            self._update(observation.option.boundary, observation.elapsed_ms)
        elif isinstance(observation, Failed):
            # It is known to have taken at least this long.
            self._update(observation.option.boundary, observation.waited_ms)

    def _update(self, cut: int, delay_ms: float) -> None:
        features = self._features[cut]
        # Sherman-Morrison: the inverse of A + x xᵀ from the inverse of A.
        projected = self._inverse @ features
        self._inverse -= np.outer(projected, projected) / (1.0 + float(features @ projected))
        self._response += delay_ms * features
        self._theta = self._inverse @ self._response

    def _choose(self) -> int:
        self._frame += 1
        self._since_doubling += 1
        if self._since_doubling > self._horizon:
            self._horizon *= 2
            self._since_doubling = 1
        profile = self._profile
        forced = self._since_doubling % ceil(self._horizon**FORCED_EXPONENT) == 0
        cuts = profile.cuts()
        best, least = profile.stage_count, profile.front_ms(profile.stage_count)
        if forced and cuts:
            best, least = cuts[0], float("inf")
        for cut in cuts:
            features = self._features[cut]
            spread = float(features @ self._inverse @ features)
            optimistic = (
                profile.front_ms(cut)
                + float(self._theta @ features)
                - self._exploration * ((1.0 - FRAME_WEIGHT) * max(0.0, spread)) ** 0.5
            )
            if optimistic < least:
                best, least = cut, optimistic
        return best


def _features(profile: NetworkProfile) -> Floats:
    """Of each cut: remaining operations, remaining stages, bytes, 1; scaled to 0 … 1. Shapes: (K, 4)."""
    count = profile.stage_count
    macs = sum(profile.macs) or 1.0
    payload_bytes = [0 if payload is None else payload.payload_bytes for payload in profile.payloads]
    largest = max(payload_bytes) or 1
    rows = [
        (sum(profile.macs[cut:]) / macs, (count - cut) / count, payload_bytes[cut] / largest, 1.0)
        for cut in range(count)
    ]
    return np.asarray(rows, dtype=np.float64)
