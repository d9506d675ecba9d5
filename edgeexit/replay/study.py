"""A study: every policy on every row of a grid, with oracles, differences and their certainty."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgeexit.decide.policies.hindsight import StaticRule, static_rules
from edgeexit.replay.comparison import Beaten, beaten, may_be_ahead, worth
from edgeexit.replay.contenders import FLOOR, OWN, contenders
from edgeexit.replay.controller import ControllerFactory
from edgeexit.replay.fleets import made_by, row_oracle, row_own_latencies, row_runs, row_worlds
from edgeexit.replay.hindsight import FEW_THRESHOLDS, best_rule_for_all, best_static_rule, rule_runs
from edgeexit.replay.metrics import block_error, block_interval, gap_closed, gap_closed_error
from edgeexit.replay.oracles import Clairvoyance, oracle
from edgeexit.replay.outcome import LATE_COMPUTE, LATE_CUT, LATE_NETWORK, NEVER_ANSWERED, Outcome
from edgeexit.replay.recording import Recording
from edgeexit.replay.scenarios import GridRow
from edgeexit.replay.study_figures import RowFigures, policy_figures
from edgeexit.replay.world import World

HINDSIGHT = "best-static-in-hindsight"
RULE_FOR_ALL = "best-static-for-all"


Progress = Callable[[int, int, str], None]
"""Called with rows done, rows in all, and the row's name."""


def run_study(
    rows: Sequence[GridRow],
    recording: Recording,
    *,
    seeds: Sequence[int],
    more_seeds: Sequence[int] = (),
    policies: Mapping[str, ControllerFactory] | None = None,
    hindsight: bool = True,
    thresholds: Sequence[float] = FEW_THRESHOLDS,
    progress: Progress | None = None,
) -> list[RowFigures]:
    """All rows. `policies` must hold the floor and the project's own; all contenders where not given.

    `more_seeds` are run for these two and the oracles, since shares of small gaps need many frames, and
    for every policy that the first ones do not show to be behind.
    """
    made = contenders() if policies is None else policies
    figures: list[RowFigures] = []
    for index, row in enumerate(rows):
        if progress is not None:
            progress(index, len(rows), row.scenario.name)
        worlds = row_worlds(row, recording, seeds)
        more = row_worlds(row, recording, more_seeds)
        figures.append(study_row(row, worlds, made, more=more, hindsight=hindsight, thresholds=thresholds))
    if progress is not None:
        progress(len(rows), len(rows), "")
    return figures


def study_row(
    row: GridRow,
    worlds: Sequence[World],
    policies: Mapping[str, ControllerFactory],
    *,
    more: Sequence[World] = (),
    hindsight: bool = True,
    thresholds: Sequence[float] = FEW_THRESHOLDS,
) -> RowFigures:
    """One row in worlds already drawn; `more` ones are for what the first leave open."""
    scenario, fleet = row.scenario, row.fleet
    runs: dict[str, Sequence[Outcome]] = {
        name: row_runs(worlds, made_by(make), fleet) for name, make in policies.items()
    }
    rule: StaticRule | None = None
    if hindsight:
        best = best_static_rule(worlds, thresholds=thresholds, fleet=fleet)
        runs[HINDSIGHT], rule = best.outcomes, best.rule
    price = scenario.byte_price
    everywhere = [*worlds, *more]
    first = worth(runs[OWN], price)
    whole: dict[str, Sequence[Outcome]] = {}
    for name, outcomes in runs.items():
        open_yet = name in (OWN, FLOOR) or may_be_ahead(worth(outcomes, price), first)
        if not (more and open_yet):
            whole[name] = outcomes
        elif name in policies:
            whole[name] = [*outcomes, *row_runs(more, made_by(policies[name]), fleet)]
        elif rule is not None:
            whole[name] = [*outcomes, *rule_runs(rule, more, fleet)]
    own_runs, floor_runs = whole[OWN], whole[FLOOR]
    own, floor = worth(own_runs, price), worth(floor_runs, price)
    latency = _oracle_worth(everywhere, row)
    relaxed = [oracle(world, Clairvoyance.LATENCY) for world in everywhere]
    bound = float(np.mean([each.objective(price) for each in relaxed]))
    gap = float((latency - floor).mean())
    gain = block_interval(own - floor)
    closed = gap_closed(float(own.mean()), float(floor.mean()), float(latency.mean()))
    # The shortfall to the oracle is what chance moves; the gap itself is shared by all policies.
    short = block_interval(latency - own)
    known: float | None = None
    if fleet is not None:
        alone = row_own_latencies(everywhere, made_by(policies[OWN]), fleet)
        known = float(worth(alone, price).mean())
    freed = [world.with_free_decisions() for world in everywhere]
    quick = worth(row_runs(freed, made_by(policies[OWN]), fleet), price)
    late = np.concatenate([_late(outcome) for outcome in own_runs])
    possible = np.concatenate([each.possible for each in relaxed])
    floor_first = float(floor[: len(first)].mean())
    return RowFigures(
        scenario=scenario.name,
        board=row.board,
        trace=row.link,
        scale=scenario.uplink.scale,
        deadlines=row.deadlines,
        contention=row.contention,
        outages=row.outages,
        fleet=None if fleet is None else fleet.name,
        frames=len(own),
        seeds=len(everywhere) // (1 if fleet is None else fleet.devices),
        floor=float(floor.mean()),
        own=float(own.mean()),
        oracle_latency=float(latency.mean()),
        oracle_relaxed=bound,
        oracle_correctness=float(
            np.mean([oracle(world, Clairvoyance.CORRECTNESS).objective(price) for world in everywhere])
        ),
        gap_points=100.0 * gap,
        gap_error=100.0 * block_error(latency - floor),
        gain_points=100.0 * gain.mean,
        gain_low=100.0 * gain.low,
        gain_high=100.0 * gain.high,
        gap_closed=closed,
        gap_closed_low=None if closed is None else 1.0 - short.high / gap,
        gap_closed_high=None if closed is None else 1.0 - short.low / gap,
        gap_closed_error=gap_closed_error(own, floor, latency),
        gap_closed_relaxed=gap_closed(float(own.mean()), float(floor.mean()), bound),
        gap_closed_free_decisions=gap_closed(float(quick.mean()), float(floor.mean()), float(latency.mean())),
        oracle_own_latencies=known,
        gap_closed_own_latencies=(
            None if known is None else gap_closed(float(own.mean()), float(floor.mean()), known)
        ),
        late_network=int(sum((outcome.fates == LATE_NETWORK).sum() for outcome in own_runs)),
        late_cut=int(sum((outcome.fates == LATE_CUT).sum() for outcome in own_runs)),
        late_fraction=float(late.mean()),
        late_avoidable=float((late & possible).mean()),
        hindsight_rule=None if rule is None else rule.name,
        policies={
            name: policy_figures(outcomes, price, floor_first, float(latency[: len(first)].mean()))
            for name, outcomes in runs.items()
        },
        beaten_by=_ahead(scenario.name, whole, price, chosen_on=len(worlds)),
    )


def _ahead(
    scenario: str, runs: Mapping[str, Sequence[Outcome]], price: float, *, chosen_on: int
) -> tuple[Beaten, ...]:
    """The baselines that were ahead, each on all of its runs."""
    found: list[Beaten] = []
    for name, theirs in runs.items():
        seen = chosen_on if name in (HINDSIGHT, RULE_FOR_ALL) else 0
        own = runs[OWN][: len(theirs)]
        each = None if name == OWN else beaten(scenario, name, theirs, own, price=price, chosen_on=seen)
        if each is not None:
            found.append(each)
    return tuple(found)


def with_rule_for_all(
    rows: Sequence[GridRow],
    figures: Sequence[RowFigures],
    recording: Recording,
    *,
    seeds: Sequence[int],
    more_seeds: Sequence[int] = (),
    thresholds: Sequence[float] = FEW_THRESHOLDS,
) -> list[RowFigures]:
    """The same figures with one static rule for all rows among the policies, the best one in hindsight."""
    by_name = {rule.name: rule for rule in static_rules(recording.stage_count, thresholds=thresholds)}
    winners = [by_name[row.hindsight_rule] for row in figures if row.hindsight_rule is not None]
    if not winners:
        return list(figures)
    openings = [(row_worlds(row, recording, seeds[:1]), row.fleet) for row in rows]
    rule = best_rule_for_all(openings, winners)
    make = made_by(contenders()[OWN])
    made: list[RowFigures] = []
    for row, figure in zip(rows, figures, strict=True):
        price = row.scenario.byte_price
        worlds = row_worlds(row, recording, seeds)
        theirs, own = rule_runs(rule, worlds, row.fleet), row_runs(worlds, make, row.fleet)
        latency = float(_oracle_worth(worlds, row).mean())
        shared = policy_figures(theirs, price, figure.policies[FLOOR].objective, latency)
        if more_seeds and may_be_ahead(worth(theirs, price), worth(own, price)):
            more = row_worlds(row, recording, more_seeds)
            theirs = (*theirs, *rule_runs(rule, more, row.fleet))
            own = [*own, *row_runs(more, make, row.fleet)]
        ahead = _ahead(figure.scenario, {OWN: own, RULE_FOR_ALL: theirs}, price, chosen_on=len(worlds))
        made.append(
            replace(
                figure,
                policies={**figure.policies, RULE_FOR_ALL: shared},
                beaten_by=(*figure.beaten_by, *ahead),
            )
        )
    return made


def _oracle_worth(worlds: Sequence[World], row: GridRow) -> NDArray[np.float64]:
    price = row.scenario.byte_price
    return np.concatenate([each.value - price * each.payload_bytes for each in row_oracle(worlds, row.fleet)])


def _late(outcome: Outcome) -> NDArray[np.bool_]:
    return np.isin(outcome.fates, (LATE_COMPUTE, LATE_NETWORK, LATE_CUT, NEVER_ANSWERED))
