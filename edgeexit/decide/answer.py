"""What became of a frame: the records that the engine emits, the device writes and reports read."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Place(str, Enum):
    """Where an answer was computed."""

    DEVICE = "device"
    GATEWAY = "gateway"


class OffloadOutcome(str, Enum):
    """How one offload ended."""

    USED = "used"
    """Its reply was the answer."""
    UNUSED = "unused"
    """Its reply came in time, but a local answer was at least as good."""
    LATE = "late"
    """Its reply came after the frame was answered by its deadline."""
    FAILED = "failed"
    """No reply: refused, disconnected, timed out, corrupted."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The one answer of a frame.

    Units: captured_ms, the device's monotonic clock; latency_ms, capture to emission; deadline_ms,
    the latency budget in force at emission; score and quality, fractions; decision_us, one entry a
    decision. `route` names each decision in order, action and reason.
    Shapes: output (C,) logits of the exit that answered.
    """

    frame: int
    source: str
    label: int | None
    score: float
    quality: float
    output: tuple[float, ...]
    exit: int
    place: Place
    captured_ms: float
    latency_ms: float
    deadline_ms: float
    reason: str
    stages_run: int
    offloads: int
    uplink_bytes: int
    link_up: bool | None
    decision_us: tuple[float, ...]
    route: tuple[str, ...] = ()

    @property
    def on_time(self) -> bool:
        """Whether it was emitted by its deadline."""
        return self.latency_ms <= self.deadline_ms


@dataclass(frozen=True, slots=True)
class Drop:
    """A frame that got no answer, and why: replaced, unreadable, shutdown, stage-failed."""

    frame: int
    source: str
    captured_ms: float
    reason: str


@dataclass(frozen=True, slots=True)
class OffloadRecord:
    """One offload, recorded when its end is known.

    Units: elapsed_ms, submit to end; queue_ms and compute_ms of the gateway, None without a reply.
    """

    frame: int
    boundary: int
    codec: str
    uplink_bytes: int
    outcome: OffloadOutcome
    reason: str
    elapsed_ms: float
    queue_ms: float | None = None
    compute_ms: float | None = None
    gateway: str | None = None


Record = Answer | Drop | OffloadRecord
