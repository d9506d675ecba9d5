"""Curves of an evaluation as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgeexit.errors import MissingExtra
from edgeexit.training.report import Evaluation


def plot_curves(evaluations: Mapping[str, Evaluation], path: Path) -> None:
    """Quality over multiply-adds, anytime and budgeted, one colour a network; the suffix names the format.

    Raises: MissingExtra, OSError.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", extra="report", needed_for="plotting curves") from error
    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    values = False
    for index, (name, evaluation) in enumerate(evaluations.items()):
        colour = f"C{index}"
        values = evaluation.task == "regression"
        costs = [each.macs / 1e6 for each in evaluation.exits]
        anytime = [each.mean_absolute_error if values else each.accuracy for each in evaluation.exits]
        axes.step(costs, [each or 0.0 for each in anytime], "o--", where="post", color=colour, alpha=0.6)
        points = sorted((point.mean_macs / 1e6, point.quality) for point in evaluation.budgeted)
        axes.plot([cost for cost, _ in points], [quality for _, quality in points], color=colour, label=name)
    axes.set_xlabel("mean multiply-adds of one image, millions")
    axes.set_ylabel("mean absolute error" if values else "accuracy")
    axes.set_title("budgeted batch (line), anytime (steps)")
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
