"""Plots of a study: gap closed by scenario, quality against bytes, and one scenario over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeexit.replay.canvas import BAD, BUDGET, DEVICE, GATEWAY, GOOD, SERIES, drawing
from edgeexit.replay.contenders import OWN
from edgeexit.replay.labels import Label, heights_apart
from edgeexit.replay.metrics import cumulative_regret
from edgeexit.replay.outcome import ON_TIME
from edgeexit.replay.plots_run import band_label, budget_bands
from edgeexit.replay.showcase import Showcase
from edgeexit.replay.study_figures import RowFigures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Shares below this are drawn at the edge: a policy far under the floor is far under it, however far.
LOWEST_SHARE = -0.5
# Windows of the link's rate in a plot over time.
RATE_WINDOWS = 240
# About what a plot of ten by 4.6 inches leaves within its axes, and what a letter, a line and the step from a
# point to its name take at 8.5 points.
NAMES_WIDE_PT, NAMES_TALL_PT = 650.0, 275.0
LETTER_PT, NAME_LINE_PT, NAME_OFF_PT = 5.2, 11.0, 12.0
# A line from a name that had to move, from its left edge, to its point.
LEADER = {"arrowstyle": "-", "color": "#b8c2cc", "linewidth": 0.6, "relpos": (0.0, 0.5)}


def plot_gaps(figures: Sequence[RowFigures]) -> str:
    """Share of the gap between floor and oracle that every policy closed, a line a scenario."""
    rows = [row for row in figures if row.gap_closed is not None]
    with drawing("gaps", height_in=1.1 + 0.27 * len(rows)) as made:
        (axes,) = made.axes
        axes.axvline(0.0, color=BUDGET, linewidth=1.0)
        axes.axvline(1.0, color=GOOD, linewidth=1.0)
        for at, row in enumerate(rows):
            others = [
                max(LOWEST_SHARE, each.gap_closed)
                for name, each in row.policies.items()
                if name != OWN and each.gap_closed is not None
            ]
            axes.scatter(
                others,
                [at] * len(others),
                s=16,
                color="#aab4bf",
                linewidths=0,
                zorder=2,
                label="baselines" if at == 0 else None,
            )
            low, high, closed = row.gap_closed_low, row.gap_closed_high, row.gap_closed
            if low is not None and high is not None and closed is not None:
                axes.plot([max(LOWEST_SHARE, low), high], [at, at], color=DEVICE, alpha=0.45, linewidth=3.0)
                axes.scatter(
                    [max(LOWEST_SHARE, closed)],
                    [at],
                    s=34,
                    color=DEVICE,
                    zorder=3,
                    label=f"{OWN}, 95 %" if at == 0 else None,
                )
        axes.set_yticks(range(len(rows)), [f"{row.scenario}  ({row.gap_points:.1f})" for row in rows])
        axes.tick_params(axis="y", labelsize=8.0, length=0)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(LOWEST_SHARE - 0.05, 1.25)
        axes.set_xlabel(
            "gap closed (0: anytime local, 1: all latencies known); points of the gap in brackets"
        )
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
    return made.svg


def plot_bytes_and_quality(figures: Sequence[RowFigures]) -> str:
    """Mean quality by the deadline against bytes a frame, over all scenarios."""
    names = [name for name in figures[0].policies if all(name in row.policies for row in figures)]
    runs = [[row.policies[name] for row in figures] for name in names]
    kilobytes = [float(np.mean([one.bytes_per_frame for one in each])) / 1000.0 for each in runs]
    quality = [float(np.mean([one.correct_by_deadline for one in each])) for each in runs]
    with drawing("trade", height_in=4.6) as made:
        (axes,) = made.axes
        for name, at_kilobytes, at_quality in zip(names, kilobytes, quality, strict=True):
            own = name == OWN
            size, color = (60, DEVICE) if own else (26, BUDGET)
            axes.scatter([at_kilobytes], [at_quality], s=size, color=color, zorder=3)
        _write_names(axes, names, kilobytes, quality)
        axes.set_xlabel("kB a frame, both ways, probes included")
        axes.set_ylabel("right by the deadline")
    return made.svg


def _write_names(axes: Axes, names: Sequence[str], x: Sequence[float], y: Sequence[float]) -> None:
    """Names beside their points; where points lie close, below each other, each with a line to its own."""
    left, right = min(x), max(max(x), min(x) + 1e-6)
    low, high = min(y), max(max(y), min(y) + 1e-6)
    # The widest name of a point at the right edge needs its room; a little air on the other sides.
    axes.set_xlim(left - 0.02 * (right - left), right + 0.25 * (right - left))
    axes.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
    wide, tall = NAMES_WIDE_PT / (1.27 * (right - left)), NAMES_TALL_PT / (1.2 * (high - low))
    labels = [
        Label((at_x - left) * wide, (at_y - low) * tall, LETTER_PT * len(name) + NAME_OFF_PT)
        for name, at_x, at_y in zip(names, x, y, strict=True)
    ]
    for name, label, height, at_x, at_y in zip(
        names, labels, heights_apart(labels, line=NAME_LINE_PT), x, y, strict=True
    ):
        moved = height != label.wanted
        axes.annotate(
            name,
            (at_x, at_y),
            xytext=(NAME_OFF_PT, height - label.wanted),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            fontweight="bold" if name == OWN else "normal",
            arrowprops=LEADER if moved else None,
        )


def plot_by_deadline(shown: Showcase) -> str:
    """Right by the deadline in bands of the budget, by policy."""
    world = shown.world
    budgets_ms = np.asarray(world.expiry_ms) - np.asarray(world.captured_ms)
    bands = budget_bands(budgets_ms.tolist())
    labels = [band_label(low, high) for low, high in bands]
    members = [(budgets_ms >= low) & (budgets_ms <= high) for low, high in bands]
    with drawing("by-deadline", height_in=3.2) as made:
        (axes,) = made.axes
        width = 0.8 / (len(shown.runs) + 1)
        heights = {name: outcome.value for name, outcome in shown.runs.items()}
        heights["O1"] = shown.oracle_worth
        for number, (name, value) in enumerate(heights.items()):
            at = np.arange(len(bands)) + (number - len(shown.runs) / 2) * width
            means = [float(value[member].mean()) if member.any() else 0.0 for member in members]
            color = "#39434e" if name == "O1" else SERIES[number % len(SERIES)]
            axes.bar(at, means, width * 0.9, color=color, label=name)
        axes.set_xticks(range(len(labels)), labels)
        axes.set_xlabel("budget")
        axes.set_ylabel("right by the deadline")
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=min(6, len(heights)))
    return made.svg


def plot_regret(shown: Showcase) -> str:
    """What the oracle had more than each policy, adding up over the frames."""
    with drawing("regret", height_in=3.0) as made:
        (axes,) = made.axes
        for number, (name, outcome) in enumerate(shown.runs.items()):
            axes.plot(
                cumulative_regret(shown.oracle_worth, outcome),
                color=SERIES[number % len(SERIES)],
                linewidth=2.2 if name == OWN else 1.3,
                label=name,
            )
        axes.set_xlabel("frames")
        axes.set_ylabel("right answers behind O1")
        axes.legend(loc="upper left")
    return made.svg


def plot_decisions(shown: Showcase) -> str:
    """The link's rate, the board's slowdown, and what the policy made of both."""
    world = shown.world
    outcome = shown.runs[OWN]
    trace, offset_ms = world.scenario.uplink, world.offset_ms
    end_ms = world.captured_ms[-1]
    edges_ms = np.linspace(0.0, max(end_ms, 1.0), RATE_WINDOWS + 1)
    carried = [trace.carried_bytes(float(at_ms) + offset_ms) for at_ms in edges_ms]
    rate_mbps = np.diff(carried) / np.diff(edges_ms) * 8e-3
    captured_s = outcome.captured_ms / 1000.0
    latency_ms = outcome.emitted_ms - outcome.captured_ms
    on_time = outcome.fates == ON_TIME
    with drawing("decisions", rows=3, height_in=5.6, share_x=True, heights=(1.0, 0.6, 2.4)) as made:
        link, load, answers = made.axes
        link.fill_between(edges_ms[:-1] / 1000.0, rate_mbps, step="post", color="#cfdbe6", linewidth=0)
        link.set_ylabel("uplink Mbit/s")
        link.set_ylim(bottom=0.0)
        slowdown = [world.compute.at(float(at_ms)) for at_ms in edges_ms[:-1]]
        load.step(edges_ms[:-1] / 1000.0, slowdown, where="post", color="#5d6b7a", linewidth=1.1)
        load.set_ylabel("slowdown")
        load.set_ylim(bottom=0.9)
        budget_ms = np.asarray(world.expiry_ms) - np.asarray(world.captured_ms)
        answers.step(captured_s, budget_ms, where="post", color=BUDGET, linewidth=1.0, label="budget")
        for label, color, chosen in (
            ("answered here", DEVICE, on_time & ~outcome.remote),
            ("answered by a gateway", GATEWAY, on_time & outcome.remote),
            ("late", BAD, ~on_time & np.isfinite(latency_ms)),
        ):
            answers.scatter(
                captured_s[chosen], latency_ms[chosen], s=7, color=color, linewidths=0, label=label, zorder=3
            )
        for each in (link, answers):
            for outage in world.scenario.outages:
                each.axvspan(
                    outage.start_ms / 1000.0, outage.end_ms / 1000.0, color="#1d2733", alpha=0.08, linewidth=0
                )
        answers.set_xlim(0.0, end_ms / 1000.0)
        answers.set_ylim(bottom=0.0)
        answers.set_xlabel("seconds")
        answers.set_ylabel("ms after capture")
        answers.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4)
    return made.svg
