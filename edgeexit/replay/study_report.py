"""The report of a study: all figures as JSON, and one page with the plots people would look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from edgeexit.replay.contenders import FLOOR, OWN
from edgeexit.replay.page import Section, Table, Tile, page, write_page
from edgeexit.replay.plots_study import (
    plot_by_deadline,
    plot_bytes_and_quality,
    plot_decisions,
    plot_gaps,
    plot_regret,
)
from edgeexit.replay.showcase import Showcase
from edgeexit.replay.study_figures import RowFigures

# Gaps above this many points count in the mean; shares of smaller ones are mostly noise.
COUNTED_GAP = 1.0


def write_study_report(
    folder: Path,
    figures: Sequence[RowFigures],
    *,
    title: str,
    subtitle: str,
    shown: Showcase | None = None,
    remarks: Sequence[str] = (),
) -> None:
    """Write `report.json` (a list of rows) and `report.html` into a folder.

    Raises: MissingExtra where matplotlib is not installed; ValueError without a row.
    """
    if not figures:
        raise ValueError("a study has at least one row")
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "report.json.part"
    part.write_bytes(msgspec.json.format(msgspec.json.encode(list(figures)), indent=1) + b"\n")
    part.replace(folder / "report.json")
    sections: list[Section] = []
    if any(row.gap_closed is not None for row in figures):
        sections.append(
            Section(
                "Gap closed, by scenario",
                "How much of what could be won over computing alone was won. The right line is an oracle "
                "that knows every latency beforehand; scores can carry a policy past it.",
                (plot_gaps(figures),),
            )
        )
    sections.append(
        Section(
            "Quality and bytes",
            "Means over all scenarios: up and to the left is better.",
            (plot_bytes_and_quality(figures),),
        )
    )
    if shown is not None:
        sections += _shown_sections(shown)
    sections.append(Section("All scenarios", table=_table(figures)))
    write_page(
        folder / "report.html",
        page(title, subtitle, tiles=_tiles(figures), sections=sections, footer=" ".join(remarks)),
    )


def _shown_sections(shown: Showcase) -> list[Section]:
    name = shown.world.scenario.name
    return [
        Section(
            "Decisions over a trace",
            f"{name}: the link, the board's load, and every answer against its budget.",
            (plot_decisions(shown),),
        ),
        Section("Right by the deadline, by budget", name, (plot_by_deadline(shown),)),
        Section(
            "Regret over time",
            f"{name}: right answers that the oracle had more, adding up. Flat is as good as the oracle.",
            (plot_regret(shown),),
        ),
    ]


def _tiles(figures: Sequence[RowFigures]) -> list[Tile]:
    counted = [
        row.gap_closed for row in figures if row.gap_closed is not None and row.gap_points > COUNTED_GAP
    ]
    frames = sum(row.frames for row in figures)
    tiles = [Tile("scenarios", str(len(figures)), f"{frames:,} frames a policy")]
    if counted:
        tiles.append(Tile("gap closed, mean", f"{float(np.mean(counted)):.3f}", f"least {min(counted):.3f}"))
    beaten = [each for row in figures for each in row.beaten_by if each.certain]
    network = sum(row.late_network for row in figures)
    cut = sum(row.late_cut for row in figures)
    kilobytes = float(np.mean([row.policies[OWN].bytes_per_frame for row in figures])) / 1000.0
    tiles += [
        Tile("late for the network", str(network), f"answers; {cut} more by a cut that left nothing"),
        Tile("baselines ahead", str(len(beaten)), "beyond chance, scenario by scenario"),
        Tile("bytes a frame", f"{kilobytes:.1f} kB", "both ways, probes included"),
    ]
    return tiles


def _table(figures: Sequence[RowFigures]) -> Table:
    columns = (
        "scenario",
        "floor",
        OWN,
        "O1",
        "O2",
        "gap closed",
        "best baseline, points to own",
        "late",
        "by network / cut",
        "kB a frame",
    )
    rows: list[tuple[str, ...]] = []
    for row in figures:
        others = {name: each for name, each in row.policies.items() if name not in (OWN, FLOOR)}
        best = max(others, key=lambda name: others[name].objective, default=None)
        own = row.policies[OWN]
        rows.append(
            (
                row.scenario,
                f"{100.0 * row.floor:.1f}",
                f"{100.0 * row.own:.1f}",
                f"{100.0 * row.oracle_latency:.1f}",
                f"{100.0 * row.oracle_correctness:.1f}",
                "–" if row.gap_closed is None else f"{row.gap_closed:.2f}",
                "–" if best is None else f"{best} {100.0 * (others[best].objective - own.objective):+.1f}",
                f"{100.0 * row.late_fraction:.2f} %",
                f"{row.late_network} / {row.late_cut}",
                f"{own.bytes_per_frame / 1000.0:.1f}",
            )
        )
    return Table(columns, tuple(rows), emphasis=False)
