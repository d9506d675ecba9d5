"""From single trainings to rows: mean, standard deviation over seeds, paired differences, key figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from benchmarks.exits.branches import BranchCell
from benchmarks.exits.methods import MID_SHARE, SHARES, Learning, MethodCell
from benchmarks.exits.timing import BLOCK, EMBEDDING, Timed
from benchmarks.exits.ways import EVERY_WAY, Way


@dataclass(frozen=True, slots=True)
class Figure:
    """Mean and standard deviation over seeds, None with one seed, and what each seed gave."""

    mean: float
    sd: float | None
    each: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class BranchRow:
    """One branch at one depth. Of accuracy (percent) and mean absolute error (items) one is None.

    Units: macs and ms of the branch alone; macs_to_exit and ms_to_exit with the backbone before it, no
    other exit counted; blocks, ms as a multiple of one block's.
    """

    task: str
    branch: str
    after: int
    accuracy: Figure | None
    mae: Figure | None
    macs: int
    macs_to_exit: int
    parameters: int
    ms: float | None
    blocks: float | None
    ms_to_exit: float | None
    training_cpu_s: float


@dataclass(frozen=True, slots=True)
class ExitRow:
    """One exit of a method. Units: accuracy in percent, calibration error as a fraction."""

    macs: int
    accuracy: Figure
    calibration_error: Figure


@dataclass(frozen=True, slots=True)
class Budgeted:
    """Accuracy, in percent, when images may on average cost this share of the whole network."""

    share: float
    accuracy: Figure
    gain_points: Figure


@dataclass(frozen=True, slots=True)
class MethodRow:
    """One way to train. Gains are paired by seed: over the plain joint training named in `against`, and
    over that by Muon on as many canvases.

    `final_exit_loss_points` is the accuracy of the backbone trained alone on as many canvases less that of
    the last exit; `loss_at_53_percent_points` the last exit's less the budgeted one at 53 % of its cost.
    `curve` is the mean over seeds, setting by setting. Units: percent and points; samples, canvases;
    updates, steps of the optimiser.
    """

    method: str
    words: str
    optimizer: str
    against: str
    samples: int
    updates: int
    cpu_s: float | None
    exits: tuple[ExitRow, ...]
    budgeted: tuple[Budgeted, ...]
    held_out_mid: Figure
    held_out_gain_points: Figure
    gain_points: Figure
    gain_over_joint_points: Figure
    final_exit_loss_points: Figure | None
    loss_at_53_percent_points: Figure
    curve: tuple[tuple[float, float], ...]
    learning: tuple[tuple[Learning, ...], ...]


@dataclass(frozen=True, slots=True)
class Keys:
    """The key figures, in points; None where the methods were not run. `best_method` and `best_taught`
    were chosen on held-out canvases; the gain is over plain joint training by Muon on as many canvases.

    `weighting_gain_points` is L2W-DEN's over the plain joint training of its own optimiser.
    """

    best_method: str
    best_taught: str
    final_exit_loss_points: Figure
    loss_at_53_percent_points: Figure
    best_method_gain_points: Figure
    weighting_gain_points: Figure


def figure(values: Sequence[float], digits: int = 3) -> Figure:
    """Over seeds."""
    return Figure(
        round(fmean(values), digits),
        round(stdev(values), digits) if len(values) > 1 else None,
        tuple(round(value, digits) for value in values),
    )


def branch_rows(
    task: str, by_seed: Sequence[Sequence[BranchCell]], timed: Sequence[Timed]
) -> tuple[BranchRow, ...]:
    """One row for each branch and depth. Shapes: by_seed (seeds, rows), rows in one order."""
    spent = {(each.part, each.task): each for each in timed}
    embedding, block = spent.get((EMBEDDING, None)), spent.get((BLOCK, None))
    rows: list[BranchRow] = []
    for cells in zip(*by_seed, strict=True):
        first = cells[0]
        own = spent.get((first.branch, task))
        whole = None
        if own is not None and embedding is not None and block is not None:
            whole = round(embedding.ms + first.after * block.ms + own.ms, 5)
        values = task == "regression"
        rows.append(
            BranchRow(
                task,
                first.branch,
                first.after,
                None if values else figure([100.0 * cell.quality for cell in cells]),
                figure([cell.quality for cell in cells], 4) if values else None,
                first.macs,
                first.macs_before + first.macs,
                first.parameters,
                None if own is None else own.ms,
                None if own is None else own.ratio,
                whole,
                round(fmean(cell.cpu_s for cell in cells), 2),
            )
        )
    return tuple(rows)


def method_rows(
    alone: Mapping[str, Sequence[MethodCell]], found: Mapping[str, Sequence[MethodCell]]
) -> tuple[MethodRow, ...]:
    """One row for each way. Shapes: each of alone and found (seeds,)."""
    ways = [way for way in EVERY_WAY if way.name in found]
    return tuple(_method_row(way, alone, found) for way in ways)


def keys(rows: Sequence[MethodRow]) -> Keys:
    """The key figures; every choice by accuracy held out."""
    # What had more canvases than any backbone alone is no method of its own.
    compared = [row for row in rows if row.final_exit_loss_points is not None]
    best = max(compared, key=lambda row: row.held_out_mid.mean)
    assert best.final_exit_loss_points is not None  # as just chosen
    taught_names = {way.name for way in EVERY_WAY if way.taught}
    taught = [row for row in compared if row.method in taught_names]
    best_taught = max(taught, key=lambda row: row.held_out_mid.mean)
    weighed = next(row for row in rows if row.method == "l2w_den")
    return Keys(
        best.method,
        best_taught.method,
        best.final_exit_loss_points,
        best.loss_at_53_percent_points,
        best_taught.gain_over_joint_points,
        weighed.gain_points,
    )


def _method_row(
    way: Way, alone: Mapping[str, Sequence[MethodCell]], found: Mapping[str, Sequence[MethodCell]]
) -> MethodRow:
    cells, plain, joint = found[way.name], found[way.against], found[way.joint]
    mid = SHARES.index(MID_SHARE)
    return MethodRow(
        way.name,
        way.words,
        way.optimizer if way.optimizer != "sgd" else "muon, then sgd",
        way.against,
        cells[0].samples,
        cells[0].updates,
        _mean_cpu_s(cells),
        tuple(
            ExitRow(
                cells[0].exits[k].macs,
                figure([_percent(cell, k) for cell in cells]),
                figure([cell.exits[k].calibration_error for cell in cells], 4),
            )
            for k in range(len(cells[0].exits))
        ),
        tuple(
            Budgeted(
                share,
                figure([100.0 * cell.budgeted[i] for cell in cells]),
                figure([100.0 * (a.budgeted[i] - b.budgeted[i]) for a, b in zip(cells, plain, strict=True)]),
            )
            for i, share in enumerate(SHARES)
        ),
        figure([100.0 * cell.held_out_mid for cell in cells]),
        figure([100.0 * (a.held_out_mid - b.held_out_mid) for a, b in zip(cells, joint, strict=True)]),
        figure([100.0 * (a.budgeted[mid] - b.budgeted[mid]) for a, b in zip(cells, plain, strict=True)]),
        figure([100.0 * (a.budgeted[mid] - b.budgeted[mid]) for a, b in zip(cells, joint, strict=True)]),
        None
        if way.alone is None or way.alone not in alone
        else figure(
            [_percent(a, -1) - _percent(b, -1) for a, b in zip(alone[way.alone], cells, strict=True)]
        ),
        figure([_percent(cell, -1) - 100.0 * cell.budgeted[mid] for cell in cells]),
        tuple(
            (round(fmean(macs for macs, _ in points)), round(100.0 * fmean(right for _, right in points), 2))
            for points in zip(*(cell.curve for cell in cells), strict=True)
        ),
        tuple(cell.learning for cell in cells),
    )


def _percent(cell: MethodCell, exit_number: int) -> float:
    accuracy = cell.exits[exit_number].accuracy
    assert accuracy is not None  # the methods are compared on classes
    return 100.0 * accuracy


def _mean_cpu_s(cells: Sequence[MethodCell]) -> float | None:
    known = [cell.cpu_s for cell in cells if cell.cpu_s is not None]
    return round(fmean(known), 1) if len(known) == len(cells) else None
