"""A study: every policy on every row of a grid, with oracles, differences and their certainty."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgeexit.decide.policies.hindsight import static_rules
from edgeexit.replay.contenders import FLOOR, OWN, contenders
from edgeexit.replay.controller import ControllerFactory
from edgeexit.replay.hindsight import FEW_THRESHOLDS, best_rule_for_all, best_static_rule, rule_runs
from edgeexit.replay.metrics import Metrics, block_interval, gap_closed, metrics
from edgeexit.replay.oracles import Clairvoyance, oracle
from edgeexit.replay.outcome import LATE_COMPUTE, LATE_NETWORK, NEVER_ANSWERED, Outcome
from edgeexit.replay.recording import Recording
from edgeexit.replay.scenarios import GridRow
from edgeexit.replay.simulator import replay
from edgeexit.replay.world import World, world_of

HINDSIGHT = "best-static-in-hindsight"
RULE_FOR_ALL = "best-static-for-all"


@dataclass(frozen=True, slots=True)
class PolicyFigures:
    """One policy on one row, over all seeds. Units: fractions of all frames; bytes a frame; ms."""

    objective: float
    correct_by_deadline: float
    on_time: float
    late_network: float
    late: float
    replaced: float
    remote: float
    bytes_per_frame: float
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    gap_closed: float | None


@dataclass(frozen=True, slots=True)
class Beaten:
    """A baseline that was ahead on a row. Units: points of the objective, with its 95 % interval."""

    scenario: str
    baseline: str
    points: float
    low: float
    high: float

    @property
    def certain(self) -> bool:
        """Whether the interval leaves no room for chance."""
        return self.low > 0.0


@dataclass(frozen=True, slots=True)
class RowFigures:
    """One row of a study.

    `oracle_latency` is O1 on the same device, which must emit a guard before the deadline;
    `oracle_relaxed` is O1 without guard, `oracle_correctness` O2, a bound for every policy.
    `gap_points` is what the first has over the floor, in points; `gap_closed` the policy's share of it
    with its 95 % interval, None where the gap is under half a point; `gain_points` what the policy has
    over the floor. `late_avoidable` is the share of frames that were late although the relaxed oracle
    had an answer in time.
    """

    scenario: str
    board: str
    trace: str
    scale: float
    deadlines: str
    contention: str
    outages: str
    frames: int
    seeds: int
    floor: float
    own: float
    oracle_latency: float
    oracle_relaxed: float
    oracle_correctness: float
    gap_points: float
    gain_points: float
    gain_low: float
    gain_high: float
    gap_closed: float | None
    gap_closed_low: float | None
    gap_closed_high: float | None
    gap_closed_relaxed: float | None
    late_network: int
    late_fraction: float
    late_avoidable: float
    hindsight_rule: str | None
    policies: Mapping[str, PolicyFigures]
    beaten_by: tuple[Beaten, ...]


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

    `more_seeds` are run for these two and the oracles only: shares of small gaps need many frames.
    """
    made = contenders() if policies is None else policies
    figures: list[RowFigures] = []
    for index, row in enumerate(rows):
        if progress is not None:
            progress(index, len(rows), row.scenario.name)
        worlds = [world_of(row.scenario, recording, seed) for seed in seeds]
        more = [world_of(row.scenario, recording, seed) for seed in more_seeds]
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
    """One row in worlds already drawn, one a seed; in `more` only floor, own and oracles are run."""
    scenario = row.scenario
    runs: dict[str, Sequence[Outcome]] = {name: _runs(worlds, make) for name, make in policies.items()}
    rule_name: str | None = None
    if hindsight:
        best = best_static_rule(worlds, thresholds=thresholds)
        runs[HINDSIGHT], rule_name = best.outcomes, best.rule.name
    price = scenario.byte_price
    worth = {name: _worth(outcomes, price) for name, outcomes in runs.items()}
    own_runs = [*runs[OWN], *_runs(more, policies[OWN])]
    floor_runs = [*runs[FLOOR], *_runs(more, policies[FLOOR])]
    everywhere = [*worlds, *more]
    own, floor = _worth(own_runs, price), _worth(floor_runs, price)
    latency = np.concatenate([_oracle_worth(world, guarded=True) for world in everywhere])
    relaxed = [oracle(world, Clairvoyance.LATENCY) for world in everywhere]
    bound = float(np.mean([each.objective(price) for each in relaxed]))
    gap = float((latency - floor).mean())
    gain = block_interval(own - floor)
    closed = gap_closed(float(own.mean()), float(floor.mean()), float(latency.mean()))
    # The shortfall to the oracle is what chance moves; the gap itself is shared by all policies.
    short = block_interval(latency - own)
    late = np.concatenate([_late(outcome) for outcome in own_runs])
    possible = np.concatenate([each.possible for each in relaxed])
    compared = worth[OWN]
    return RowFigures(
        scenario=scenario.name,
        board=row.board,
        trace=row.link,
        scale=scenario.uplink.scale,
        deadlines=row.deadlines,
        contention=row.contention,
        outages=row.outages,
        frames=len(own),
        seeds=len(everywhere),
        floor=float(floor.mean()),
        own=float(own.mean()),
        oracle_latency=float(latency.mean()),
        oracle_relaxed=bound,
        oracle_correctness=float(
            np.mean([oracle(world, Clairvoyance.CORRECTNESS).objective(price) for world in everywhere])
        ),
        gap_points=100.0 * gap,
        gain_points=100.0 * gain.mean,
        gain_low=100.0 * gain.low,
        gain_high=100.0 * gain.high,
        gap_closed=closed,
        gap_closed_low=None if closed is None else 1.0 - short.high / gap,
        gap_closed_high=None if closed is None else 1.0 - short.low / gap,
        gap_closed_relaxed=gap_closed(float(own.mean()), float(floor.mean()), bound),
        late_network=int(sum((outcome.fates == LATE_NETWORK).sum() for outcome in own_runs)),
        late_fraction=float(late.mean()),
        late_avoidable=float((late & possible).mean()),
        hindsight_rule=rule_name,
        policies={
            name: _figures(
                outcomes, price, float(worth[FLOOR].mean()), float(latency[: len(compared)].mean())
            )
            for name, outcomes in runs.items()
        },
        beaten_by=tuple(
            _beaten(scenario.name, name, each - compared)
            for name, each in worth.items()
            if name != OWN and float(each.mean()) > float(compared.mean())
        ),
    )


def with_rule_for_all(
    rows: Sequence[GridRow],
    figures: Sequence[RowFigures],
    recording: Recording,
    *,
    seeds: Sequence[int],
    thresholds: Sequence[float] = FEW_THRESHOLDS,
) -> list[RowFigures]:
    """The same figures with one static rule for all rows among the policies, the best one in hindsight."""
    by_name = {rule.name: rule for rule in static_rules(recording.stage_count, thresholds=thresholds)}
    winners = [by_name[row.hindsight_rule] for row in figures if row.hindsight_rule is not None]
    if not winners:
        return list(figures)
    openings = [world_of(row.scenario, recording, seeds[0]) for row in rows]
    rule = best_rule_for_all(openings, winners)
    own = contenders()[OWN]
    made: list[RowFigures] = []
    for row, figure in zip(rows, figures, strict=True):
        price = row.scenario.byte_price
        worlds = [world_of(row.scenario, recording, seed) for seed in seeds]
        outcomes = rule_runs(rule, worlds)
        ahead = _worth(outcomes, price) - _worth(_runs(worlds, own), price)
        latency = float(np.mean([_oracle_worth(world, guarded=True).mean() for world in worlds]))
        shared = _figures(outcomes, price, figure.policies[FLOOR].objective, latency)
        beaten = figure.beaten_by
        if float(ahead.mean()) > 0.0:
            beaten = (*beaten, _beaten(figure.scenario, RULE_FOR_ALL, ahead))
        made.append(replace(figure, policies={**figure.policies, RULE_FOR_ALL: shared}, beaten_by=beaten))
    return made


def _runs(worlds: Sequence[World], make: ControllerFactory) -> list[Outcome]:
    return [replay(world, make(world.scenario.profile, world.recording)) for world in worlds]


def _worth(outcomes: Sequence[Outcome], price: float) -> NDArray[np.float64]:
    """Objective frame by frame, one seed after the other; probes are spread over all frames."""
    return np.concatenate(
        [
            outcome.value - price * (outcome.uplink_bytes + outcome.probe_bytes / len(outcome.captured_ms))
            for outcome in outcomes
        ]
    )


def _oracle_worth(world: World, *, guarded: bool) -> NDArray[np.float64]:
    each = oracle(world, Clairvoyance.LATENCY, guarded=guarded)
    return each.value - world.scenario.byte_price * each.payload_bytes


def _late(outcome: Outcome) -> NDArray[np.bool_]:
    return np.isin(outcome.fates, (LATE_COMPUTE, LATE_NETWORK, NEVER_ANSWERED))


def _figures(outcomes: Sequence[Outcome], price: float, floor: float, latency: float) -> PolicyFigures:
    each = [metrics(outcome, byte_price=price) for outcome in outcomes]

    def mean(read: Callable[[Metrics], float | None]) -> float:
        return float(np.mean([value for one in each if (value := read(one)) is not None]))

    objective = mean(lambda one: one.objective)
    return PolicyFigures(
        objective=objective,
        correct_by_deadline=mean(lambda one: one.correct_by_deadline),
        on_time=mean(lambda one: one.on_time),
        late_network=mean(lambda one: one.late_network),
        late=mean(lambda one: one.late),
        replaced=mean(lambda one: one.replaced),
        remote=mean(lambda one: one.remote),
        bytes_per_frame=mean(lambda one: one.bytes_per_frame),
        latency_p50_ms=mean(lambda one: one.latency_p50_ms),
        latency_p99_ms=mean(lambda one: one.latency_p99_ms),
        gap_closed=gap_closed(objective, floor, latency),
    )


def _beaten(scenario: str, baseline: str, ahead: NDArray[np.float64]) -> Beaten:
    interval = block_interval(ahead)
    return Beaten(scenario, baseline, 100.0 * interval.mean, 100.0 * interval.low, 100.0 * interval.high)
