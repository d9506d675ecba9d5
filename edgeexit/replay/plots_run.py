"""Plots of one run: budget and latency, exits, places, accuracy by budget band, bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from edgeexit.decide.answer import Place
from edgeexit.replay.canvas import BAD, BUDGET, DEVICE, GATEWAY, SERIES, drawing, exit_colors
from edgeexit.replay.frames import FrameRow, RunRows, correct_by_deadline

# Windows of a few seconds: wide enough for shares to mean something, narrow enough to see an outage.
WINDOWS = 60
# Bands of budgets with equally many frames each.
BANDS = 5


@dataclass(frozen=True, slots=True)
class Mark:
    """A stretch of time to shade, such as an outage. Units: ms on the run's clock."""

    start_ms: float
    end_ms: float
    label: str


def plot_budget(run: RunRows, marks: Sequence[Mark]) -> str:
    """Budget in force and latency of every answer over time."""
    origin_ms = _origin_ms(run)
    with drawing("budget", height_in=3.4) as made:
        (axes,) = made.axes
        _shade(made.axes, marks, origin_ms)
        known = [row for row in run.rows if row.deadline_ms is not None]
        axes.step(
            [_seconds(row, origin_ms) for row in known],
            [row.deadline_ms or 0.0 for row in known],
            where="post",
            color=BUDGET,
            label="budget",
        )
        for label, color, chosen in (
            ("answered here", DEVICE, [row for row in run.rows if row.on_time and row.place is Place.DEVICE]),
            (
                "answered by a gateway",
                GATEWAY,
                [row for row in run.rows if row.on_time and row.place is Place.GATEWAY],
            ),
            ("late", BAD, [row for row in run.rows if row.latency_ms is not None and not row.on_time]),
        ):
            axes.scatter(
                [_seconds(row, origin_ms) for row in chosen],
                [row.latency_ms or 0.0 for row in chosen],
                s=9,
                color=color,
                linewidths=0,
                label=label,
                zorder=3,
            )
        dropped = [row for row in run.rows if row.dropped is not None]
        if dropped:
            axes.scatter(
                [_seconds(row, origin_ms) for row in dropped],
                [0.0] * len(dropped),
                s=14,
                marker="x",
                color=BAD,
                linewidths=0.8,
                label="no answer",
                zorder=3,
            )
        axes.set_ylim(bottom=0.0)
        axes.set_xlabel("seconds")
        axes.set_ylabel("ms after capture")
        axes.set_xlim(left=0.0)
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=5)
    return made.svg


def plot_exits(run: RunRows, marks: Sequence[Mark], *, stage_count: int) -> str:
    """Shares of the exits taken here and of the gateway's answers, over time."""
    origin_ms = _origin_ms(run)
    edges_s = _edges_s(run, origin_ms)
    width_s = edges_s[1] - edges_s[0]
    names = [f"exit {exit_} here" for exit_ in range(stage_count)] + ["gateway", "no answer in time"]
    colors = [*exit_colors(stage_count), GATEWAY, "#eec7c1"]
    counts = np.zeros((len(names), len(edges_s) - 1))
    for row in run.rows:
        window = min(int(_seconds(row, origin_ms) / width_s), counts.shape[1] - 1)
        if not row.on_time or row.exit is None:
            kind = stage_count + 1
        elif row.place is Place.GATEWAY:
            kind = stage_count
        else:
            kind = min(row.exit, stage_count - 1)
        counts[kind, window] += 1
    shares = counts / np.maximum(counts.sum(axis=0), 1.0)
    with drawing("exits", height_in=3.0) as made:
        (axes,) = made.axes
        base = np.zeros(shares.shape[1])
        for name, color, share in zip(names, colors, shares, strict=True):
            if not share.any():
                continue
            axes.bar(edges_s[:-1], share, width_s, bottom=base, align="edge", color=color, label=name)
            base += share
        axes.set_ylim(0.0, 1.0)
        axes.set_xlim(0.0, edges_s[-1])
        axes.set_xlabel("seconds")
        axes.set_ylabel("share of frames")
        _shade(made.axes, marks, origin_ms, over=True)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=len(names))
    return made.svg


def plot_places(runs: Sequence[RunRows]) -> str:
    """Where each run's answers came from, in time or not."""
    kinds = ("in time, here", "in time, gateway", "late", "no answer")
    colors = (DEVICE, GATEWAY, "#e2998c", "#d9dee4")
    with drawing("places", height_in=0.7 + 0.42 * len(runs)) as made:
        (axes,) = made.axes
        left = np.zeros(len(runs))
        shares = np.asarray([_place_shares(run.rows) for run in runs])
        for kind, color, share in zip(kinds, colors, shares.T, strict=True):
            axes.barh(range(len(runs)), share, left=left, height=0.62, color=color, label=kind)
            left += share
        axes.set_yticks(range(len(runs)), [run.name for run in runs])
        axes.invert_yaxis()
        axes.set_xlim(0.0, 1.0)
        axes.set_xlabel("share of frames")
        axes.grid(visible=False)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)
    return made.svg


def plot_bands(runs: Sequence[RunRows]) -> str:
    """Accuracy by the deadline in bands of budgets that hold equally many frames."""
    budgets = _budget_of(runs[0])
    bands = budget_bands(list(budgets.values()))
    labels = [band_label(low, high) for low, high in bands]
    with drawing("bands", height_in=3.2) as made:
        (axes,) = made.axes
        width = 0.8 / len(runs)
        for number, run in enumerate(runs):
            heights: list[float] = []
            for low, high in bands:
                rows = [row for row in run.rows if low <= budgets.get(row.captured_ms, -1.0) <= high]
                heights.append(correct_by_deadline(rows) or 0.0)
            at = np.arange(len(labels)) + (number - (len(runs) - 1) / 2) * width
            axes.bar(at, heights, width * 0.9, color=SERIES[number % len(SERIES)], label=run.name)
        axes.set_xticks(range(len(labels)), labels)
        axes.set_ylim(0.0, 1.0)
        axes.set_xlabel("budget")
        axes.set_ylabel("right by the deadline")
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=len(runs))
    return made.svg


def plot_bytes(runs: Sequence[RunRows], marks: Sequence[Mark]) -> str:
    """Payload bytes sent so far, by run."""
    origin_ms = _origin_ms(runs[0])
    with drawing("bytes", height_in=2.8) as made:
        (axes,) = made.axes
        _shade(made.axes, marks, origin_ms)
        for number, run in enumerate(runs):
            total = np.cumsum([row.uplink_bytes for row in run.rows]) / 1e6
            if not len(total) or total[-1] == 0.0:
                continue
            seconds = [_seconds(row, origin_ms) for row in run.rows]
            axes.plot(seconds, total, color=SERIES[number % len(SERIES)], label=run.name)
        axes.set_xlabel("seconds")
        axes.set_ylabel("MB sent")
        axes.set_ylim(bottom=0.0)
        axes.set_xlim(left=0.0)
        if axes.get_lines():
            axes.legend(loc="upper left")
    return made.svg


def _origin_ms(run: RunRows) -> float:
    return run.rows[0].captured_ms if run.rows else 0.0


def _seconds(row: FrameRow, origin_ms: float) -> float:
    return (row.captured_ms - origin_ms) / 1000.0


def _edges_s(run: RunRows, origin_ms: float) -> list[float]:
    end_s = max(1.0, (run.rows[-1].captured_ms - origin_ms) / 1000.0) if run.rows else 1.0
    windows = max(1, min(WINDOWS, len(run.rows) // 5))
    return [end_s * index / windows for index in range(windows + 1)]


def _shade(
    axes_list: Sequence[object], marks: Sequence[Mark], origin_ms: float, *, over: bool = False
) -> None:
    from matplotlib.axes import Axes

    for axes in axes_list:
        assert isinstance(axes, Axes)
        for mark in marks:
            start_s, end_s = (mark.start_ms - origin_ms) / 1000.0, (mark.end_ms - origin_ms) / 1000.0
            axes.axvspan(start_s, end_s, color="#1d2733", alpha=0.10 if over else 0.06, linewidth=0)
            axes.annotate(
                mark.label,
                (start_s, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(3, -11),
                textcoords="offset points",
                fontsize=8.5,
                color="#1d2733" if over else "#5d6b7a",
                # On a filled area words need a ground of their own.
                bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.5} if over else None,
            )


def _place_shares(rows: Sequence[FrameRow]) -> list[float]:
    count = max(1, len(rows))
    here = sum(row.on_time and row.place is Place.DEVICE for row in rows)
    there = sum(row.on_time and row.place is Place.GATEWAY for row in rows)
    dropped = sum(row.dropped is not None for row in rows)
    return [here / count, there / count, (len(rows) - here - there - dropped) / count, dropped / count]


def _budget_of(run: RunRows) -> Mapping[float, float]:
    """Budget of every frame, by its capture; a dropped frame has that of the frame before it."""
    budgets: dict[float, float] = {}
    last_ms: float | None = None
    for row in run.rows:
        last_ms = row.deadline_ms if row.deadline_ms is not None else last_ms
        if last_ms is not None:
            budgets[row.captured_ms] = last_ms
    return budgets


def budget_bands(budgets_ms: Sequence[float]) -> list[tuple[float, float]]:
    """Lowest and highest budget of every band; budgets that are few are bands of their own."""
    ordered = sorted(float(f"{budget:.3g}") for budget in budgets_ms)
    distinct = sorted(set(ordered))
    if len(distinct) <= BANDS:
        return [(0.995 * budget, 1.005 * budget) for budget in distinct]
    parts = [part for part in np.array_split(np.asarray(ordered), BANDS) if len(part)]
    edges = sorted({float(part[0]) for part in parts})
    return [(0.995 * low, 0.995 * high) for low, high in pairwise([*edges, 1.011 * ordered[-1]])]


def band_label(low_ms: float, high_ms: float) -> str:
    """A band in words, with as many digits as it needs."""
    if high_ms < 1.02 * low_ms:
        return f"{(low_ms + high_ms) / 2.0:.3g} ms"
    return f"{low_ms / 0.995:.3g}–{high_ms:.3g} ms"
