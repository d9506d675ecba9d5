"""Exit branches and training methods, ranked on real images.

    python -m benchmarks.exits [--part PART ...] [--method NAME ...] [--minutes M] [--seeds N] [--quick]

Seven branches at four depths of one frozen backbone, for classes and for values; and ways to train a network
with four exits against plain joint training. One thread; every number by seed. What is finished is kept
under build/, so that a killed run goes on and a longer one leaves out what it can. `--minutes` makes each
part take about so many CPU minutes; only a run of every part at full length writes results/exits.json, any
other one a file named for what it was. Targets: final_exit_loss_points ≤ 0.2,
loss_at_53_percent_points ≤ 1.0, best_method_gain_points ≥ 0.5. `python -m benchmarks.exits.page` makes the
tables and plots of docs/results.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks._random_vit import BUILD
from benchmarks.exits.branches import branch_cells
from benchmarks.exits.cells import Cells
from benchmarks.exits.methods import MethodCell, alone_cell, method_cell
from benchmarks.exits.settings import FULL, FULL_SEEDS, PARTS, QUICK, Part, Settings, within
from benchmarks.exits.summary import BranchRow, Figure, MethodRow, branch_rows, figure, keys, method_rows
from benchmarks.exits.tasks import classification, regression
from benchmarks.exits.timing import Timed, timed_parts
from benchmarks.exits.ways import EVERY_WAY, LONGER, WAYS, Way, compared
from benchmarks.results import publish
from edgeexit.errors import EdgeExitError
from edgeexit.models.branch_config import AnswerConfig

FOLDER = BUILD / "exits"


@dataclass(frozen=True, slots=True)
class Result:
    """Key figures in points, with their spread over seeds in the `…_by_seed` fields; None where a part
    was not run. `timed` holds what LiteRT took. A part with fewer seeds than others has the first ones.
    """

    seeds: tuple[int, ...]
    branches: tuple[BranchRow, ...]
    methods: tuple[MethodRow, ...]
    alone: dict[str, Figure]
    final_exit_loss_points: float | None
    loss_at_53_percent_points: float | None
    best_method_gain_points: float | None
    best_method: str | None
    best_taught_method: str | None
    final_exit_loss_by_seed: Figure | None
    loss_at_53_percent_by_seed: Figure | None
    best_method_gain_by_seed: Figure | None
    weighting_gain_by_seed: Figure | None
    settings: dict[str, Settings]
    timed: tuple[Timed, ...]
    threads: int
    date: str


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure and publish."""
    parser = argparse.ArgumentParser(description="exit branches and training methods, ranked")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--method",
        nargs="+",
        choices=[way.name for way in EVERY_WAY],
        help="train only these, and what they are compared with; no branches then",
    )
    parser.add_argument("--minutes", type=float, help="CPU minutes for each part, about")
    parser.add_argument("--seeds", type=int, help="of every part; each part's own number without it")
    parser.add_argument("--longer", action="store_true", help="teach at three times the canvases, too")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it works; ranks nothing")
    parser.add_argument("--untimed", action="store_true", help="convert and time nothing")
    options = parser.parse_args(arguments)
    seeds, minutes, methods = options.seeds, options.minutes, options.method
    parts: list[Part] = options.part if methods is None else ["methods"]
    if not (seeds is None or seeds > 0) or not (minutes is None or 0 < minutes < float("inf")):
        parser.error("--seeds and --minutes must be over 0")
    try:
        result = run(
            parts,
            methods=methods,
            seeds=seeds,
            minutes=minutes,
            longer=options.longer,
            quick=options.quick,
            timed=not options.untimed,
            folder=FOLDER,
        )
    except EdgeExitError as error:
        fix = "" if error.fix is None else f"\n  fix: {error.fix}"
        sys.exit(f"error: {error}{fix}")
    publish(
        result_name(
            parts,
            methods=methods,
            seeds=seeds,
            minutes=minutes,
            longer=options.longer,
            quick=options.quick,
        ),
        result,
    )


def run(
    parts: Sequence[Part],
    *,
    methods: Sequence[str] | None,
    seeds: int | None,
    minutes: float | None,
    longer: bool,
    quick: bool,
    timed: bool,
    folder: Path,
) -> Result:
    """These parts with seeds from 0 on, so many or each part's own number; of the methods all, or those named
    and what they are compared with. Raises: EdgeExitError.
    """
    torch.set_num_threads(1)
    began_s = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - began_s:6.0f} s  {line}", flush=True)

    cells = Cells(folder, say)
    counts = {part: FULL_SEEDS[part] if seeds is None else seeds for part in parts}
    chosen = {part: _settings(part, counts[part], minutes, quick) for part in parts}
    spent = _timed(chosen, cells) if timed and any(part != "methods" for part in parts) else ()
    branches: list[BranchRow] = []
    rows: tuple[MethodRow, ...] = ()
    alone: dict[str, Figure] = {}
    for part, settings in chosen.items():
        if part == "methods":
            ways = compared(methods) if methods is not None else EVERY_WAY if longer else WAYS
            rows, alone = _methods(ways, settings, counts[part], cells, beside=methods is None)
            continue
        make = classification if part == "branches-classification" else regression
        by_seed = [branch_cells(settings, make(settings, seed), seed, cells) for seed in range(counts[part])]
        branches += branch_rows(part.removeprefix("branches-"), by_seed, spent)
    # Some of the methods alone have no best one.
    found = keys(rows) if rows and methods is None else None
    return Result(
        tuple(range(max(counts.values()))),
        tuple(branches),
        rows,
        alone,
        None if found is None else found.final_exit_loss_points.mean,
        None if found is None else found.loss_at_53_percent_points.mean,
        None if found is None else found.best_method_gain_points.mean,
        None if found is None else found.best_method,
        None if found is None else found.best_taught,
        None if found is None else found.final_exit_loss_points,
        None if found is None else found.loss_at_53_percent_points,
        None if found is None else found.best_method_gain_points,
        None if found is None else found.weighting_gain_points,
        dict(chosen.items()),
        spent,
        torch.get_num_threads(),
        time.strftime("%Y-%m-%d", time.gmtime()),
    )


def result_name(
    parts: Sequence[str],
    *,
    methods: Sequence[str] | None,
    seeds: int | None,
    minutes: float | None,
    longer: bool,
    quick: bool,
) -> str:
    """The file that a run writes: only the whole one at full length is the published result."""
    length = "quick" if quick else None if minutes is None else f"{minutes:g}-minutes"
    count = None if seeds is None else f"{seeds}-seeds"
    more = "longer" if longer else None
    some = () if set(parts) == set(PARTS) else sorted(methods or parts)
    return "-".join(word for word in ("exits", length, count, more, *some) if word is not None)


def _settings(part: Part, seeds: int, minutes: float | None, quick: bool) -> Settings:
    if quick:
        return QUICK
    return FULL if minutes is None else within(minutes, part, seeds)


def _methods(
    ways: Sequence[Way], settings: Settings, seeds: int, cells: Cells, *, beside: bool
) -> tuple[tuple[MethodRow, ...], dict[str, Figure]]:
    """Rows of these ways, and with `beside` the backbones alone that their last exits are compared with."""
    found: dict[str, list[MethodCell]] = {way.name: [] for way in ways}
    factors = {way.alone: LONGER if way.alone == "alone_longer" else 1 for way in ways}
    alone: dict[str, list[MethodCell]] = {name: [] for name in factors if beside and name is not None}
    for seed in range(seeds):
        task = classification(settings, seed)
        for way in ways:
            found[way.name].append(method_cell(way, settings, task, seed, cells))
        for name, each in alone.items():
            each.append(alone_cell(settings, task, seed, cells, factors[name]))
    accuracies = {
        name: figure([100.0 * (cell.exits[0].accuracy or 0.0) for cell in each])
        for name, each in alone.items()
    }
    return method_rows(alone, found), accuracies


def _timed(chosen: dict[Part, Settings], cells: Cells) -> tuple[Timed, ...]:
    settings = next(iter(chosen.values()))
    answers = {
        "classification": AnswerConfig("classification", 10),
        "regression": AnswerConfig("regression"),
    }
    return cells.once(
        "timed",
        [settings.network, {task: asdict(answer) for task, answer in answers.items()}],
        tuple[Timed, ...],
        lambda: timed_parts(settings, answers, cells.folder / "tflite", cells.say),
    )


if __name__ == "__main__":
    main()
