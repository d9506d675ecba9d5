"""What a policy that learns is told: the same observations for the daemon and for the replay.

A driver asks once, `isinstance(policy, Learner)`, and then calls `learn` with every observation as it
becomes known on the device: a stage when it ends, a transfer when its reply (late ones too) or its
failure arrives, a frame when it is closed, an audit between frames. Stages of one stretch are told when
it is over, each with the moment at which it ended. Nothing is told before it could be known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from edgeexit.decide.decision import OffloadOption
from edgeexit.nouns import quickly_made


@quickly_made
@dataclass(frozen=True, slots=True)
class StageDone:
    """A stage ended here. Units: measured_ms, its own duration."""

    frame: int
    stage: int
    measured_ms: float


@quickly_made
@dataclass(frozen=True, slots=True)
class Sent:
    """A payload was handed to the transport. Units: elapsed_ms, since the frame was captured."""

    frame: int
    option: OffloadOption
    elapsed_ms: float


@quickly_made
@dataclass(frozen=True, slots=True)
class Replied:
    """A reply arrived, in time or late; `whole` where the gateway had run all stages.

    Units: elapsed_ms, hand-over to reply; queue_ms and compute_ms, the gateway's own durations.
    """

    frame: int
    option: OffloadOption
    elapsed_ms: float
    queue_ms: float
    compute_ms: float
    downlink_bytes: int
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Failed:
    """No reply will come.

    Units: waited_ms, hand-over to failure; queue_ms and compute_ms, what it had cost the gateway by then,
    None where no gateway says so.
    """

    frame: int
    option: OffloadOption
    waited_ms: float
    reason: str
    queue_ms: float | None = None
    compute_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Pinged:
    """A probe came back. Units: elapsed_ms, whole round trip."""

    uplink_bytes: int
    elapsed_ms: float


@quickly_made
@dataclass(frozen=True, slots=True)
class FrameClosed:
    """A frame was answered, or given up.

    Units: latency_ms, capture to emission, None where it was never answered; budget_ms, the latency
    budget in force then. `exit` is None where there was no answer.
    """

    frame: int
    latency_ms: float | None
    budget_ms: float
    exit: int | None
    stages_run: int
    offloads: int


@dataclass(frozen=True, slots=True)
class Audited:
    """A frame of the audit sample was judged: whether its answer was the last exit's."""

    frame: int
    agreed: bool


Observation = StageDone | Sent | Replied | Failed | Pinged | FrameClosed | Audited


@runtime_checkable
class Learner(Protocol):
    """Port: a policy that takes observations; its state is its own, its choice stays deterministic."""

    def learn(self, observation: Observation, now_ms: float) -> None:
        """Take one observation, made at `now_ms` on the device's monotonic clock."""
        ...
