"""ALERT: a Kalman filter on one slowdown, and the configuration of best expected accuracy."""

from __future__ import annotations

from math import erfc, sqrt

from edgeexit.decide.decision import Action, Decision, Situation
from edgeexit.decide.learner import Observation, StageDone
from edgeexit.decide.policies.network_profile import NetworkProfile

# The constants known for that filter: process noise floor, measurement noise, memory, first gain, first
# variance. They keep its deviation above 0.3, wide for a steady board; kept, because it is a baseline.
PROCESS_NOISE = 0.1
MEASUREMENT_NOISE = 0.001
MEMORY = 0.3
FIRST_GAIN = 0.5
FIRST_VARIANCE = 0.1

_CONTINUE = Decision(Action.CONTINUE, "next-stage")
_CAP = Decision(Action.EXIT, "depth-cap")
_DEADLINE = Decision(Action.EXIT, "deadline")


class Alert:
    """Picks a depth cap per frame from P(T_L <= D) and mean accuracies; local only, no scores.

    For an anytime network each exit reached counts, sum of (P_L - P_{L+1}) · accuracy_L up to the cap;
    for a classic one only the cap itself does, P_L · accuracy_L. On equal worth the smaller cap, which
    costs less energy.
    Source: Wan et al., ALERT, USENIX ATC 2020.
    """

    __slots__ = ("_anytime", "_cap", "_gain", "_mean", "_noise", "_profile", "_variance")

    def __init__(self, profile: NetworkProfile, *, anytime: bool = True) -> None:
        self._profile = profile
        self._anytime = anytime
        self._mean = 1.0
        self._variance = FIRST_VARIANCE
        self._noise = PROCESS_NOISE
        self._gain = FIRST_GAIN
        self._cap = profile.stage_count

    @property
    def name(self) -> str:
        """Name in reports."""
        return "alert-anytime" if self._anytime else "alert-classic"

    @property
    def anytime(self) -> bool:
        """An anytime network has its last exit to show at the deadline; a classic one has nothing."""
        return self._anytime

    def decide(self, situation: Situation) -> Decision:
        """Cap the depth once a frame, then run to the cap."""
        done = situation.stages_done
        if done == 0:
            self._cap = self._best_cap(situation.remaining_ms)
            return _CONTINUE
        if self._anytime and situation.remaining_ms <= 0.0:
            return _DEADLINE
        return _CONTINUE if done < self._cap else _CAP

    def learn(self, observation: Observation, now_ms: float) -> None:
        """One Kalman step for every stage."""
        if not isinstance(observation, StageDone):
            return
        ratio = observation.measured_ms / self._profile.device_ms[observation.stage]
        innovation = ratio - self._mean
        self._noise = max(
            PROCESS_NOISE, MEMORY * self._noise + (1.0 - MEMORY) * (self._gain * innovation) ** 2
        )
        before = (1.0 - self._gain) * self._variance + self._noise
        self._gain = before / (before + MEASUREMENT_NOISE)
        self._mean = max(0.05, self._mean + self._gain * innovation)
        self._variance = before

    def _best_cap(self, limit_ms: float) -> int:
        profile = self._profile
        deviation = sqrt(self._variance)
        chances: list[float] = []
        for cap in range(1, profile.stage_count + 1):
            spent_ms = profile.front_ms(cap)
            standard = (limit_ms - self._mean * spent_ms) / (deviation * spent_ms)
            chances.append(0.5 * erfc(-standard / sqrt(2.0)))
        best, most = 1, -1.0
        for cap in range(1, profile.stage_count + 1):
            if self._anytime:
                worth = 0.0
                for index in range(cap):
                    further = chances[index + 1] if index + 1 < cap else 0.0
                    worth += (chances[index] - further) * profile.accuracy[index]
            else:
                worth = chances[cap - 1] * profile.accuracy[cap - 1]
            if worth > most + 1e-9:
                best, most = cap, worth
        return best
