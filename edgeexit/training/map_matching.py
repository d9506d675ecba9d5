"""How activation maps of exits are matched while training: the settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class MapMatching:
    """Exits' class-agnostic maps are drawn to the map of the right class.

    `teacher` is each exit's own class map (CAM-loss) or the last exit's for all before it (CAAM-CAM
    distillation). `weight` counts from the fraction `start` of training on, when maps mean something.
    """

    teacher: Literal["own", "last"] = "own"
    # Both of the only implementation that could be read: 3, after half of the epochs.
    weight: float = 3.0
    start: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what cannot match. Raises: ValueError."""
        if self.teacher not in ("own", "last") or not self.weight > 0 or not 0.0 <= self.start < 1.0:
            raise ValueError("teacher is own or last, weight over 0, start from 0 to below 1")
