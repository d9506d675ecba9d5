"""The link that the demo replays: a fading radio, drawn once from a seed and kept as a trace.

Its speed is set against the board that is played, so that on any machine sending is sometimes right
and sometimes wrong: an image takes, in the median, a good third of what the board needs for all stages.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

IMAGE_TIME_FRACTION = 0.35
# One way, again of the board's full local time.
DELAY_FRACTION = 0.08
# Strong, slow fading: one second says much about the next, little about the one after ten.
PERSISTENCE = 0.8
SIGMA = 0.45
# Beyond a factor of twelve either way it is another link, not a fading one.
RANGE = 12.0


@dataclass(frozen=True, slots=True)
class Link:
    """What the link is like. Units: median_mbps, Mbit/s; delay_ms, one way."""

    median_mbps: float
    delay_ms: float


def link_for(full_local_ms: float, payload_bytes: int) -> Link:
    """The link on which sending this payload competes with this much computing."""
    image_ms = IMAGE_TIME_FRACTION * full_local_ms
    return Link(payload_bytes * 8.0 / image_ms / 1000.0, DELAY_FRACTION * full_local_ms)


def write_link(path: Path, link: Link, *, seconds: float, seed: int) -> None:
    """Write a trace of one step a second in the form "seconds Mbit/s"."""
    random = np.random.default_rng(seed)
    level, lines = 0.0, ["0 1.0"]
    for second in range(1, int(seconds) + 2):
        level = PERSISTENCE * level + float(random.normal(0.0, SIGMA))
        factor = min(max(float(np.exp(level)), 1.0 / RANGE), RANGE)
        lines.append(f"{second} {link.median_mbps * factor:.5f}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
