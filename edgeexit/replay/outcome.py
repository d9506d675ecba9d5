"""What became of every frame of a replayed run."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeexit.decide.answer import Fate

NEVER = float("nan")
"""Emission time of a frame that was never answered."""

# Whether a frame was answered in time, and why not: the fates of answers, then of frames without one.
ON_TIME, LATE_COMPUTE, LATE_NETWORK, LATE_CUT, REPLACED, NEVER_ANSWERED = range(6)
NUMBER_OF_FATE = {
    Fate.ON_TIME: ON_TIME,
    Fate.LATE_COMPUTE: LATE_COMPUTE,
    Fate.LATE_NETWORK: LATE_NETWORK,
    Fate.LATE_CUT: LATE_CUT,
}
FATE_OF_NUMBER = {number: fate for fate, number in NUMBER_OF_FATE.items()}


@dataclass(slots=True)
class OffloadCount:
    """How the offloads of a run ended; used, unused, late, failed and cancelled sum to sent."""

    sent: int = 0
    used: int = 0
    unused: int = 0
    late: int = 0
    failed: int = 0
    cancelled: int = 0
    probes: int = 0


@dataclass(slots=True)
class AuditCount:
    """Audits of a run; `skipped` frames of the sample found no moment. Units: uplink_bytes, of all sent."""

    sent: int = 0
    skipped: int = 0
    uplink_bytes: int = 0


@dataclass(slots=True)
class Outcome:
    """One device's run, by frame.

    Shapes: all arrays (F,). Units: captured_ms, expiry_ms (last moment at which an answer counts),
    emitted_ms (NaN where never answered), deadline_ms (budget in force at emission, at expiry where
    none); quality, what the answer was worth whenever it came; uplink_bytes and downlink_bytes, of
    the frame's own sends; probe_bytes, of the run.
    """

    policy: str
    scenario: str
    seed: int
    samples: NDArray[np.int64]
    captured_ms: NDArray[np.float64]
    expiry_ms: NDArray[np.float64]
    emitted_ms: NDArray[np.float64]
    deadline_ms: NDArray[np.float64]
    quality: NDArray[np.float64]
    exits: NDArray[np.int64]
    """Exit that answered, -1 where none did."""
    remote: NDArray[np.bool_]
    fates: NDArray[np.int64]
    stages_run: NDArray[np.int64]
    sends: NDArray[np.int64]
    uplink_bytes: NDArray[np.int64]
    downlink_bytes: NDArray[np.int64]
    by_timer: NDArray[np.bool_]
    probe_bytes: int
    decisions: int
    offloads: OffloadCount = field(default_factory=OffloadCount)
    audits: AuditCount = field(default_factory=AuditCount)

    @property
    def on_time(self) -> NDArray[np.bool_]:
        """Which frames were answered while it counted."""
        return np.equal(self.fates, ON_TIME)

    @property
    def value(self) -> NDArray[np.float64]:
        """What every frame was worth: its answer's quality where on time, else 0."""
        return np.where(self.on_time, self.quality, 0.0)
