"""What became of a frame: the records that the engine emits, the device writes and reports read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, overload

from edgeexit.nouns import quickly_made

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Place(str, Enum):
    """Where an answer was computed."""

    DEVICE = "device"
    GATEWAY = "gateway"


class Fate(str, Enum):
    """Whether an answer was in time, and if not, what made it late."""

    ON_TIME = "on-time"
    LATE_COMPUTE = "late-compute"
    """Stages took too long, had to wait for those of another frame, or the board gave them no time."""
    LATE_NETWORK = "late-network"
    """Without sending and waiting for replies it would have been in time."""
    LATE_CUT = "late-cut"
    """The budget was cut to less than had already passed: from then on no answer could be in time."""


def fate_of(late_ms: float, *, network_ms: float, cut: bool) -> Fate:
    """The fate of an answer.

    Units: late_ms, emission less the last moment at which it counted; network_ms, what sending and
    waiting for replies can have delayed it: all of it from before there was anything to answer with, if
    that came too late, else what a sending took after the deadline. `cut` says that the last moment was
    that of a cut which left nothing.
    """
    if late_ms <= 0.0:
        return Fate.ON_TIME
    if cut:
        return Fate.LATE_CUT
    return Fate.LATE_NETWORK if network_ms >= late_ms else Fate.LATE_COMPUTE


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
    CANCELLED = "cancelled"
    """No reply: the frame was answered before, and the gateway let go of the request, or it never left."""


class Output(Sequence[float]):
    """What an exit said, as it came: numbers of Python's are made where somebody asks for them.

    Making a thousand of them takes longer than a decision. It equals every sequence of the same numbers.
    Shapes: values (C,), not changed any more.
    """

    __slots__ = ("_values",)

    def __init__(self, values: NDArray[np.float32]) -> None:
        self._values = values

    @overload
    def __getitem__(self, index: int) -> float: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[float, ...]: ...

    def __getitem__(self, index: int | slice) -> float | tuple[float, ...]:
        if isinstance(index, slice):
            return tuple(self._values[index].tolist())
        return float(self._values[index])

    def __len__(self) -> int:
        return self._values.size

    def __iter__(self) -> Iterator[float]:
        return iter(self._values.tolist())

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, Sequence) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))


@quickly_made
@dataclass(frozen=True, slots=True)
class Answer:
    """The one answer of a frame.

    Units: captured_ms, the device's monotonic clock; latency_ms, capture to emission; deadline_ms,
    the latency budget in force at emission, or at the end that the frame had missed before; score and
    quality, fractions; decision_us, one entry for each time that the policy was asked; network_ms, what
    sending and waiting for replies can have delayed it, None where the device did not tell. `route` names
    each decision in order, action and reason, also those that an earlier one had made beforehand (its
    stretch). `cut` says that the budget was cut to less than had already passed.
    Shapes: output (C,) logits of the exit that answered.
    """

    frame: int
    source: str
    label: int | None
    score: float
    quality: float
    output: Sequence[float]
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
    network_ms: float | None = None
    cut: bool = False

    @property
    def on_time(self) -> bool:
        """Whether it was emitted by its deadline."""
        return self.latency_ms <= self.deadline_ms

    @property
    def fate(self) -> Fate | None:
        """In time, or why not; None for a late answer of a device that did not tell."""
        if self.network_ms is None and not self.on_time and not self.cut:
            return None
        late_ms = self.latency_ms - self.deadline_ms
        return fate_of(late_ms, network_ms=self.network_ms or 0.0, cut=self.cut)


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

    Units: uplink_bytes, all that was sent for it, a cancel too; later_bytes, of those, what its frame's
    Answer could not count yet, below 0 for a payload that it counted and that never left; elapsed_ms,
    submit to end; queue_ms and compute_ms of the gateway, None without a reply.
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
    later_bytes: int = 0


Record = Answer | Drop | OffloadRecord
