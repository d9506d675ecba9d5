"""What a trained network is worth, exit by exit and budget by budget, as one value and as JSON."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from edgeexit.decide.calibration import expected_calibration_error
from edgeexit.errors import DataError
from edgeexit.models.cost import cumulative_macs, stage_costs
from edgeexit.models.protocol import MultiExitNetwork
from edgeexit.training.data import Samples, Targets
from edgeexit.training.evaluation import (
    SWEEP,
    Array,
    Logits,
    confidences,
    exit_logits,
    exits_taken,
    solve_thresholds,
    target_fractions,
)

# As many as the papers on calibration use.
CALIBRATION_BINS = 15
# Top-5 says nothing among ten classes or fewer.
TOP = 5


@dataclass(frozen=True, slots=True)
class ExitQuality:
    """One exit over the whole test set: the anytime protocol.

    For classes accuracy, accuracy among the five likeliest (None with ten classes or fewer) and expected
    calibration error; for values mean absolute error, and how far the spread is from it on average.
    """

    macs: int
    accuracy: float | None
    top5_accuracy: float | None
    mean_absolute_error: float | None
    calibration_error: float


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One point of the budgeted-batch protocol. `quality` is accuracy, or mean absolute error for values."""

    q: float
    thresholds: tuple[float | None, ...]
    exit_fractions: tuple[float, ...]
    quality: float
    mean_macs: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything about a network on a test set; thresholds come from the held-out set alone."""

    task: str
    held_out_samples: int
    test_samples: int
    exits: tuple[ExitQuality, ...]
    budgeted: tuple[CurvePoint, ...]


def evaluate(network: MultiExitNetwork, held_out: Samples, test: Samples) -> Evaluation:
    """Each exit, and the 39 points of the budgeted-batch protocol.

    Raises: DataError when a set is empty or they are not of one kind.
    """
    for samples in (held_out, test):
        if len(samples) == 0:
            raise DataError(
                f"{samples.name} holds no samples",
                file=samples.name,
                why="nothing can be counted of it",
                fix="give more images: some are held out, some are for the test",
            )
    if held_out.targets.dtype != test.targets.dtype:
        raise DataError(
            "one set has classes, the other values",
            file=test.name,
            why=f"{held_out.name} and {test.name} are of different data",
            fix="give two parts of the same data",
        )
    image = torch.from_numpy(test.images[:1]).to(next(network.stages.parameters()).device)
    macs = cumulative_macs(stage_costs(network, image))
    return evaluate_outputs(exit_logits(network, held_out), exit_logits(network, test), test.targets, macs)


def evaluate_outputs(held_out: Logits, test: Logits, targets: Targets, macs: tuple[int, ...]) -> Evaluation:
    """The same from outputs that are known.

    Shapes: held_out (K, n, outputs), test (K, N, outputs), targets (N,), macs (K,).
    """
    values = bool(np.issubdtype(targets.dtype, np.floating))
    if values:
        right = np.abs(test[:, :, 0].astype(np.float64) - targets)  # K N 2 -> K N
        sure_held_out, sure = -held_out[:, :, 1].astype(np.float64), -test[:, :, 1].astype(np.float64)
    else:
        right = (test.argmax(axis=-1) == targets).astype(np.float64)  # K N classes -> K N
        sure_held_out, sure = confidences(held_out), confidences(test)
    exits = tuple(
        _value_quality(cost, errors, -certain) if values else _class_quality(cost, logits, certain, targets)
        for cost, errors, certain, logits in zip(macs, right, sure, test, strict=True)
    )
    curve = tuple(_point(q, sure_held_out, sure, right, macs) for q in SWEEP)
    task = "regression" if values else "classification"
    return Evaluation(task, held_out.shape[1], test.shape[1], exits, curve)


def spread_calibration_error(spread: Array, errors: Array) -> float:
    """Mean distance of spread from mean error over bins of as many samples each.

    Shapes: (N,), (N,). Units: those of the values.
    """
    order = np.argsort(spread, kind="stable")
    parts: list[NDArray[np.int64]] = np.array_split(order, min(CALIBRATION_BINS, len(order)))
    distances = [abs(float(spread[p].mean() - errors[p].mean())) * len(p) for p in parts]
    return sum(distances) / len(order)


def encode_evaluation(evaluation: Evaluation) -> bytes:
    """As JSON, indented; a threshold that no sample meets is null."""
    return msgspec.json.format(msgspec.json.encode(evaluation), indent=2) + b"\n"


def render_evaluation(evaluation: Evaluation) -> str:
    """For people: one line an exit, and the curve at three budgets."""
    values = evaluation.task == "regression"
    lines = [f"{evaluation.test_samples:,} test samples, {evaluation.held_out_samples:,} held out"]
    for k, each in enumerate(evaluation.exits):
        quality = (
            f"error {each.mean_absolute_error:.4g}" if each.accuracy is None else f"{each.accuracy:.2%} right"
        )
        lines.append(
            f"exit {k}: {quality}, calibration error {each.calibration_error:.4g},"
            f" {each.macs / 1e6:.1f} M multiply-adds"
        )
    whole = evaluation.exits[-1].macs
    for share in (0.25, 0.5, 0.75):
        within = [point for point in evaluation.budgeted if point.mean_macs <= share * whole]
        if within:
            best = (min if values else max)(within, key=lambda point: point.quality)
            shown = f"error {best.quality:.4g}" if values else f"{best.quality:.2%} right"
            lines.append(f"budget {share:.0%} of the whole network: {shown}")
    return "\n".join(lines)


def _class_quality(macs: int, logits: Logits, confidence: Array, targets: Targets) -> ExitQuality:
    correct = (logits.argmax(axis=-1) == targets).astype(np.float64)
    top5 = None
    if logits.shape[1] > 2 * TOP:
        likeliest = np.argpartition(-logits, TOP, axis=1)[:, :TOP]  # N classes -> N 5
        top5 = float((likeliest == targets[:, None]).any(axis=1).mean())
    return ExitQuality(
        macs, float(correct.mean()), top5, None, expected_calibration_error(confidence, correct > 0.5)
    )


def _value_quality(macs: int, errors: Array, spread: Array) -> ExitQuality:
    return ExitQuality(macs, None, None, float(errors.mean()), spread_calibration_error(spread, errors))


def _point(q: float, held_out: Array, sure: Array, right: Array, macs: tuple[int, ...]) -> CurvePoint:
    exits = len(macs)
    thresholds = solve_thresholds(held_out, target_fractions(q, exits))
    taken = exits_taken(sure, thresholds)
    shares = np.bincount(taken, minlength=exits) / len(taken)
    return CurvePoint(
        q=q,
        thresholds=tuple(each if np.isfinite(each) else None for each in thresholds),
        exit_fractions=tuple(float(share) for share in shares),
        quality=float(right[taken, np.arange(len(taken))].mean()),
        mean_macs=float(shares @ np.asarray(macs, dtype=np.float64)),
    )
