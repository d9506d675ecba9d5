"""The tables and plots of docs/results.md, out of the result that was published.

    python -m benchmarks.exits.page

It replaces what stands between the page's two marks, and writes four plots beside the page.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.exits.settings import Settings
from benchmarks.exits.summary import BranchRow, Figure, MethodRow
from benchmarks.reality.page import replaced
from benchmarks.results import RESULTS
from edgeexit.replay.canvas import SERIES, drawing

RESULT = RESULTS / "exits.json"
PAGE = Path(__file__).parent.parent.parent / "docs" / "results.md"
BEGIN = "<!-- made by python -m benchmarks.exits.page -->"

# What the plot of methods shows: all of them would lie over each other.
DRAWN = (
    *("joint", "frozen", "self_distillation", "joint_sgd", "l2w_den"),
    *("joint_longer", "self_distillation_longer"),
)
# Whose losses are drawn.
LEARNING = ("joint", "self_distillation", "joint_longer", "self_distillation_longer", "joint_sgd", "l2w_den")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), "-")


class Published(msgspec.Struct, frozen=True):
    """What a page needs of the result."""

    seeds: tuple[int, ...]
    branches: tuple[BranchRow, ...]
    methods: tuple[MethodRow, ...]
    alone: dict[str, Figure]
    best_method: str
    best_taught_method: str
    final_exit_loss_by_seed: Figure
    loss_at_53_percent_by_seed: Figure
    best_method_gain_by_seed: Figure
    weighting_gain_by_seed: Figure
    settings: dict[str, Settings]
    date: str
    environment: dict[str, object]


def tables(result: Published) -> str:
    """The page's tables, in Markdown."""
    methods = result.settings["methods"]
    branches = result.settings["branches-classification"]
    lines = [
        f"Taken on {result.date}, {result.environment['processor']}, one thread, float32, no GPU;"
        f" {len(result.methods[0].gain_points.each)} seeds for methods,"
        f" {len(_first(result.branches).each)} for branches."
        f" {methods.network_samples:,} canvases for each network,"
        f" {branches.branch_samples:,} for each branch; {methods.held_out:,} held out, {methods.test:,} for"
        " the test. Mean ± standard deviation over seeds.",
        "",
        "### Key figures",
        "",
        "| figure, points | mean ± s.d. | each seed | target | |",
        "|---|---|---|---|---|",
        _key(
            f"last exit of `{result.best_method}` below the backbone alone",
            result.final_exit_loss_by_seed,
            0.2,
        ),
        _key(
            f"`{result.best_method}` at 53 % of full cost below its last exit",
            result.loss_at_53_percent_by_seed,
            1.0,
        ),
        _key(
            f"`{result.best_taught_method}` above joint training at 53 % of full cost",
            result.best_method_gain_by_seed,
            0.5,
            least=True,
        ),
        f"| `l2w_den` above `joint_sgd` at 53 % of full cost | {_spread(result.weighting_gain_by_seed)}"
        f" | {_each(result.weighting_gain_by_seed)} | – | |",
        "",
        "Methods were chosen by accuracy held out. The backbone alone: "
        + ", ".join(f"`{name}` {_spread(found)} %" for name, found in result.alone.items())
        + ".",
    ]
    for task in ("classification", "regression"):
        lines += ["", *_branch_table([row for row in result.branches if row.task == task])]
    return "\n".join([*lines, "", *_method_tables(result.methods)])


def _first(rows: Sequence[BranchRow]) -> Figure:
    found = rows[0].accuracy or rows[0].mae
    assert found is not None  # a row has one or the other
    return found


def _key(words: str, figure: Figure, target: float, *, least: bool = False) -> str:
    met = figure.mean >= target if least else figure.mean <= target
    verdict = "met" if met else "**missed**"
    return f"| {words} | {_spread(figure)} | {_each(figure)} | {'≥' if least else '≤'} {target} | {verdict} |"


def _branch_table(rows: Sequence[BranchRow]) -> list[str]:
    if not rows:
        return []
    depths = sorted({row.after for row in rows})
    what = "mean absolute error, items" if rows[0].mae is not None else "accuracy, %"
    lines = [
        f"### Branches, {rows[0].task}: {what}",
        "",
        "| branch | " + " | ".join(f"after {depth}" for depth in depths) + " | MACs | parameters"
        " | LiteRT, ms | in blocks | training, CPU s |",
        "|---" * (len(depths) + 6) + "|",
    ]
    for branch in dict.fromkeys(row.branch for row in rows):
        own = sorted((row for row in rows if row.branch == branch), key=lambda row: row.after)
        found = " | ".join(_quality(row) for row in own)
        first = own[0]
        ms = "–" if first.ms is None else f"{first.ms:.4f}"
        blocks = "–" if first.blocks is None else f"{first.blocks:.2f}"
        seconds = sum(row.training_cpu_s for row in own) / len(own)
        cost = f"{first.macs:,} | {first.parameters:,} | {ms} | {blocks} | {seconds:.1f}"
        lines.append(f"| {branch} | {found} | {cost} |")
    before = {row.after: row.macs_to_exit - row.macs for row in rows}
    lines.append(
        "| *backbone so far, MACs* | " + " | ".join(f"{before[depth]:,}" for depth in depths) + " | | | | | |"
    )
    return lines


def _quality(row: BranchRow) -> str:
    if row.accuracy is not None:
        return _spread(row.accuracy)
    assert row.mae is not None  # a row has one or the other
    return _spread(row.mae, digits=3)


def _method_tables(rows: Sequence[MethodRow]) -> list[str]:
    if not rows:
        return []
    exits = range(len(rows[0].exits))
    lines = [
        "### Methods: accuracy of each exit (anytime), %",
        "",
        "| method | " + " | ".join(f"exit {k}" for k in exits) + " | canvases | updates | CPU s |",
        "|---" * (len(rows[0].exits) + 4) + "|",
    ]
    for row in rows:
        found = " | ".join(_spread(each.accuracy) for each in row.exits)
        seconds = "–" if row.cpu_s is None else f"{row.cpu_s:.0f}"
        lines.append(f"| {row.method} | {found} | {row.samples:,} | {row.updates:,} | {seconds} |")
    costs = " | ".join(f"{each.macs:,}" for each in rows[0].exits)
    lines += [f"| *MACs to this exit* | {costs} | | | |", ""]
    shares = [each.share for each in rows[0].budgeted]
    lines += [
        "### Methods: budgeted accuracy, %, by mean cost as a share of the whole network",
        "",
        "| method | " + " | ".join(f"{share:.0%}" for share in shares) + " | gain at 53 %, points | each seed"
        " | against | last exit below alone, points | held out at 53 % |",
        "|---" * (len(shares) + 6) + "|",
    ]
    for row in rows:
        found = " | ".join(_spread(each.accuracy) for each in row.budgeted)
        lines.append(
            f"| {row.method} | {found} | {_spread(row.gain_points)} | {_each(row.gain_points)}"
            f" | {row.against} | {_spread(row.final_exit_loss_points)} | {_spread(row.held_out_mid)} |"
        )
    lines += ["", "| method | what it is | optimiser |", "|---|---|---|"]
    lines += [f"| {row.method} | {row.words} | {row.optimizer} |" for row in rows]
    return lines


def _spread(figure: Figure | None, digits: int = 1) -> str:
    if figure is None:
        return "–"
    digits = max(digits, 2 if abs(figure.mean) < 10 else digits)
    mean = f"{figure.mean:.{digits}f}"
    return mean if figure.sd is None else f"{mean} ± {figure.sd:.{digits}f}"


def _each(figure: Figure) -> str:
    return ", ".join(f"{value:+.2f}" for value in figure.each)


def branch_plot(result: Published) -> str:
    """Quality of every branch over the cost of stopping there, one panel a task: SVG."""
    tasks = [
        task for task in ("classification", "regression") if any(r.task == task for r in result.branches)
    ]
    with drawing("results-branches", rows=len(tasks), height_in=3.6 * len(tasks)) as made:
        for axes, task in zip(made.axes, tasks, strict=True):
            rows = [row for row in result.branches if row.task == task]
            for index, branch in enumerate(dict.fromkeys(row.branch for row in rows)):
                own = [row for row in rows if row.branch == branch]
                found = [row.accuracy or row.mae for row in own]
                axes.errorbar(
                    [row.macs_to_exit / 1e6 for row in own],
                    [each.mean for each in found if each is not None],
                    yerr=[each.sd or 0.0 for each in found if each is not None],
                    color=SERIES[index],
                    linestyle=DASHES[index],
                    marker="o",
                    markersize=4.0,
                    capsize=2.0,
                    label=branch,
                )
            axes.set_ylabel("accuracy, %" if task == "classification" else "mean absolute error, items")
            axes.set_title(task)
            axes.legend(ncols=2)
        made.axes[-1].set_xlabel("multiply-adds to this exit, millions")
    return made.svg


def method_plot(result: Published) -> str:
    """Anytime accuracy (dots) and the budgeted curve (lines), means over seeds: SVG."""
    with drawing("results-methods", height_in=4.8) as made:
        axes = made.axes[0]
        for index, row in enumerate(row for row in result.methods if row.method in DRAWN):
            curve = sorted(row.curve)
            axes.plot(
                [cost / 1e6 for cost, _ in curve],
                [accuracy for _, accuracy in curve],
                color=SERIES[index],
                linestyle=DASHES[index],
                label=row.method,
            )
            axes.plot(
                [each.macs / 1e6 for each in row.exits],
                [each.accuracy.mean for each in row.exits],
                "o",
                color=SERIES[index],
                markersize=4.0,
            )
        axes.set_xlabel("mean multiply-adds of an image, millions")
        axes.set_ylabel("accuracy, %")
        axes.set_title("budgeted (lines) and anytime (dots), means over seeds")
        axes.legend(loc="lower right")
    return made.svg


def gain_plot(result: Published) -> str:
    """Gain over plain joint training at 53 % of the cost, mean and every seed: SVG."""
    rows = [row for row in result.methods if row.method != row.against]
    with drawing("results-gains", height_in=0.35 * len(rows) + 1.2) as made:
        axes = made.axes[0]
        places = list(range(len(rows)))
        axes.barh(places, [row.gain_points.mean for row in rows], color=SERIES[4], height=0.6)
        for place, row in zip(places, rows, strict=True):
            axes.plot(row.gain_points.each, [place] * len(row.gain_points.each), "o", color=SERIES[0])
        axes.axvline(0.0, color="#5d6b7a", linewidth=1.0)
        axes.set_yticks(places, [f"{row.method} over {row.against}" for row in rows])
        axes.invert_yaxis()
        axes.set_xlabel("points of budgeted accuracy at 53 % of the cost; dots are seeds")
    return made.svg


def learning_plot(result: Published) -> str:
    """Training loss of the last exit, every seed a line: SVG."""
    with drawing("results-learning", height_in=3.4) as made:
        axes = made.axes[0]
        for index, row in enumerate(row for row in result.methods if row.method in LEARNING):
            for number, points in enumerate(row.learning):
                axes.plot(
                    [point.samples / 1e3 for point in points],
                    [point.losses[-1] for point in points],
                    color=SERIES[index],
                    linestyle=DASHES[index],
                    marker=".",
                    label=row.method if number == 0 else None,
                )
        axes.set_xlabel("canvases, thousands; by SGD: after Muon's half")
        axes.set_ylabel("cross-entropy while training")
        axes.set_title("last exit, a line a seed")
        axes.legend(ncols=2)
    return made.svg


def main() -> None:
    """Write the tables and the plots."""
    result = msgspec.convert(json.loads(RESULT.read_text(encoding="utf-8")), Published)
    page = replaced(PAGE.read_text(encoding="utf-8"), tables(result), BEGIN, PAGE)
    PAGE.write_text(page, encoding="utf-8")
    for name, svg in (
        ("branches", branch_plot(result)),
        ("methods", method_plot(result)),
        ("gains", gain_plot(result)),
        ("learning", learning_plot(result)),
    ):
        PAGE.with_name(f"results_{name}.svg").write_text(svg + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
