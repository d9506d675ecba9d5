"""Frame by frame: where a real run and its replays part, and what small errors of the inputs would do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeexit.errors import DataError
from edgeexit.replay.frames import FrameRow, RunRows


@dataclass(frozen=True, slots=True)
class Apart:
    """Where reality parts from the mean of its replays; real less replayed, in points of all frames.

    The first three sum up to what reality has more of right answers by the deadline: frames late in one
    world only, frames answered in time by another exit or at another place, and by the same ones.
    `sent_really_only` and `sent_replayed_only` are frames that one world sent and the other did not.
    """

    right_by_lateness: float
    right_by_exit: float
    right_by_answer: float
    sent_really_only: float
    sent_replayed_only: float


@dataclass(frozen=True, slots=True)
class Shifted:
    """What replays with an input a little wrong give more than those with the measured one. Units: points."""

    offloaded: float
    right: float


def apart(real: RunRows, runs: Sequence[RunRows], *, really_from_ms: float, replayed_from_ms: float) -> Apart:
    """Compare frame by frame; the rows of every run are of the same frames in the same order.

    Raises: DataError when they are not.
    """
    pairs: list[tuple[FrameRow, FrameRow]] = []
    for run in runs:
        if len(run.rows) != len(real.rows):
            raise DataError(
                "runs of different frames", file=run.name, why=f"{len(real.rows)} and {len(run.rows)} frames"
            )
        pairs += [
            (really, replayed)
            for really, replayed in zip(real.rows, run.rows, strict=True)
            if really.captured_ms >= really_from_ms and replayed.captured_ms >= replayed_from_ms
        ]
    lateness = by_exit = by_answer = 0.0
    for really, replayed in pairs:
        more = _right(really) - _right(replayed)
        if really.on_time != replayed.on_time:
            lateness += more
        elif (really.exit, really.place) != (replayed.exit, replayed.place):
            by_exit += more
        else:
            by_answer += more
    share = 100.0 / max(1, len(pairs))
    sent = [(really.uplink_bytes > 0, replayed.uplink_bytes > 0) for really, replayed in pairs]
    return Apart(
        right_by_lateness=round(share * lateness, 2),
        right_by_exit=round(share * by_exit, 2),
        right_by_answer=round(share * by_answer, 2),
        sent_really_only=round(share * sum(a and not b for a, b in sent), 2),
        sent_replayed_only=round(share * sum(b and not a for a, b in sent), 2),
    )


def _right(row: FrameRow) -> float:
    return (row.worth or 0.0) if row.on_time else 0.0
