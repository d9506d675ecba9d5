"""What the exits are worth: each alone, for an unknown budget, and for a budget over a whole set.

Source: the protocol of MSDNet (Huang et al., ICLR 2018) as its successors run it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from edgeexit.models.protocol import MultiExitNetwork, run_exits
from edgeexit.training.data import Samples, Targets

# The sweep of the protocol: q = i/20 for i = 1 … 39, from almost all early to mostly late.
SWEEP = tuple(i / 20 for i in range(1, 40))
# Large enough to keep the cores busy, small enough for the activations of a ViT at 224 pixels.
EVALUATION_BATCH = 256

Array = NDArray[np.float64]
Logits = NDArray[np.float32]


@torch.no_grad()
def exit_logits(network: MultiExitNetwork, samples: Samples, *, batch_size: int = EVALUATION_BATCH) -> Logits:
    """Every exit's answer to every sample, in evaluation mode; the network is left in it.

    Shapes: (K, N, classes).
    """
    network.stages.eval()
    device = next(network.stages.parameters()).device
    parts = []
    for start in range(0, len(samples), batch_size):
        images = torch.from_numpy(samples.images[start : start + batch_size]).to(device)
        parts.append(
            torch.stack(run_exits(network, images)).cpu().numpy()
        )  # K of (b, classes) -> K b classes
    return np.concatenate(parts, axis=1)  # K N classes


def confidences(logits: Logits) -> Array:
    """Largest softmax probability of each answer.

    Shapes: logits (K, N, classes); result (K, N). Units: fraction.
    """
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    result: Array = 1.0 / shifted.sum(axis=-1)  # K N classes -> K N; the largest term is exp(0)
    return result


def exit_accuracies(logits: Logits, targets: Targets) -> tuple[float, ...]:
    """Accuracy of each exit over all samples.

    Shapes: logits (K, N, classes), targets (N,). Units: fraction.
    """
    return tuple(float(a) for a in (logits.argmax(axis=-1) == targets).mean(axis=-1))


def anytime_accuracy(
    budget_macs: float, cumulative_macs: Sequence[int], accuracies: Sequence[float]
) -> float | None:
    """Accuracy of the last exit that the budget reaches; None where it reaches none."""
    reached = [a for cost, a in zip(cumulative_macs, accuracies, strict=True) if cost <= budget_macs]
    return reached[-1] if reached else None


@dataclass(frozen=True, slots=True)
class BudgetedPoint:
    """One point of the accuracy/cost curve. Units: fractions; mean_macs, multiply-adds a sample."""

    q: float
    thresholds: tuple[float, ...]
    exit_fractions: tuple[float, ...]
    accuracy: float
    mean_macs: float


def target_fractions(q: float, exits: int) -> Array:
    """Which share of samples each exit shall answer: proportional to q^k.

    Shapes: (K,). Units: fractions, sum 1. Raises: ValueError unless q > 0.
    """
    if q <= 0:
        raise ValueError(f"q is {q}, it must be over 0")
    shares = np.exp(np.arange(1, exits + 1) * np.log(q))
    result: Array = shares / shares.sum()
    return result


def solve_thresholds(confidence: Array, fractions: Array) -> tuple[float, ...]:
    """Confidences that make each exit answer its share of a held-out set.

    An exit without a share gets infinity and is never taken; the last one takes all that is left.

    Shapes: confidence (K, N), fractions (K,); thresholds (K,).
    """
    exits, samples = confidence.shape
    thresholds = [float("inf")] * (exits - 1) + [float("-inf")]
    left = np.ones(samples, dtype=bool)
    for k in range(exits - 1):
        share = int(np.floor(samples * fractions[k]))
        if 0 < share <= left.sum():
            thresholds[k] = float(np.sort(confidence[k, left])[-share])
            left &= confidence[k] < thresholds[k]
    return tuple(thresholds)


def exits_taken(confidence: Array, thresholds: Sequence[float]) -> NDArray[np.int64]:
    """The first exit of each sample whose confidence meets its threshold.

    Shapes: confidence (K, N), thresholds (K,); result (N,).
    """
    met = confidence >= np.asarray(thresholds)[:, None]  # K N
    taken: NDArray[np.int64] = met.argmax(axis=0).astype(np.int64)  # K N -> N
    return taken


def budgeted_point(
    q: float,
    held_out: Logits,
    test: Logits,
    targets: Targets,
    cumulative_macs: Sequence[int],
) -> BudgetedPoint:
    """Thresholds solved on the held-out answers, accuracy and mean cost on the test answers.

    Shapes: held_out (K, n, classes), test (K, N, classes), targets (N,), cumulative_macs (K,).
    """
    exits = len(test)
    thresholds = solve_thresholds(confidences(held_out), target_fractions(q, exits))
    taken = exits_taken(confidences(test), thresholds)
    labels = test.argmax(axis=-1)[taken, np.arange(len(targets))]  # K N classes -> N
    shares = np.bincount(taken, minlength=exits) / len(taken)
    return BudgetedPoint(
        q=q,
        thresholds=thresholds,
        exit_fractions=tuple(float(share) for share in shares),
        accuracy=float((labels == targets).mean()),
        mean_macs=float(shares @ np.asarray(cumulative_macs, dtype=np.float64)),
    )


def budgeted_curve(
    held_out: Logits, test: Logits, targets: Targets, cumulative_macs: Sequence[int]
) -> tuple[BudgetedPoint, ...]:
    """The 39 points of the protocol.

    Shapes: as for `budgeted_point`.
    """
    return tuple(budgeted_point(q, held_out, test, targets, cumulative_macs) for q in SWEEP)
