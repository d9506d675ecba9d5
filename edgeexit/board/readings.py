"""How the board feels, as nouns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ThrottleCause = Literal["under-voltage", "frequency-capped", "throttled", "soft-temperature-limit", "thermal"]


@dataclass(frozen=True, slots=True)
class Throttling:
    """What holds the board back: now, and at any time since it was started."""

    now: tuple[ThrottleCause, ...]
    since_boot: tuple[ThrottleCause, ...]


@dataclass(frozen=True, slots=True)
class Readings:
    """One look at the board; what it has no sensor for is None.

    Units: at_ms, the device's monotonic clock; load_1min, runnable tasks; cpu_fraction, share of all cores
    that was busy since the reading before.
    """

    at_ms: float
    load_1min: float | None = None
    cpu_fraction: float | None = None
    cpu_hz: float | None = None
    temperature_c: float | None = None
    throttling: Throttling | None = None
    memory_total_bytes: int | None = None
    memory_available_bytes: int | None = None
    resident_bytes: int | None = None
    power_w: float | None = None
