"""The snapshot that a device publishes every few seconds."""

from __future__ import annotations

from dataclasses import dataclass

from edgeexit.board.readings import Readings
from edgeexit.decide.drift import DriftStatus
from edgeexit.device.tally import Counts


@dataclass(frozen=True, slots=True)
class LoopState:
    """What only the inference loop knows. Units: slowdown, against the stage times measured at start.

    `drift` is None where early exits are not watched; `audits_skipped` found no free moment or link.
    """

    budget_ms: float
    slowdown: float
    link_up: bool | None
    drift: DriftStatus | None = None
    audits_skipped: int = 0


@dataclass(frozen=True, slots=True)
class Metrics:
    """One snapshot. Units: uptime_s since the daemon started; counts since then; fps since the one before."""

    boot_id: str
    bundle: str
    uptime_s: float
    fps: float
    counts: Counts
    loop: LoopState
    board: Readings


class Snapshots:
    """Makes snapshots, one after another, from one thread."""

    def __init__(self, boot_id: str, bundle: str, started_ms: float) -> None:
        self._boot_id = boot_id
        self._bundle = bundle
        self._started_ms = started_ms
        self._before_ms = started_ms
        self._answered_before = 0

    def take(self, counts: Counts, loop: LoopState, board: Readings) -> Metrics:
        """The snapshot at the time of this reading of the board."""
        since_ms = board.at_ms - self._before_ms
        fps = (counts.answered - self._answered_before) / since_ms * 1000.0 if since_ms > 0.0 else 0.0
        self._before_ms, self._answered_before = board.at_ms, counts.answered
        return Metrics(
            boot_id=self._boot_id,
            bundle=self._bundle,
            uptime_s=(board.at_ms - self._started_ms) / 1000.0,
            fps=fps,
            counts=counts,
            loop=loop,
            board=board,
        )
