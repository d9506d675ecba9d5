"""How good the decisions are: the policy, every baseline and the oracles over recorded networks.

    python -m benchmarks.decision_quality [--traces DIR] [--seed N] [--recording FILE] [--full]

Recorded answers of the demo's bundle are replayed at the costs of three boards (ViT-Tiny as published
for a Raspberry Pi 4 and 5, and the demo's own network slowed to a Pi 4), over every kind of link given,
under changing deadlines, contention and outages. Constants of the policy were tuned on development
traces only; figures are of evaluation traces: of each folder every second file by name, the first
included, is for development. Traces that are no uplinks by name are scaled by 1/3, an assumption.

gap_closed is (policy - floor) / (O1 - floor): the floor is the anytime local policy, O1 knows all
latencies beforehand and keeps the device's guard before the deadline; gap_closed_relaxed is the same
against an O1 without guard and with the best of all round trips drawn. In a row of many devices O1 also
knows the queue that the fleet itself makes, which hangs on what all others will do, and reserves the
gateway by it; min_gap_closed_single leaves those rows out, and min_gap_closed_attainable compares them
with devices that know their own latencies beforehand and meet the queue as it comes.
min_gap_closed is of all rows with a gap above one point; min_gap_closed_first_come is of the one row among
them whose gateway serves first come, first served, where ours serve the earliest deadline first and pause
between stages.
Targets: mean_gap_closed ≥ 0.95 over rows with a gap above one point, min_gap_closed ≥ 0.85,
worst_loss_points ≤ 0.2 where the gap is smaller, late_network 0, late_fraction ≤ 0.005 under contention,
decision_us_p50 ≤ 30, estimator_us_p50 ≤ 20. Each row tells the standard errors of its gap and of its share.
A row whose interval holds a target, on whichever side its mean lies, is run four times as long
(longer_rows), and all its frames count.

beaten_by names every baseline that was ahead on a row, with an interval and a cause: chance, or where
the difference arose. A baseline that the first seeds do not show to be behind is run on all of them.
Of compared_pairs some two in a hundred lie above their 95 % interval by chance alone.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.decision_inputs import DEMO, boards_of, links_of, recording_at
from benchmarks.results import publish
from edgeexit.cli.present import exit_code, show_error
from edgeexit.decide.policies.hindsight import THRESHOLDS
from edgeexit.errors import EdgeExitError
from edgeexit.replay.comparison import Beaten
from edgeexit.replay.contenders import FLOOR, OWN, contenders
from edgeexit.replay.fleets import fleet_rows, quickest
from edgeexit.replay.hindsight import FEW_THRESHOLDS
from edgeexit.replay.pool import QueueOrder
from edgeexit.replay.recording import Recording
from edgeexit.replay.scenarios import GridRow, standard_grid
from edgeexit.replay.simulator import simulate
from edgeexit.replay.study import run_study, with_rule_for_all
from edgeexit.replay.study_figures import RowFigures
from edgeexit.replay.timing import Costs, timed

# Below this gap between floor and oracle, in points, losses are counted instead of shares.
COUNTED_GAP = 1.0
# Aims of single rows, which decide whether a row is run longer; and how much longer, which halves its errors.
LEAST_SHARE = 0.85
MOST_LOSS_POINTS = 0.2
LONGER = 4
# Times as many runs of the policy, the floor, the oracles and whatever may be ahead as of the others:
# shares of gaps of a point need many frames.
MORE_SEEDS = 4
TIMED_FRAMES = 1500


@dataclass(frozen=True, slots=True)
class Result:
    """Units: points of the objective; late_network and late_cut, frames; fractions of frames; µs.

    `late_cut` counts frames whose budget was cut to less than had already passed; no other cause counts
    such a frame. `min_gap_closed` is of all rows, `min_gap_closed_first_come` of those whose gateway serves
    first come, first served, as ours do not; `min_gap_closed_single` of those with one
    device; `min_gap_closed_attainable` of all, where fleets are compared with devices that know no more
    than their own latencies. `longer_rows` counts rows that were run longer than others.
    `late_fraction` counts frames that were late although an answer in time was possible, in rows with
    contention; `late_fraction_all` all late frames there, `late_fraction_floor` those of the floor.
    """

    mean_gap_closed: float | None
    min_gap_closed: float | None
    min_gap_closed_first_come: float | None
    min_gap_closed_single: float | None
    min_gap_closed_attainable: float | None
    mean_gap_closed_relaxed: float | None
    worst_loss_points: float
    late_network: int
    late_cut: int
    late_fraction: float
    late_fraction_all: float
    late_fraction_floor: float
    decision_us_p50: float
    decision_us_p99: float
    estimator_us_p50: float
    beaten_by: tuple[Beaten, ...]
    beaten_certainly: int
    compared_pairs: int
    counted_rows: int
    longer_rows: int
    recording: str
    recorded_data: str
    samples: int
    seeds: int
    frames_a_seed: int
    development_traces: tuple[str, ...]
    evaluation_traces: tuple[str, ...]
    seconds: float
    scenarios: tuple[RowFigures, ...]


def main() -> None:
    """Run the study and publish it."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.decision_quality",
        description="The policy, every baseline and the oracles over recorded networks.",
    )
    parser.add_argument(
        "--traces",
        type=Path,
        help="folder of traces, or one: mahimahi, pensieve or sabre, told by content; those beside the "
        "checkout without",
    )
    parser.add_argument("--seed", type=int, default=1, help="first seed of chance (1)")
    parser.add_argument(
        "--seeds",
        type=int,
        help=f"seeds on which all policies run (2; 5 with --full); what is not behind runs on {MORE_SEEDS} "
        "times as many",
    )
    parser.add_argument("--frames", type=int, help="frames of a run (800; 2000 with --full)")
    parser.add_argument(
        "--recording",
        type=Path,
        default=DEMO / "recording.safetensors",
        help="a file made by edgeexit record; the demo's without",
    )
    parser.add_argument("--processes", type=int, help="rows computed at a time (one a core)")
    parser.add_argument("--full", action="store_true", help="every axis on every link, for hours")
    parser.add_argument("--development", action="store_true", help="the development traces, for tuning")
    asked = parser.parse_args()
    try:
        publish("decision_quality", measure(asked))
    except EdgeExitError as error:
        show_error(error, as_json=False)
        raise SystemExit(exit_code(error)) from None


def measure(asked: argparse.Namespace) -> Result:
    """The whole study, as asked for on the command line. Raises: EdgeExitError."""
    began_s = perf_counter()
    recording = recording_at(asked.recording, _say)
    links, development = links_of(asked.traces, development=asked.development, full=asked.full)
    frames: int = asked.frames or (2000 if asked.full else 800)
    count = asked.seeds or (5 if asked.full else 2)
    seeds = range(asked.seed, asked.seed + count)
    more_seeds = range(asked.seed + count, asked.seed + MORE_SEEDS * count)
    boards = boards_of(recording)
    rows = standard_grid(boards, links, frames=frames, full=asked.full)
    rows += fleet_rows(boards[0], quickest(links), frames=frames)
    thresholds = THRESHOLDS if asked.full else FEW_THRESHOLDS
    study = Study(rows, recording, seeds, more_seeds, thresholds)
    figures = study.figures(asked.processes or len(os.sched_getaffinity(0)))
    _say("one static rule for all rows", True)
    figures = with_rule_for_all(
        rows, figures, recording, seeds=seeds, more_seeds=more_seeds, thresholds=thresholds
    )
    costs = _costs(rows, recording, asked.seed)
    usual = min(row.seeds for row in figures)
    counted = [row for row in figures if row.gap_points > COUNTED_GAP and row.gap_closed is not None]
    closed = [row.gap_closed for row in counted if row.gap_closed is not None]
    relaxed = [row.gap_closed_relaxed for row in counted if row.gap_closed_relaxed is not None]
    small = [row for row in figures if row.gap_points <= COUNTED_GAP]
    loaded = [row for row in figures if row.contention != "none"]
    beaten = tuple(each for row in figures for each in row.beaten_by)
    _show(figures)
    for each in beaten:
        if each.certain:
            points = f"{each.points:+.2f} ({each.low:+.2f} to {each.high:+.2f}) points"
            print(f"{each.scenario}: {each.baseline} is {points} ahead; {each.cause}")
    return Result(
        mean_gap_closed=_rounded(np.mean(closed)) if closed else None,
        min_gap_closed=_least(counted, lambda row: row.gap_closed),
        min_gap_closed_first_come=_least(counted, lambda row: row.gap_closed if _first_come(row) else None),
        min_gap_closed_single=_least(counted, lambda row: None if row.fleet else row.gap_closed),
        min_gap_closed_attainable=_least(
            counted, lambda row: row.gap_closed_own_latencies if row.fleet else row.gap_closed
        ),
        mean_gap_closed_relaxed=_rounded(np.mean(relaxed)) if relaxed else None,
        worst_loss_points=_rounded(max([0.0, *(-row.gain_points for row in small)])),
        late_network=sum(row.late_network for row in figures),
        late_cut=sum(row.late_cut for row in figures),
        late_fraction=_mean([row.late_avoidable for row in loaded]),
        late_fraction_all=_mean([row.late_fraction for row in loaded]),
        late_fraction_floor=_mean([row.policies[FLOOR].late for row in loaded]),
        decision_us_p50=_rounded(np.median(costs.decision_us)),
        decision_us_p99=_rounded(np.percentile(costs.decision_us, 99)),
        estimator_us_p50=_rounded(np.median(costs.update_us)),
        beaten_by=beaten,
        beaten_certainly=sum(each.certain for each in beaten),
        compared_pairs=sum(len(row.policies) - 1 for row in figures),
        counted_rows=len(counted),
        longer_rows=sum(row.seeds > usual for row in figures),
        recording=recording.note.name,
        recorded_data=recording.note.data,
        samples=recording.sample_count,
        seeds=len(seeds),
        frames_a_seed=frames,
        development_traces=development,
        evaluation_traces=tuple(link.name for link in links),
        seconds=_rounded(perf_counter() - began_s),
        scenarios=tuple(figures),
    )


@dataclass(frozen=True, slots=True)
class Study:
    """Rows that several processes share out; each row is the same whoever computes it."""

    rows: Sequence[GridRow]
    recording: Recording
    seeds: Sequence[int]
    more_seeds: Sequence[int]
    thresholds: Sequence[float]

    def figures(self, processes: int) -> list[RowFigures]:
        """All rows, in order."""
        indices = range(len(self.rows))
        if processes == 1:
            return [self.row(index) for index in indices]
        # Spawned, not forked: who imports this may have threads, whose locks a fork would copy as they stand.
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            return list(pool.map(self.row, indices))

    def row(self, index: int) -> RowFigures:
        """One row."""
        row = self.rows[index]
        _say(f"row {index + 1}/{len(self.rows)}: {row.scenario.name}", True)
        figures = run_study(
            [row],
            self.recording,
            seeds=self.seeds,
            more_seeds=self.more_seeds,
            thresholds=self.thresholds,
        )[0]
        return figures if settled(figures) else self._longer(row, figures)

    def _longer(self, row: GridRow, figures: RowFigures) -> RowFigures:
        """The row anew, over more frames; what was found of other policies stays."""
        first = self.seeds[0]
        count = LONGER * (len(self.seeds) + len(self.more_seeds))
        made = contenders()
        longer = run_study(
            [row],
            self.recording,
            seeds=range(first, first + count),
            policies={name: made[name] for name in (OWN, FLOOR)},
            hindsight=False,
        )[0]
        return replace(
            longer,
            policies=figures.policies,
            beaten_by=figures.beaten_by,
            hindsight_rule=figures.hindsight_rule,
        )


def settled(row: RowFigures) -> bool:
    """Whether chance leaves it open on which side of its target a row lies."""
    if row.gap_points <= COUNTED_GAP:
        return not row.gain_low < -MOST_LOSS_POINTS < row.gain_high
    if row.gap_closed is None or row.gap_closed_error is None:
        return True
    return abs(row.gap_closed - LEAST_SHARE) > 2.0 * row.gap_closed_error


def _first_come(row: RowFigures) -> bool:
    return row.fleet is not None and QueueOrder.FIRST_COME.value in row.fleet


def _costs(rows: Sequence[GridRow], recording: Recording, seed: int) -> Costs:
    """What deciding and learning cost here, on the first row."""
    costs = Costs()
    first = rows[0].scenario
    simulate(first, recording, timed(contenders()[OWN], costs, perf_counter), seed)
    while len(costs.decision_us) < TIMED_FRAMES:
        simulate(first, recording, timed(contenders()[OWN], costs, perf_counter), seed)
    return costs


def _say(text: str, worth: bool) -> None:
    if worth:
        print(text, file=sys.stderr, flush=True)


def _show(figures: Sequence[RowFigures]) -> None:
    print(
        f"{'scenario':<72} {'floor':>6} {'own':>6} {'O1':>6} {'O2':>6} {'closed':>7}  best baseline, points"
    )
    for row in figures:
        others = {name: each for name, each in row.policies.items() if name != OWN}
        best = max(others, key=lambda name: others[name].objective)
        closed = "      –" if row.gap_closed is None else f"{row.gap_closed:>7.3f}"
        points = (row.floor, row.own, row.oracle_latency, row.oracle_correctness)
        ahead = 100.0 * (others[best].objective - row.policies[OWN].objective)
        print(
            f"{row.scenario:<72} "
            + " ".join(f"{100.0 * each:>6.2f}" for each in points)
            + f" {closed}  {best} {ahead:+.2f}"
        )


def _least(rows: Sequence[RowFigures], read: Callable[[RowFigures], float | None]) -> float | None:
    known = [value for row in rows if (value := read(row)) is not None]
    return _rounded(min(known)) if known else None


def _mean(values: Sequence[float]) -> float:
    return _rounded(np.mean(values)) if values else 0.0


def _rounded(value: float | np.floating) -> float:
    return round(float(value), 5)


if __name__ == "__main__":
    main()
