"""What a demo run is: its folders, its clock, its budgets and its faults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# The budget goes up and down between 0.3 and 3 times the board's full local time: at the low end only
# the first exits fit, at the high end everything does, in between somebody has to decide.
BUDGET_FACTORS = (3.0, 1.2, 0.6, 0.3, 0.8, 1.6, 0.45, 1.0, 2.2, 0.7)
BUDGET_STEP_FRACTION = 1 / 30
# A little slower than the board computes all stages, so that "always full local" is not drowned by
# its own queue: what is compared are decisions, not backlogs.
PERIOD_FACTOR = 1.25
# A folder source and a results file keep up with this on any machine.
LEAST_PERIOD_MS = 20.0

OUTAGE_AT, OUTAGE_FOR = 0.30, 0.10
GATEWAY_KILLED_AT, GATEWAY_GONE_FOR = 0.60, 0.10


@dataclass(frozen=True, slots=True)
class Folders:
    """Where a demo keeps what it makes, so that a second one finds it."""

    root: Path

    @property
    def bundle(self) -> Path:
        """The converted bundle."""
        return self.root / "bundle"

    @property
    def work(self) -> Path:
        """Checkpoint and whatever else training keeps."""
        return self.root / "work"

    @property
    def images(self) -> Path:
        """Test images, named by index and label."""
        return self.root / "images"

    @property
    def board(self) -> Path:
        """The board that is a folder."""
        return self.root / "board"

    @property
    def store(self) -> Path:
        """The gateway's bundles."""
        return self.root / "store"

    @property
    def run(self) -> Path:
        """Results, logs and the trace of the last run."""
        return self.root / "run"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong on the way. Units: seconds since the run began."""

    begin_s: float
    end_s: float

    def holds(self, elapsed_s: float) -> bool:
        """Whether it is in force."""
        return self.begin_s <= elapsed_s < self.end_s


@dataclass(frozen=True, slots=True)
class Timing:
    """How long everything takes, in units of what this board needs for all stages.

    Units: full_local_ms, all stages on the board that is played.
    """

    seconds: float
    full_local_ms: float

    @property
    def period_ms(self) -> float:
        """Time between frames."""
        return max(LEAST_PERIOD_MS, PERIOD_FACTOR * self.full_local_ms)

    @property
    def budgets(self) -> tuple[tuple[float, float], ...]:
        """Steps of (start_ms, latency_ms)."""
        step_ms = self.seconds * 1000.0 * BUDGET_STEP_FRACTION
        return tuple(
            (index * step_ms, factor * self.full_local_ms) for index, factor in enumerate(BUDGET_FACTORS)
        )

    @property
    def budget_period_ms(self) -> float:
        """After which the schedule begins anew."""
        return self.seconds * 1000.0 * BUDGET_STEP_FRACTION * len(BUDGET_FACTORS)

    @property
    def frames(self) -> int:
        """How many frames the source gives."""
        return max(1, int(self.seconds * 1000.0 / self.period_ms))

    @property
    def outage(self) -> Fault:
        """When the link carries nothing."""
        return Fault(OUTAGE_AT * self.seconds, (OUTAGE_AT + OUTAGE_FOR) * self.seconds)

    @property
    def gateway_gone(self) -> Fault:
        """When the gateway is dead, killed without warning."""
        return Fault(GATEWAY_KILLED_AT * self.seconds, (GATEWAY_KILLED_AT + GATEWAY_GONE_FOR) * self.seconds)
