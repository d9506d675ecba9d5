"""A watch on early exits: does the network still agree with itself as it did when it was calibrated?

A small random sample of frames is audited: those that left early by a certified threshold are finished
by the gateway, which tells whether the early answer was the last exit's; the others agree by themselves,
since the risk certified is that of all frames. A frame that a deadline cut short agrees too: whatever it
would have become, the share of early answers that differ can only be smaller for it. The watch bets
against "the risk is at most epsilon": its wealth multiplies with every audit and, while that holds,
exceeds 1/delta in a window with probability at most delta. A breach tightens the thresholds.
Source: testing by betting and Ville's inequality, Waudby-Smith and Ramdas, JRSS-B 2024; letting inputs
run to the end for feedback, Apparate (Dai et al., SOSP 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from zlib import crc32

from edgeexit.decide.risk import NEVER
from edgeexit.errors import ConfigError

# One frame in a hundred is enough to notice a doubled risk within some ten thousand frames, and costs at
# most one offload in a hundred frames.
AUDIT_FRACTION = 0.01
# The reason word of a policy that lets a frame leave early by a certified threshold.
CERTIFIED = "certified"
# Audits after which the wealth starts anew: a drift that begins late must not fight an old fortune lost.
WINDOW = 400
# Shares of the largest bet that cannot ruin; their mean is as good as the best one within a factor.
BETS = (0.1, 0.3, 0.6)
# Each breach takes this share of what is left between the threshold and 1.
TIGHTENING = 0.5
# After so many breaches no exit stops early any more until the bundle is calibrated again.
BREACHES_TO_STOP = 4


class DriftState(Enum):
    """What the watch thinks of the thresholds in force."""

    WATCHING = "watching"
    """Nothing speaks against the guarantee."""
    TIGHTENED = "tightened"
    """A breach was found; thresholds are stricter than the certified ones."""
    STOPPED = "stopped"
    """Too many breaches: no early exits until the bundle is calibrated again."""


@dataclass(frozen=True, slots=True)
class Breach:
    """Evidence that early exits are riskier than promised. Units: risk, fraction of audits that differed."""

    audits: int
    disagreements: int
    risk: float
    epsilon: float
    thresholds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class DriftStatus:
    """How the watch stands; counts since it began."""

    state: DriftState
    audits: int
    disagreements: int
    breaches: int

    def __str__(self) -> str:
        return f"{self.state.value}, {self.disagreements} of {self.audits} audits differ"


def is_audited(frame: int, *, fraction: float = AUDIT_FRACTION, salt: int = 0) -> bool:
    """Whether a frame belongs to the audit sample.

    The choice depends on the frame's number alone, never on what it shows, so the sample is fair.
    """
    drawn = crc32(f"{salt}:{frame}".encode()) / 2**32
    return drawn < fraction


@dataclass(frozen=True, slots=True)
class AuditTerms:
    """Which frames are audited, and what counts as the same answer.

    `salt` gives every device a sample of its own, so that a fleet started together does not audit at
    the same moments. `tolerance` is the largest difference of two values that agree, in their own
    unit; None for classes.
    Raises: ConfigError when the fraction is not between 0 and 1.
    """

    fraction: float = AUDIT_FRACTION
    salt: int = 0
    tolerance: float | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.fraction <= 1.0:
            raise ConfigError(
                f"an audit fraction of {self.fraction:g} is refused",
                key="audit_fraction",
                why="a fraction lies between 0 and 1",
            )

    def picks(self, frame: int) -> bool:
        """Whether this frame belongs to the sample."""
        return is_audited(frame, fraction=self.fraction, salt=self.salt)

    def agree(self, early: Sequence[float], last: Sequence[float]) -> bool:
        """Whether two outputs give the same answer. Shapes: early and last (C,)."""
        if self.tolerance is not None:
            return abs(early[0] - last[0]) <= self.tolerance
        return max(range(len(early)), key=early.__getitem__) == max(range(len(last)), key=last.__getitem__)


class DriftWatch:
    """State machine over audits; `thresholds` are those to use now.

    Units: epsilon, the risk promised; delta, the probability of a false alarm in a window of audits.
    Raises: ConfigError when epsilon or delta is not between 0 and 1.
    """

    __slots__ = (
        "_all_audits",
        "_all_disagreements",
        "_audits",
        "_breaches",
        "_certified",
        "_delta",
        "_disagreements",
        "_epsilon",
        "_thresholds",
        "_wealth",
    )

    def __init__(self, thresholds: Sequence[float], *, epsilon: float, delta: float = 0.1) -> None:
        if not (0.0 < epsilon < 1.0 and 0.0 < delta < 1.0):
            raise ConfigError("drift watch is refused", why="epsilon and delta lie between 0 and 1")
        self._certified = tuple(thresholds)
        self._thresholds = self._certified
        self._epsilon = epsilon
        self._delta = delta
        self._breaches = 0
        self._all_audits = 0
        self._all_disagreements = 0
        self._audits = 0
        self._disagreements = 0
        self._wealth = [1.0] * len(BETS)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Thresholds to use now, never below the certified ones. Shapes: (K,)."""
        return self._thresholds

    @property
    def state(self) -> DriftState:
        """What the watch thinks."""
        if self._breaches == 0:
            return DriftState.WATCHING
        return DriftState.STOPPED if self._breaches >= BREACHES_TO_STOP else DriftState.TIGHTENED

    @property
    def audits(self) -> int:
        """Audits in the present window."""
        return self._audits

    @property
    def status(self) -> DriftStatus:
        """How it stands, in figures."""
        return DriftStatus(self.state, self._all_audits, self._all_disagreements, self._breaches)

    def audit(self, agreed: bool) -> Breach | None:
        """Take one audit; a breach is returned once, when it is found."""
        loss = 0.0 if agreed else 1.0
        self._all_audits += 1
        self._all_disagreements += not agreed
        self._audits += 1
        self._disagreements += not agreed
        epsilon = self._epsilon
        for index, share in enumerate(BETS):
            # A bet of share/epsilon on each audit keeps the wealth positive whatever it says.
            self._wealth[index] *= 1.0 + share / epsilon * (loss - epsilon)
        if sum(self._wealth) / len(BETS) >= 1.0 / self._delta:
            return self._breach()
        if self._audits >= WINDOW:
            self._restart()
        return None

    def recalibrated(self, thresholds: Sequence[float]) -> None:
        """Begin anew with thresholds of a new calibration."""
        self._certified = self._thresholds = tuple(thresholds)
        self._breaches = 0
        self._restart()

    def _breach(self) -> Breach:
        self._breaches += 1
        stopped = self._breaches >= BREACHES_TO_STOP
        last = len(self._certified) - 1
        # The last exit always answers: its threshold stays.
        self._thresholds = tuple(
            level
            if exit_ == last
            else NEVER
            if stopped or level > 1.0
            else level + TIGHTENING * (1.0 - level)
            for exit_, level in enumerate(self._thresholds)
        )
        breach = Breach(
            audits=self._audits,
            disagreements=self._disagreements,
            risk=self._disagreements / self._audits,
            epsilon=self._epsilon,
            thresholds=self._thresholds,
        )
        self._restart()
        return breach

    def _restart(self) -> None:
        self._audits = 0
        self._disagreements = 0
        self._wealth = [1.0] * len(BETS)
