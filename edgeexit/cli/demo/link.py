"""The link that the demo replays: a poor cellular uplink, drawn once from a seed and kept as a trace."""

from __future__ import annotations

from pathlib import Path

import numpy as np

# An image of some 1.5 kB must take between a few and a few hundred milliseconds, so that sending is
# sometimes right and sometimes wrong: the range of a cell's edge, indoors and on the move.
MEDIAN_MBPS = 0.35
# Strong, slow fading: one second says much about the next, little about the one after ten.
PERSISTENCE = 0.8
SIGMA = 0.45
FLOOR_MBPS = 0.03
CEILING_MBPS = 4.0
# One way; wired and radio together, as an edge server behind LTE shows it when busy.
DELAY_MS = 12.0


def write_link(path: Path, *, seconds: float, seed: int) -> None:
    """Write a trace of one step a second in the form "seconds Mbit/s"."""
    random = np.random.default_rng(seed)
    level, lines = 0.0, ["0 1.0"]
    for second in range(1, int(seconds) + 2):
        level = PERSISTENCE * level + float(random.normal(0.0, SIGMA))
        rate_mbps = min(max(MEDIAN_MBPS * float(np.exp(level)), FLOOR_MBPS), CEILING_MBPS)
        lines.append(f"{second} {rate_mbps:.4f}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
