"""The best static rule in hindsight: all of a grid replayed in the same world, the best one kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeexit.decide.link import LinkEstimator
from edgeexit.decide.policies.hindsight import THRESHOLDS, StaticRule, static_rules
from edgeexit.replay.controller import Controller
from edgeexit.replay.fleets import row_runs
from edgeexit.replay.metrics import metrics
from edgeexit.replay.outcome import Outcome
from edgeexit.replay.pool import Fleet
from edgeexit.replay.world import World

# Rules that go on to the second round of the search, and frames of the first round: enough that a rule in
# the first rank by some points is among the survivors.
SURVIVORS = 10
FIRST_FRAMES = 250
# Every third threshold of the whole grid, for searches that must be quick.
FEW_THRESHOLDS = THRESHOLDS[2::3]


@dataclass(frozen=True, slots=True)
class BestRule:
    """The winner with its runs, one a world."""

    rule: StaticRule
    outcomes: tuple[Outcome, ...]


def best_static_rule(
    worlds: Sequence[World], *, thresholds: Sequence[float] = FEW_THRESHOLDS, fleet: Fleet | None = None
) -> BestRule:
    """The rule with the best mean objective over the worlds, which are those of a `fleet`'s devices.

    All rules run on the first frames of the first world, the best ten on all of them.
    """
    stage_count = worlds[0].scenario.profile.stage_count
    rules = list(static_rules(stage_count, thresholds=thresholds))
    openings = beginnings(worlds, fleet)

    def opening(rule: StaticRule) -> float:
        return _objective(rule_runs(rule, openings, fleet), worlds)

    ranked = sorted(rules, key=opening, reverse=True)
    runs = {rule: rule_runs(rule, worlds, fleet) for rule in ranked[:SURVIVORS]}
    winner = max(runs, key=lambda rule: _objective(runs[rule], worlds))
    return BestRule(winner, runs[winner])


def beginnings(worlds: Sequence[World], fleet: Fleet | None) -> list[World]:
    """The first frames of the first seed."""
    devices = 1 if fleet is None else fleet.devices
    return [world.beginning(-(-FIRST_FRAMES // devices)) for world in worlds[:devices]]


def rule_runs(rule: StaticRule, worlds: Sequence[World], fleet: Fleet | None = None) -> tuple[Outcome, ...]:
    """A rule in each of the worlds, which are those of a `fleet`'s devices."""
    return tuple(
        row_runs(worlds, lambda _: Controller(rule, NoForecast(), LinkEstimator(), cancels=False), fleet)
    )


def _objective(runs: Sequence[Outcome], worlds: Sequence[World]) -> float:
    price = worlds[0].scenario.byte_price
    return float(np.mean([metrics(run, byte_price=price).objective for run in runs]))


class NoForecast:
    """Learns nothing and foresees nothing: static rules do not ask."""

    def observe(self, stage: int, measured_ms: float, now_ms: float) -> None:
        """Nothing."""

    def forecast(self, now_ms: float) -> NoForecast:
        """Itself."""
        return self

    def probability_within(self, first: int, stop: int, limit_ms: float) -> float:
        """Certainty, as a static rule assumes."""
        return 1.0

    def median_ms(self, first: int, stop: int) -> float:
        """No time at all, as a static rule assumes."""
        return 0.0


def best_rule_for_all(
    rows: Sequence[tuple[Sequence[World], Fleet | None]], candidates: Sequence[StaticRule]
) -> StaticRule:
    """The one rule with the best mean objective over all rows, one seed each, among the rows' winners.

    It is tried on the first frames only; a rule that wins nowhere is not considered.
    """
    openings = [(beginnings(worlds, fleet), fleet) for worlds, fleet in rows]

    def mean(rule: StaticRule) -> float:
        return float(
            np.mean([_objective(rule_runs(rule, worlds, fleet), worlds) for worlds, fleet in openings])
        )

    return max(dict.fromkeys(candidates), key=mean)
