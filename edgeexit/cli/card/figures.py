"""The plots of a model card: exits, calibration, sizes, latency, boundaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from msgspec import UnsetType

from edgeexit.bundle.manifest import BoundaryCodec, Calibration, Manifest
from edgeexit.replay.canvas import BUDGET, SERIES, drawing, exit_colors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A group of bars leaves a fifth of its place free, so that groups stay apart.
_GROUP = 0.8
# How much of a codec's row its boundaries share; the rest keeps rows apart.
_ROW = 0.7
# More names than this are wider than the page.
_LEGEND_COLUMNS = 6


def variant_names(manifest: Manifest) -> tuple[str, ...]:
    """Every variant that any stage has, in the order in which they come."""
    return tuple(dict.fromkeys(variant.name for stage in manifest.stages for variant in stage.variants))


def plot_exits(manifest: Manifest) -> str:
    """What each exit answers right, against the multiply-adds until there, a line a variant."""
    macs = [total / 1e6 for total in accumulate(stage.macs for stage in manifest.stages)]
    with drawing("card-exits", height_in=3.3) as made:
        (axes,) = made.axes
        lines = {"float network": [exit_.accuracy_float for exit_ in manifest.exits]}
        for name in variant_names(manifest):
            known = [_calibration(exit_.calibrations, name) for exit_ in manifest.exits]
            if all(each is not None for each in known):
                lines[name] = [each.accuracy for each in known if each is not None]
        for number, (name, values) in enumerate(lines.items()):
            own = number == 0
            color = "#39434e" if own else SERIES[(number - 1) % len(SERIES)]
            axes.plot(macs, values, color=color, label=name, linestyle=":" if own else "-", zorder=3 - own)
            axes.scatter(macs, values, s=20 if own else 36, color=color, zorder=4 - own)
        best = [max(values[k] for values in lines.values()) for k in range(len(macs))]
        for k, (x, y) in enumerate(zip(macs, best, strict=True)):
            axes.annotate(
                f"exit {k}", (x, y), xytext=(0, 8), textcoords="offset points", ha="center", fontsize=9
            )
        axes.set_xlim(left=0.0, right=macs[-1] * 1.06)
        axes.margins(y=0.2)
        axes.set_xlabel("million multiply-adds until this exit")
        axes.set_ylabel(_quality(manifest))
        axes.legend(loc="lower right", ncols=min(len(lines), _LEGEND_COLUMNS))
    return made.svg


def plot_reliability(manifest: Manifest, variant: str) -> str:
    """How often an exit is right, against its score: on the diagonal, a score is a probability."""
    colors = exit_colors(manifest.stage_count)
    with drawing("card-reliability", height_in=3.6) as made:
        (axes,) = made.axes
        axes.plot(
            [0.0, 1.0], [0.0, 1.0], color=BUDGET, linewidth=1.0, linestyle="--", label="score = quality"
        )
        least = 1.0
        for k, exit_ in enumerate(manifest.exits):
            found = exit_.calibration(variant)
            least = min(least, _draw_bins(axes, found, found.quality[0], colors[k], f"exit {k}"))
        floor = max(0.0, least - 0.05)
        axes.set_xlim(floor, 1.0)
        axes.set_ylim(min(floor, _least_quality(manifest, variant) - 0.05), 1.02)
        axes.set_xlabel("score of the answer, after temperature")
        axes.set_ylabel(_quality(manifest))
        axes.legend(loc="lower right")
    return made.svg


def plot_promise(manifest: Manifest, variant: str) -> str:
    """What a score of the first exit says of every exit: where the lines part, going on is worth it."""
    colors = exit_colors(manifest.stage_count)
    found = manifest.exits[0].calibration(variant)
    with drawing("card-promise", height_in=3.2) as made:
        (axes,) = made.axes
        least = 1.0
        for k, row in enumerate(found.quality):
            least = min(least, _draw_bins(axes, found, row, colors[k], f"exit {k}"))
        axes.set_xlim(max(0.0, least - 0.05), 1.0)
        axes.margins(y=0.1)
        axes.set_xlabel("score at exit 0")
        axes.set_ylabel("expected " + _quality(manifest))
        axes.legend(loc="lower right")
    return made.svg


def plot_sizes(manifest: Manifest) -> str:
    """Size of every stage's file, by variant."""
    groups = {
        name: [
            next((each.blob.size_bytes / 1e3 for each in stage.variants if each.name == name), None)
            for stage in manifest.stages
        ]
        for name in variant_names(manifest)
    }
    labels = [f"stage {k}" for k in range(manifest.stage_count)]
    return _bars("card-sizes", labels, groups, ylabel="kB", form="{:,.0f}")


def plot_latency(manifest: Manifest, best_ms: Mapping[tuple[int, str], float]) -> str:
    """Time of every stage by variant, where it was measured."""
    groups = {
        name: [best_ms.get((k, name)) for k in range(manifest.stage_count)]
        for name in variant_names(manifest)
        if any((k, name) in best_ms for k in range(manifest.stage_count))
    }
    labels = [f"stage {k}" for k in range(manifest.stage_count)]
    return _bars("card-latency", labels, groups, ylabel="ms", form="{:.3g}")


def plot_boundaries(manifest: Manifest) -> str:
    """What each boundary weighs as each codec sends it, heavy ones above; lines go to the 95th percentile.

    Sizes lie apart by a factor of a hundred and more: the scale is logarithmic.
    """
    sizes: dict[str, list[tuple[int, BoundaryCodec]]] = {}
    for b, boundary in enumerate(manifest.boundaries):
        for codec in boundary.codecs:
            sizes.setdefault(codec.codec, []).append((b, codec))
    order = sorted(sizes, key=lambda name: max(each.payload_bytes for _, each in sizes[name]))
    count = len(manifest.boundaries)
    colors = [SERIES[1], *exit_colors(count)[1:]]
    with drawing("card-boundaries", height_in=1.2 + 0.26 * len(order)) as made:
        (axes,) = made.axes
        for b in range(count):
            found = [(y, each) for y, name in enumerate(order) for at, each in sizes[name] if at == b]
            places = [y + _ROW * ((count - 1) / 2 - b) / count for y, _ in found]
            means = [each.payload_bytes / 1e3 for _, each in found]
            label = f"boundary {b}" if b else "input"
            axes.scatter(means, places, s=26, color=colors[b], label=label, zorder=3)
            for place, mean, (_, each) in zip(places, means, found, strict=True):
                if not isinstance(each.p95_bytes, UnsetType):
                    axes.plot([mean, each.p95_bytes / 1e3], [place, place], color=colors[b], linewidth=1.4)
        axes.set_yticks(range(len(order)), order)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(axis="x", which="major")
        axes.set_ylim(-0.6, len(order) - 0.4)
        axes.set_xlabel("kB to send")
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=min(count, _LEGEND_COLUMNS))
    return made.svg


def _bars(
    name: str,
    labels: Sequence[str],
    groups: Mapping[str, Sequence[float | None]],
    *,
    ylabel: str,
    form: str,
) -> str:
    """Groups of bars with their figures on top; what is not known takes no place."""
    with drawing(name, height_in=3.0) as made:
        (axes,) = made.axes
        width = _GROUP / max(1, len(groups))
        # Figures stand side by side on narrow bars only as long as they are few.
        written = len(labels) * len(groups) <= 24
        taken = [sum(values[k] is not None for values in groups.values()) for k in range(len(labels))]
        drawn_at = [0] * len(labels)
        for number, (group, values) in enumerate(groups.items()):
            at = []
            for k, value in enumerate(values):
                if value is not None:
                    at.append(k + (drawn_at[k] - (taken[k] - 1) / 2) * width)
                    drawn_at[k] += 1
            heights = [value for value in values if value is not None]
            drawn = axes.bar(at, heights, width * 0.92, color=SERIES[number % len(SERIES)], label=group)
            if written:
                texts = [form.format(height) for height in heights]
                axes.bar_label(drawn, labels=texts, padding=2, fontsize=8.5, color="#5d6b7a")
        axes.set_xticks(range(len(labels)), labels)
        axes.tick_params(axis="x", length=0)
        axes.margins(y=0.14)
        axes.set_ylabel(ylabel)
        axes.legend(
            loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=min(max(1, len(groups)), _LEGEND_COLUMNS)
        )
    return made.svg


def _draw_bins(
    axes: Axes, found: Calibration, row: Sequence[float], color: tuple[float, float, float], label: str
) -> float:
    """One row of a quality table as steps; the score that its first bin is drawn from.

    Bins hold equally many samples and are drawn from edge to edge. The first one begins where nobody
    recorded; it is drawn half as wide again as its neighbour, so that a long empty tail takes no room.
    """
    edges = found.upper_scores
    begin = max(0.0, edges[0] - 1.5 * (edges[1] - edges[0])) if len(edges) > 1 else 0.0
    axes.stairs(row, [begin, *edges], baseline=None, color=color, linewidth=1.8, label=label)
    return begin


def _least_quality(manifest: Manifest, variant: str) -> float:
    return min(min(exit_.calibration(variant).quality[0]) for exit_ in manifest.exits)


def _calibration(calibrations: Sequence[Calibration], variant: str) -> Calibration | None:
    return next((each for each in calibrations if each.variant == variant), None)


def _quality(manifest: Manifest) -> str:
    return "answered right" if manifest.task == "classification" else "quality"
