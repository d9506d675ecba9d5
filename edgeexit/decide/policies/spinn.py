"""SPINN: cut and exit threshold from an offline table, rescaled by what is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeexit.decide.decision import Action, Decision, Situation
from edgeexit.decide.learner import Observation, StageDone
from edgeexit.decide.policies.averages import NEWEST_WEIGHT, LinkAverages
from edgeexit.decide.policies.network_profile import NetworkProfile, sendable

# Thresholds of the table; 2 is reached by no score, so that no exit stops early.
THRESHOLDS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 2.0)
# Costs that moved by less than this since the last plan do not call for a new one.
REPLAN_CHANGE = 0.1

_CONTINUE = Decision(Action.CONTINUE, "before-cut")
_WAIT = Decision(Action.WAIT, "reply-awaited")
_PASSED = Decision(Action.EXIT, "over-threshold")
_LAST = Decision(Action.EXIT, "last-exit")
_SERVER_GONE = Decision(Action.EXIT, "server-gone")


@dataclass(frozen=True, slots=True)
class Design:
    """A row of the table: a cut and a threshold, with what they did on the calibration samples.

    `local_shares[k]` is the share of samples that run stage k here; `sent_share` is the share that
    reaches the cut without stopping. Units: accuracy and shares, fractions.
    """

    cut: int
    threshold: float
    accuracy: float
    local_shares: tuple[float, ...]
    sent_share: float


def design_table(
    scores: NDArray[np.floating],
    correct: NDArray[np.bool_] | NDArray[np.floating],
    profile: NetworkProfile,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
) -> tuple[Design, ...]:
    """Every cut with every threshold, profiled offline. Shapes: scores (n, K), correct (n, K)."""
    score = np.asarray(scores, dtype=np.float64)
    quality = np.asarray(correct, dtype=np.float64)
    count, last = score.shape[0], score.shape[1] - 1
    rows = np.arange(count)
    designs: list[Design] = []
    for cut in (*profile.cuts(), profile.stage_count):
        for threshold in thresholds:
            # Exits before the cut may stop; what passes the cut answers with the last exit.
            usable = min(cut, last)
            reached = score[:, :usable] >= threshold  # (n, usable)
            stopped = reached.any(axis=1) if usable else np.zeros(count, dtype=bool)
            stop = np.where(stopped, reached.argmax(axis=1) if usable else last, last)
            local = np.where(stopped, stop + 1, cut)
            shares = tuple(float((local > stage).mean()) for stage in range(profile.stage_count))
            designs.append(
                Design(
                    cut=cut,
                    threshold=threshold,
                    accuracy=float(quality[rows, stop].mean()),
                    local_shares=shares,
                    sent_share=float((~stopped).mean()) if cut <= last else 0.0,
                )
            )
    return tuple(designs)


class Spinn:
    """Keeps the rows predicted to meet the deadline, takes the most accurate, then the least server time.

    The paper lets a user rank goals; the ranking here is accuracy first, as the objective is. Where no
    row meets the deadline the fastest one is taken. Server gone: the last local exit answers.
    Source: Laskaridis et al., SPINN, MobiCom 2020.
    """

    __slots__ = ("_averages", "_costs", "_design", "_designs", "_device_scale", "_profile")

    def __init__(self, profile: NetworkProfile, designs: Sequence[Design]) -> None:
        self._profile = profile
        self._designs = tuple(designs)
        self._averages = LinkAverages(profile)
        self._device_scale = 1.0
        self._design = self._designs[-1]
        self._costs: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """Name in reports."""
        return "spinn"

    @property
    def anytime(self) -> bool:
        """It answers only when its plan is done."""
        return False

    def decide(self, situation: Situation) -> Decision:
        """Plan between frames, run to the cut, stop where an exit passes, else send and wait."""
        if situation.in_flight is not None:
            return _WAIT
        done = situation.stages_done
        evidence = situation.evidence
        if done == 0 and situation.offloads == 0:
            self._replan(situation.remaining_ms)
        if evidence is not None and evidence.score >= self._design.threshold:
            return _PASSED
        if done >= situation.stage_count:
            return _LAST
        if done < self._design.cut:
            return _CONTINUE
        if situation.offloads == 0:
            option = sendable(situation, self._profile.payloads[self._design.cut])
            if option is not None:
                return Decision(Action.OFFLOAD, "cut", option)
        return _SERVER_GONE if evidence is not None else _CONTINUE

    def learn(self, observation: Observation, now_ms: float) -> None:
        """Rescale the device column by measured over profiled; the link averages do the rest."""
        if isinstance(observation, StageDone):
            ratio = observation.measured_ms / self._profile.device_ms[observation.stage]
            self._device_scale += NEWEST_WEIGHT * (ratio - self._device_scale)
        else:
            self._averages.learn(observation)

    def _replan(self, limit_ms: float) -> None:
        averages = self._averages
        costs = (limit_ms, self._device_scale, averages.load, averages.bytes_per_ms, averages.rtt_ms)
        before = self._costs
        if before and all(
            abs(now - then) <= REPLAN_CHANGE * abs(then) for now, then in zip(costs, before, strict=True)
        ):
            return
        self._costs = costs
        fastest, fastest_ms = self._designs[0], float("inf")
        best: Design | None = None
        for design in self._designs:
            predicted_ms = self._latency_ms(design)
            if predicted_ms < fastest_ms:
                fastest, fastest_ms = design, predicted_ms
            if predicted_ms > limit_ms:
                continue
            if best is None or self._rank(design) > self._rank(best):
                best = design
        self._design = fastest if best is None else best

    def _latency_ms(self, design: Design) -> float:
        """Mean latency of a row with the columns as measured now."""
        times = zip(self._profile.device_ms, design.local_shares, strict=True)
        local_ms = self._device_scale * sum(time * share for time, share in times)
        if design.cut >= self._profile.stage_count:
            return local_ms
        return local_ms + design.sent_share * self._averages.remote_ms(design.cut)

    def _rank(self, design: Design) -> tuple[float, float]:
        server_ms = design.sent_share * self._profile.back_ms(design.cut)
        return design.accuracy, -server_ms
