"""Round-trip times as they were measured between clients and servers near and far.

Each model is a lognormal body with a rare exponential tail, fitted so that its p50, p90 and p99 are
those measured. Radios sleep: the first packet after a pause pays for waking them, so a link has one
model for packets after a pause and one for packets in a stream.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class RttModel:
    """A distribution of round-trip times of small packets.

    Units: median_ms and tail_mean_ms; sigma, of the logarithm; tail_probability, fraction.
    """

    median_ms: float
    sigma: float
    tail_probability: float
    tail_mean_ms: float

    def sample(self, random: np.random.Generator, count: int) -> NDArray[np.float64]:
        """Independent draws. Shapes: result (count,). Units: milliseconds."""
        body = self.median_ms * np.exp(self.sigma * random.standard_normal(count))
        tail = random.exponential(self.tail_mean_ms, count)
        return np.where(random.random(count) < self.tail_probability, body + tail, body)


@dataclass(frozen=True, slots=True)
class LinkDelay:
    """Round-trip times of a link: after a pause of `wakes_after_ms`, and within a stream of packets."""

    name: str
    idle: RttModel
    busy: RttModel
    wakes_after_ms: float = 1000.0


# Body and tail reproduce the MECPerf figures p50/p90/p99: 2/2/2 ms.
_WIFI_EDGE = RttModel(2.0, 0.08, 0.005, 300.0)
# 3/5/8 ms under 50 Mbit/s of cross traffic.
_WIFI_EDGE_CROWDED = RttModel(3.0, 0.38, 0.005, 300.0)
# 39/41/45 ms.
_WIFI_CLOUD = RttModel(39.0, 0.045, 0.007, 300.0)
# 41/52/630 ms: one packet in thirty waits for the radio, half a second on average.
_LTE_EDGE_IDLE = RttModel(41.0, 0.165, 0.03, 537.0)
# 35/52/62 ms; the measured body is narrower above than a lognormal one.
_LTE_EDGE_BUSY = RttModel(35.0, 0.26, 0.002, 300.0)
# 73/92/653 ms.
_LTE_CLOUD_IDLE = RttModel(73.0, 0.155, 0.03, 528.0)
# Not measured: the busy edge model moved by the 32 ms that lie between edge and cloud when idle.
_LTE_CLOUD_BUSY = RttModel(67.0, 0.15, 0.002, 300.0)

WIFI_EDGE = LinkDelay("wifi-edge", _WIFI_EDGE, _WIFI_EDGE)
WIFI_EDGE_CROWDED = LinkDelay("wifi-edge-crowded", _WIFI_EDGE_CROWDED, _WIFI_EDGE_CROWDED)
WIFI_CLOUD = LinkDelay("wifi-cloud", _WIFI_CLOUD, _WIFI_CLOUD)
LTE_EDGE = LinkDelay("lte-edge", _LTE_EDGE_IDLE, _LTE_EDGE_BUSY)
LTE_CLOUD = LinkDelay("lte-cloud", _LTE_CLOUD_IDLE, _LTE_CLOUD_BUSY)


MEASURED = {each.name: each for each in (WIFI_EDGE, WIFI_EDGE_CROWDED, WIFI_CLOUD, LTE_EDGE, LTE_CLOUD)}
"""The links that were measured, by name."""


def constant_delay(rtt_ms: float) -> LinkDelay:
    """A link whose round trip never varies."""
    model = RttModel(rtt_ms, 0.0, 0.0, 0.0)
    return LinkDelay(f"constant-{rtt_ms:g}ms", model, model)
