"""What every trace format is read into, and the checks that all of them share."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from edgeexit.errors import TraceError

# Ten gigabytes a second: faster than any link that this project meets; above it a unit was mistaken.
RATE_CAP_BYTES_PER_MS = 1e7
# Thirty days: longer than any published trace; above it a unit was mistaken.
DURATION_CAP_MS = 30 * 86_400_000.0


@dataclass(frozen=True, slots=True)
class Steps:
    """Bytes that a link carries between rising edges, once.

    Units: edges_ms, from 0; capacity_bytes, one entry between each two edges; latency_ms, constant
    one-request latency where the format states one.
    """

    edges_ms: tuple[float, ...]
    capacity_bytes: tuple[float, ...]
    latency_ms: float | None = None


def number(text: str, *, name: str, file: str, line: int) -> float:
    """One finite, non-negative number. Raises: TraceError naming the line."""
    try:
        # float() would also take 1_000.
        value = float(text.replace("_", "?"))
    except ValueError as error:
        raise TraceError(f"{name} {text[:40]!r} is not a number", file=file, line=line) from error
    return checked(value, name=name, file=file, line=line)


def checked(value: float, *, name: str, file: str, line: int) -> float:
    """The value, where it is finite and not negative. Raises: TraceError naming the line."""
    if not isfinite(value):
        raise TraceError(f"{name} is {value}", file=file, line=line)
    if value < 0.0:
        raise TraceError(f"{name} {value:g} is negative", file=file, line=line)
    return value


def checked_steps(edges_ms: list[float], capacity_bytes: list[float], *, file: str) -> None:
    """Checks of the whole file. Raises: TraceError when it is too long or never carries a byte."""
    if edges_ms[-1] > DURATION_CAP_MS:
        raise TraceError(
            f"{edges_ms[-1] / 86_400_000.0:.0f} days long, {DURATION_CAP_MS / 86_400_000.0:.0f} are allowed",
            file=file,
            fix="check the unit of the time column",
        )
    if not sum(capacity_bytes) > 0.0:
        raise TraceError("the bandwidth is zero throughout", file=file, fix="use another trace")


def checked_rate(bytes_per_ms: float, *, file: str, line: int) -> float:
    """The rate, where it is believable. Raises: TraceError naming the line."""
    if bytes_per_ms > RATE_CAP_BYTES_PER_MS:
        raise TraceError(
            f"a rate of {bytes_per_ms * 8e-3:.3g} Mbit/s is not believable",
            file=file,
            line=line,
            fix="check the unit of the bandwidth column",
        )
    return bytes_per_ms
