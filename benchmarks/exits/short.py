"""The rankings of the ten-minute runs beside those of the long run, in docs/results.md.

    python -m benchmarks.exits.short

It replaces what stands between the page's two marks with tables made of the four published results.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.exits.methods import MID_SHARE
from benchmarks.exits.page import PAGE, RESULT
from benchmarks.exits.summary import BranchRow, MethodRow
from benchmarks.reality.page import replaced
from benchmarks.results import RESULTS

METHODS = RESULTS / "exits-10-minutes-1-seeds-methods.json"
BRANCHES = {
    "classification": RESULTS / "exits-10-minutes-branches-classification.json",
    "regression": RESULTS / "exits-10-minutes-branches-regression.json",
}
BEGIN = "<!-- made by python -m benchmarks.exits.short -->"


class Ranked(msgspec.Struct, frozen=True):
    """What a ranking needs of a result."""

    branches: tuple[BranchRow, ...]
    methods: tuple[MethodRow, ...]


def read(path: Path) -> Ranked:
    """A published result."""
    return msgspec.convert(json.loads(path.read_text(encoding="utf-8")), Ranked)


def method_table(long: Sequence[MethodRow], short: Sequence[MethodRow]) -> list[str]:
    """Budgeted accuracy at mid budget, long and short, best of the long run first."""
    left, right = _mid(long), {row.method: row for row in short}
    places, short_places = _places(left), _places(_mid(short))
    lines = [
        "| method | long run, %, at 53 % | place | ten minutes, %, at 53 % | place | last exit below alone,"
        " points |",
        "|---|---|---|---|---|---|",
    ]
    for name in sorted(left, key=lambda name: places[name]):
        row = right[name]
        loss = row.final_exit_loss_points
        below = "–" if loss is None else f"{loss.mean:.2f}"
        lines.append(
            f"| {name} | {left[name]:.1f} | {places[name]} | {_mid([row])[name]:.1f} | {short_places[name]}"
            f" | {below} |"
        )
    return [*lines, "", f"Rank correlation (Spearman): {_correlation(left, _mid(short)):.2f}."]


def branch_table(task: str, long: Sequence[BranchRow], short: Sequence[BranchRow]) -> list[str]:
    """For each depth the places of all branches, long and short."""
    left, right = (_by_depth([row for row in rows if row.task == task]) for rows in (long, short))
    depths = sorted(left)
    lines = [
        f"| {task}: place, long → ten minutes | " + " | ".join(f"after {depth}" for depth in depths) + " |",
        "|---" * (len(depths) + 1) + "|",
    ]
    places = {depth: (_places(left[depth]), _places(right[depth])) for depth in depths}
    for branch in left[depths[0]]:
        found = " | ".join(f"{places[depth][0][branch]} → {places[depth][1][branch]}" for depth in depths)
        lines.append(f"| {branch} | {found} |")
    found = " | ".join(f"{_correlation(left[depth], right[depth]):.2f}" for depth in depths)
    return [*lines, f"| *rank correlation* | {found} |"]


def _mid(rows: Sequence[MethodRow]) -> dict[str, float]:
    return {
        row.method: next(each.accuracy.mean for each in row.budgeted if each.share == MID_SHARE)
        for row in rows
    }


def _by_depth(rows: Sequence[BranchRow]) -> dict[int, dict[str, float]]:
    """Quality of each branch at each depth; more is better."""
    found: dict[int, dict[str, float]] = {}
    for row in rows:
        if row.accuracy is not None:
            found.setdefault(row.after, {})[row.branch] = row.accuracy.mean
        elif row.mae is not None:
            found.setdefault(row.after, {})[row.branch] = -row.mae.mean
    return found


def _places(quality: Mapping[str, float]) -> dict[str, int]:
    """From 1, the best one."""
    return {name: place for place, name in enumerate(sorted(quality, key=lambda n: -quality[n]), start=1)}


def _correlation(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Spearman's, of what both rank. Shapes: result ()."""
    names = [name for name in one if name in other]
    first, second = (_places({name: each[name] for name in names}) for each in (one, other))
    return float(np.corrcoef([first[n] for n in names], [second[n] for n in names])[0, 1])


def main() -> None:
    """Write the tables."""
    long = read(RESULT)
    lines = ["", *method_table(long.methods, read(METHODS).methods)]
    for task, path in BRANCHES.items():
        lines += ["", *branch_table(task, long.branches, read(path).branches)]
    page = replaced(PAGE.read_text(encoding="utf-8"), "\n".join(lines), BEGIN, PAGE)
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
