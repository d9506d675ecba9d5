"""Matplotlib, kept to this file: one look for all plots, given as inline SVG."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeexit.errors import MissingExtra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that stay apart for colour-blind readers (Okabe and Ito), muted for large areas.
DEVICE = "#0072b2"
GATEWAY = "#e69f00"
BAD = "#c8442f"
GOOD = "#2a9d6f"
BUDGET = "#8492a3"
SERIES = ("#0072b2", "#e69f00", "#2a9d6f", "#cc79a7", "#56b4e9", "#d55e00", "#7a6ff0", "#8c8c8c")
# From the first exit to the last, light to dark.
_LIGHT, _DARK = (0.74, 0.86, 0.95), (0.0, 0.32, 0.55)


@dataclass(slots=True)
class Drawing:
    """A figure in the making; `svg` holds it once the drawing is closed."""

    figure: Figure
    axes: list[Axes]
    svg: str = ""


@contextmanager
def drawing(
    name: str,
    *,
    rows: int = 1,
    width_in: float = 10.0,
    height_in: float = 3.0,
    share_x: bool = False,
    heights: tuple[float, ...] | None = None,
) -> Iterator[Drawing]:
    """Draw in one look; the result is SVG for a page, without ids that clash with another's.

    Raises: MissingExtra where matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", extra="report", needed_for="drawing plots") from error
    look = mpl.rc_context(
        {
            "svg.hashsalt": name,
            "font.family": "sans-serif",
            "font.size": 10.0,
            "svg.fonttype": "none",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": "#b8c2cc",
            "axes.labelcolor": "#5d6b7a",
            "axes.titlesize": 11.0,
            "axes.titlelocation": "left",
            "axes.titleweight": "semibold",
            "axes.axisbelow": True,
            "axes.grid": True,
            "axes.grid.axis": "y",
            "grid.color": "#e9edf1",
            "xtick.color": "#5d6b7a",
            "ytick.color": "#5d6b7a",
            "legend.frameon": False,
            "legend.fontsize": 9.0,
            "lines.linewidth": 1.6,
        }
    )
    with look:
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        FigureCanvasSVG(figure)
        grid = figure.subplots(rows, 1, sharex=share_x, squeeze=False, height_ratios=heights)
        made = Drawing(figure, [row[0] for row in grid])
        yield made
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        made.svg = _inline(buffer.getvalue(), name)


def exit_colors(count: int) -> list[tuple[float, float, float]]:
    """A shade an exit, light for the first."""
    steps = [index / max(1, count - 1) for index in range(count)]
    return [
        (
            _LIGHT[0] + step * (_DARK[0] - _LIGHT[0]),
            _LIGHT[1] + step * (_DARK[1] - _LIGHT[1]),
            _LIGHT[2] + step * (_DARK[2] - _LIGHT[2]),
        )
        for step in steps
    ]


def _inline(svg: str, name: str) -> str:
    """The svg element alone, its ids made this drawing's own, its size left to the page."""
    body = svg[svg.index("<svg") :]
    head, rest = body.split(">", 1)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    rest = re.sub(r"<metadata>.*?</metadata>", "", rest, flags=re.DOTALL)
    prefix = re.sub(r"[^a-z0-9]+", "-", name.lower()) + "-"
    rest = re.sub(r'\bid="', f'id="{prefix}', rest)
    rest = re.sub(r'(href="#|url\(#)', rf"\1{prefix}", rest)
    return f"{head}>{rest}".strip()
