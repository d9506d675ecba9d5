"""The table and the plot of docs/boundaries.md, out of the result that was published."""

from __future__ import annotations

from pathlib import Path

import msgspec

from benchmarks.boundaries import Row
from benchmarks.results import RESULTS
from edgeexit.errors import DataError
from edgeexit.replay.canvas import DEVICE, GATEWAY, drawing, exit_colors

RESULT = RESULTS / "boundaries.json"
PAGE = Path(__file__).parent.parent / "docs" / "boundaries.md"
BEGIN = "<!-- made by python -m benchmarks.boundaries --page -->"
END = "<!-- until here -->"

# Below this nobody would send the payload; the plot would only get flatter.
LEAST_ACCURACY = 0.8


class Published(msgspec.Struct, frozen=True):
    """What a page needs of the result."""

    task: str
    samples: int
    accuracy_by_exit: tuple[float, ...]
    rows: tuple[Row, ...]
    best_image: str | None
    best_image_bytes: int | None
    best_boundary: str | None
    best_boundary_bytes: int | None
    bytes_ratio_at_half_point: float | None
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


def table(result: Published) -> str:
    """The page's table, in Markdown."""
    exits = ", ".join(f"{100 * each:.1f} %" for each in result.accuracy_by_exit)
    lines = [
        f"{result.samples:,} test canvases ({result.task}); accuracy by exit {exits}.",
        "",
        verdict(result),
        "",
        "| boundary | codec | bytes, mean | bytes, p95 | accuracy | points lost |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(result.rows, key=lambda row: (row.boundary, row.mean_bytes)):
        ideal = "" if row.ideal_bytes is None else f" ({row.ideal_bytes:,.0f} ideal)"
        lines.append(
            f"| {row.boundary} | {row.codec} | {row.mean_bytes:,}{ideal} | {row.p95_bytes:,}"
            f" | {100 * row.accuracy:.1f} % | {row.lost_points:+.2f} ± {row.lost_points_error:.2f} |"
        )
    return "\n".join(lines)


def plot(result: Published) -> str:
    """Accuracy against bytes, as an svg element."""
    best = result.accuracy_by_exit[-1]
    inner = max(row.boundary for row in result.rows)
    shades = exit_colors(max(2, inner + 1))
    with drawing("boundaries", rows=1) as made:
        (axes,) = made.axes
        for kind, marker in (("jpeg", "o"), ("webp", "s")):
            for half in (False, True):
                rows = [
                    row
                    for row in result.rows
                    if row.codec.startswith(kind) and row.codec.endswith("size") is half
                ]
                rows.sort(key=lambda row: row.mean_bytes)
                axes.plot(
                    [row.mean_bytes for row in rows],
                    [100 * row.accuracy for row in rows],
                    color=GATEWAY,
                    marker=marker,
                    markersize=4,
                    linestyle=":" if half else "-",
                    label=f"image, {kind.upper()}" + (", half size" if half else ""),
                )
        for boundary in range(1, inner + 1):
            learnt = [r for r in result.rows if r.boundary == boundary and r.codec.startswith("bottleneck")]
            plain = [
                r for r in result.rows if r.boundary == boundary and not r.codec.startswith("bottleneck")
            ]
            learnt.sort(key=lambda row: row.mean_bytes)
            color = DEVICE if inner == 1 else shades[boundary]
            axes.plot(
                [row.mean_bytes for row in learnt],
                [100 * row.accuracy for row in learnt],
                color=color,
                marker="^",
                markersize=5,
                label=f"boundary {boundary}, bottleneck",
            )
            axes.plot(
                [row.mean_bytes for row in plain],
                [100 * row.accuracy for row in plain],
                color=color,
                marker="x",
                linestyle="",
                label=f"boundary {boundary}, other codecs",
            )
        axes.axhline(100 * best - 0.5, color="#b8c2cc", linestyle="--", label="half a point lost")
        axes.set_xscale("log")
        axes.set_ylim(100 * best * LEAST_ACCURACY, 100 * best * 1.03)
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
