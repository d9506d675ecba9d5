"""Links that the check makes itself, as traces in the pensieve form, and constant ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeexit.replay.formats.steps import Steps
from edgeexit.replay.traces import LinkTrace

# Of an IP packet of 1500 bytes, 1448 are payload: 20 bytes IP, 20 TCP, 12 time stamps.
PACKET_BYTES = 1500
PACKET_PAYLOAD_BYTES = 1448
PAYLOAD_SHARE = PACKET_PAYLOAD_BYTES / PACKET_BYTES

# Mobile uplinks wander: one step of half a second says much about the next, little about the tenth.
STEP_S = 0.5
PERSISTENCE = 0.85
SIGMA = 0.35
# Deep short fades, as behind a lorry or at the edge of a cell.
FADE_PROBABILITY = 0.03
FADE_FACTOR = 0.15
# Between a quarter and four times the median the policy has something to decide.
LEAST_FACTOR, MOST_FACTOR = 0.1, 4.0


def write_mobile(path: Path, *, median_mbps: float, seconds: float, seed: int) -> None:
    """Write an LTE-like uplink: a wandering level with deep fades, the same for the same seed."""
    random = np.random.default_rng([seed, 4])
    level, lines = 0.0, ["0 1.0"]
    for step in range(1, int(seconds / STEP_S) + 2):
        level = PERSISTENCE * level + float(random.normal(0.0, SIGMA))
        factor = min(max(float(np.exp(level)), LEAST_FACTOR), MOST_FACTOR)
        if random.random() < FADE_PROBABILITY:
            factor *= FADE_FACTOR
        lines.append(f"{step * STEP_S:g} {median_mbps * factor:.4f}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_steady(path: Path, *, mbps: float) -> None:
    """Write a link whose rate never changes."""
    path.write_text(f"0 {mbps:.4f}\n60 {mbps:.4f}\n", encoding="utf-8")


def constant(mbps: float) -> LinkTrace:
    """A link whose rate never changes."""
    return LinkTrace(f"{mbps:g} Mbit/s", Steps((0.0, 1000.0), (mbps * 125_000.0,)))
