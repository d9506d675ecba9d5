"""The report of one run on a device: figures as JSON, and a page that a person would look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgeexit.decide.answer import Fate
from edgeexit.replay.frames import RunFigures, RunRows, figures
from edgeexit.replay.page import Section, Table, Tile, page, write_page
from edgeexit.replay.plots_run import Mark, plot_bands, plot_budget, plot_bytes, plot_exits, plot_places


@dataclass(frozen=True, slots=True)
class RunAbout:
    """What was run, for the reader. `remarks` are sentences that belong beside the figures."""

    title: str
    bundle: str
    board: str
    network: str
    policy: str
    stage_count: int
    remarks: tuple[str, ...] = ()


def write_run_report(
    folder: Path,
    run: RunRows,
    *,
    about: RunAbout,
    baselines: Mapping[str, RunRows],
    marks: Sequence[Mark] = (),
) -> RunFigures:
    """Write `report.json` and `report.html` into a folder; gives the run's own figures.

    The JSON holds the fields of RunFigures, `baselines` with the same fields by name, and `about`.
    Raises: MissingExtra where matplotlib is not installed.
    """
    own = figures(run)
    others = {name: figures(each) for name, each in baselines.items()}
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        **msgspec.to_builtins(own),
        "baselines": msgspec.to_builtins(others),
        "about": msgspec.to_builtins(about),
        "marks": msgspec.to_builtins(tuple(marks)),
    }
    part = folder / "report.json.part"
    part.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
    part.replace(folder / "report.json")
    write_page(folder / "report.html", _page(run, own, about, baselines, others, marks))
    return own


def _page(
    run: RunRows,
    own: RunFigures,
    about: RunAbout,
    baselines: Mapping[str, RunRows],
    others: Mapping[str, RunFigures],
    marks: Sequence[Mark],
) -> str:
    runs = (RunRows("this run", run.rows, run.offloads), *baselines.values())
    sections = [
        Section(
            "Budget and latency",
            "Every answer against the budget in force when it was given; shaded stretches are faults.",
            (plot_budget(run, marks),),
        ),
        Section(
            "Exits taken",
            "Which exit answered, and where, in windows of a few seconds.",
            (plot_exits(run, marks, stage_count=about.stage_count),),
        ),
        Section(
            "Where it was computed",
            "This run beside fixed policies on the same frames, budgets and link, replayed from recorded "
            "answers and this run's own stage times.",
            (plot_places(runs),),
        ),
        Section(
            "Accuracy by budget",
            "Right answers by the deadline, in bands of budgets that hold about equally many frames.",
            (plot_bands(runs),),
        ),
        Section("Bytes", "Payload bytes sent up, adding up over time.", (plot_bytes(runs, marks),)),
        Section("Figures", table=_table({"this run": own, **others})),
    ]
    subtitle = f"{about.bundle} on {about.board}, {about.network}, policy {about.policy}."
    return page(
        about.title,
        subtitle,
        tiles=_tiles(own),
        sections=sections,
        footer=" ".join(about.remarks),
    )


def _tiles(own: RunFigures) -> list[Tile]:
    remote = sum(own.answers["gateway"].values())
    tiles = [
        Tile("frames", f"{own.frames}", f"{own.answered} answered, {sum(own.dropped.values())} dropped"),
        Tile("on time", _percent(own.on_time_fraction), _late(own)),
    ]
    if own.correct_by_deadline_fraction is not None:
        tiles.append(Tile("right by the deadline", _percent(own.correct_by_deadline_fraction)))
    tiles.append(
        Tile(
            "answered by a gateway",
            _percent(remote / own.frames if own.frames else 0.0),
            f"{own.offloads.sent} sent, {own.offloads.used} used"
            + (f", {own.offloads.cancelled} taken back" if own.offloads.cancelled else ""),
        )
    )
    if own.latency_ms is not None:
        tiles.append(Tile("latency p50", f"{own.latency_ms.p50:.0f} ms", f"p99 {own.latency_ms.p99:.0f} ms"))
    if own.decision_us_p50 is not None:
        tiles.append(Tile("a decision", f"{own.decision_us_p50:.0f} µs", "p50"))
    return tiles


def _late(own: RunFigures) -> str:
    """How many answers were late, and by what, as far as that is known."""
    by = {
        "compute": own.late_by.get(Fate.LATE_COMPUTE.value, 0),
        "the network": own.late_by.get(Fate.LATE_NETWORK.value, 0),
        "a cut that left nothing": own.late_by.get(Fate.LATE_CUT.value, 0),
    }
    told = ", ".join(f"{count} by {cause}" for cause, count in by.items() if count)
    return f"{own.late} late: {told}" if told else f"{own.late} late"


def _table(runs: Mapping[str, RunFigures]) -> Table:
    columns = (
        "",
        "right by deadline",
        "on time",
        "late",
        "by the network",
        "dropped",
        "by gateway",
        "kB a frame",
        "p50",
        "p99",
    )
    rows: list[tuple[str, ...]] = []
    for name, each in runs.items():
        right, latency = each.correct_by_deadline_fraction, each.latency_ms
        frames = max(1, each.frames)
        rows.append(
            (
                name,
                "–" if right is None else _percent(right),
                _percent(each.on_time_fraction),
                str(each.late),
                str(each.late_by.get(Fate.LATE_NETWORK.value, 0)),
                str(sum(each.dropped.values())),
                _percent(sum(each.answers["gateway"].values()) / frames),
                f"{each.uplink_bytes / frames / 1000.0:.2f}",
                "–" if latency is None else f"{latency.p50:.0f} ms",
                "–" if latency is None else f"{latency.p99:.0f} ms",
            )
        )
    return Table(columns, tuple(rows))


def _percent(fraction: float) -> str:
    return f"{100.0 * fraction:.1f} %"
