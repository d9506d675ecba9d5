"""The device's clock."""

from __future__ import annotations

from time import monotonic_ns


def monotonic_ms() -> float:
    """Monotonic milliseconds: the one clock of the daemon."""
    return monotonic_ns() / 1e6
