"""Which baselines were ahead of the project's policy on a row, whether that is chance, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeexit.replay.metrics import Interval, block_interval
from edgeexit.replay.outcome import Outcome

# Kinds of frames that a cause names at most; the first two tell the story.
NAMED_KINDS = 2


@dataclass(frozen=True, slots=True)
class Beaten:
    """A baseline that was ahead on a row. Units: points of the objective, with its 95 % interval.

    `cause` is chance where the interval holds 0; else where the difference arose, frame by frame.
    """

    scenario: str
    baseline: str
    points: float
    low: float
    high: float
    frames: int
    certain: bool
    cause: str


def worth(outcomes: Sequence[Outcome], price: float) -> NDArray[np.float64]:
    """Objective frame by frame, one run after the other; probes are spread over all frames."""
    return np.concatenate(
        [
            outcome.value - price * (outcome.uplink_bytes + outcome.probe_bytes / len(outcome.captured_ms))
            for outcome in outcomes
        ]
    )


def may_be_ahead(theirs: NDArray[np.float64], own: NDArray[np.float64]) -> bool:
    """Whether the frames so far leave it open who is ahead. Shapes: both (F,)."""
    return block_interval(theirs - own).high > 0.0


def beaten(
    scenario: str,
    baseline: str,
    theirs: Sequence[Outcome],
    own: Sequence[Outcome],
    *,
    price: float,
    chosen_on: int = 0,
) -> Beaten | None:
    """The baseline where it was ahead, else None. The runs are paired, in the same worlds.

    `chosen_on`, for rules chosen in hindsight, is the number of runs that the choice has seen.
    """
    ahead = worth(theirs, price) - worth(own, price)
    interval = block_interval(ahead)
    if not interval.mean > 0.0:
        return None
    certain = interval.low > 0.0
    if not certain:
        cause = "chance: the interval holds 0"
    else:
        cause = _chosen(theirs, own, price, chosen_on) or _kinds(theirs, own, ahead)
    return Beaten(
        scenario=scenario,
        baseline=baseline,
        points=100.0 * interval.mean,
        low=100.0 * interval.low,
        high=100.0 * interval.high,
        frames=len(ahead),
        certain=certain,
        cause=cause,
    )


def _chosen(theirs: Sequence[Outcome], own: Sequence[Outcome], price: float, chosen_on: int) -> str | None:
    """The choice itself, where on frames that it has not seen the rule is not ahead for certain."""
    if not 0 < chosen_on < len(theirs):
        return None
    fresh: Interval = block_interval(worth(theirs[chosen_on:], price) - worth(own[chosen_on:], price))
    if fresh.low > 0.0:
        return None
    span = f"{100.0 * fresh.mean:+.2f} ({100.0 * fresh.low:+.2f} to {100.0 * fresh.high:+.2f})"
    return f"chosen in hindsight on a part of these frames; on the others it is {span} points ahead"


def _kinds(theirs: Sequence[Outcome], own: Sequence[Outcome], ahead: NDArray[np.float64]) -> str:
    """Where the difference arose: frames by how each side answered them."""
    ours_by = np.concatenate([_answers(outcome) for outcome in own])
    theirs_by = np.concatenate([_answers(outcome) for outcome in theirs])
    kinds: list[tuple[float, str]] = []
    for ours_kind, theirs_kind in {*zip(ours_by.tolist(), theirs_by.tolist(), strict=True)}:
        here = (ours_by == ours_kind) & (theirs_by == theirs_kind)
        points = 100.0 * float(ahead[here].sum()) / len(ahead)
        share = 100.0 * float(here.mean())
        told = f"{points:+.2f} points where it answered {theirs_kind} and the policy {ours_kind}"
        kinds.append((points, f"{told} ({share:.1f} % of frames)"))
    return "; ".join(told for _, told in sorted(kinds, reverse=True)[:NAMED_KINDS])


def _answers(outcome: Outcome) -> NDArray[np.str_]:
    """How each frame was answered, in words. Shapes: (F,)."""
    local = np.char.add("with exit ", outcome.exits.astype(np.str_))
    answered = np.where(outcome.remote, "from the gateway", local)
    return np.where(outcome.on_time, answered, "not in time")
