"""The table and the plot of docs/boundaries.md, out of the result that was published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks._boundaries_rows import Result, Row, cheapest
from benchmarks.results import RESULTS
from edgeexit.errors import DataError
from edgeexit.replay.canvas import DEVICE, GATEWAY, drawing, exit_colors

RESULT = RESULTS / "boundaries.json"
PAGE = Path(__file__).parent.parent / "docs" / "boundaries.md"
BEGIN = "<!-- made by python -m benchmarks.boundaries --page -->"
END = "<!-- until here -->"

# As matplotlib takes it: a name, or red, green and blue from 0 to 1.
Color = str | tuple[float, float, float]

# Below this nobody would send the payload; the plot would only get flatter.
LEAST_ACCURACY = 0.8


@dataclass(frozen=True, slots=True)
class Published(Result):
    """The result as it was written down, with the machine that it is of."""

    environment: dict[str, object]


def verdict(result: Published) -> str:
    """What the figures come to, in a sentence."""
    if result.bytes_ratio_at_half_point is None:
        return "No payload of one of the two kinds loses half a point or less."
    return (
        f"Within half a point lost, the smallest boundary is **{result.best_boundary}** with"
        f" {result.best_boundary_bytes:,} bytes, the smallest image **{result.best_image}** with"
        f" {result.best_image_bytes:,}: a ratio of **{result.bytes_ratio_at_half_point:.2f}**."
    )


def best_rows(result: Published) -> list[Row]:
    """The smallest way of each boundary within half a point, the image's first."""
    boundaries = sorted({row.boundary for row in result.rows})
    found = [cheapest(result.rows, range(each, each + 1)) for each in boundaries]
    return [row for row in found if row is not None]


def table(result: Published) -> str:
    """The page's tables, in Markdown."""
    exits = ", ".join(f"{100 * each:.1f} %" for each in result.accuracy_by_exit)
    lines = [
        f"{result.samples:,} test canvases ({result.task}); accuracy by exit {exits}.",
        "",
        verdict(result),
        "",
        "| boundary | smallest within half a point | bytes, mean | points lost | of the image's bytes |",
        "|---|---|---|---|---|",
    ]
    for row in best_rows(result):
        of_image = (
            "–" if result.best_image_bytes is None else f"{row.mean_bytes / result.best_image_bytes:.2f}"
        )
        lines.append(f"| {row.boundary} | {row.codec} | {row.mean_bytes:,} | {_lost(row)} | {of_image} |")
    lines += [
        "",
        "All ways that were tried:",
        "",
        "| boundary | codec | bytes, mean | bytes, p95 | accuracy | points lost | canvases |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in sorted(result.rows, key=lambda row: (row.boundary, row.mean_bytes)):
        ideal = "" if row.ideal_bytes is None else f" ({row.ideal_bytes:,.0f} ideal)"
        lines.append(
            f"| {row.boundary} | {row.codec} | {row.mean_bytes:,}{ideal} | {row.p95_bytes:,}"
            f" | {100 * row.accuracy:.1f} % | {_lost(row)} | {row.samples:,} |"
        )
    return "\n".join(lines)


def _lost(row: Row) -> str:
    return f"{row.lost_points:+.2f} ± {row.lost_points_error:.2f}"


def plot(result: Published) -> str:
    """Accuracy against bytes, as an svg element.

    A way's accuracy is that of raw tensors on all canvases less what it lost on those that it was sent with.
    """
    best = 100 * result.accuracy_by_exit[-1]
    inner = max(row.boundary for row in result.rows)
    shades = exit_colors(max(2, inner + 1))
    with drawing("boundaries", rows=1) as made:
        (axes,) = made.axes

        def draw(rows: Sequence[Row], label: str, color: Color, marker: str, line: str) -> None:
            ordered = sorted(rows, key=lambda row: row.mean_bytes)
            axes.plot(
                [row.mean_bytes for row in ordered],
                [best - row.lost_points for row in ordered],
                color=color,
                marker=marker,
                markersize=4,
                linestyle=line,
                label=label,
            )

        for kind, marker in (("jpeg", "o"), ("webp", "s")):
            files = [row for row in result.rows if row.codec.startswith(kind)]
            whole = [row for row in files if not row.codec.endswith("size")]
            draw(whole, f"image, {kind.upper()}", GATEWAY, marker, "-")
            smaller = [row for row in files if row.codec.endswith("size")]
            draw(smaller, f"image, {kind.upper()}, smaller", GATEWAY, marker, "")
        for boundary in range(1, inner + 1):
            own = [row for row in result.rows if row.boundary == boundary]
            learnt = [row for row in own if row.codec.startswith("bottleneck")]
            plain = [row for row in own if not row.codec.startswith("bottleneck")]
            color = DEVICE if inner == 1 else shades[boundary]
            draw(learnt, f"boundary {boundary}, bottleneck", color, "^", "-")
            draw(plain, f"boundary {boundary}, other codecs", color, "x", "")
        axes.axhline(best - 0.5, color="#b8c2cc", linestyle="--", label="half a point lost")
        axes.set_xscale("log")
        axes.set_ylim(best * LEAST_ACCURACY, best * 1.03)
        axes.set_xlabel("bytes of a request, mean (logarithmic)")
        axes.set_ylabel("accuracy of the last exit, %")
        axes.legend(loc="lower right", ncols=2)
    return made.svg


def write() -> None:
    """Replace what stands between the page's two marks, and the plot. Raises: DataError."""
    try:
        result = msgspec.json.decode(RESULT.read_bytes(), type=Published)
    except (OSError, msgspec.MsgspecError) as error:
        raise DataError(f"{RESULT.name} cannot be used", file=str(RESULT), why=str(error)) from error
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{table(result)}\n{END}{after}", encoding="utf-8")
    PAGE.with_suffix(".svg").write_text(plot(result), encoding="utf-8")
