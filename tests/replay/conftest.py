"""A small network, board and link that the replay's tests share."""

from __future__ import annotations

import pytest

from edgeexit.decide.decision import OffloadOption
from edgeexit.replay.deadlines import Redrawn
from edgeexit.replay.delays import WIFI_EDGE
from edgeexit.replay.formats.steps import Steps
from edgeexit.replay.profile import CostProfile
from edgeexit.replay.recording import RecordedOption, Recording
from edgeexit.replay.synthetic import synthetic_recording
from edgeexit.replay.traces import LinkTrace
from edgeexit.replay.world import Scenario

IMAGE = RecordedOption(boundary=0, codec="u8", payload_bytes=15_000, quality_cost=0.0)
TOKENS = RecordedOption(boundary=1, codec="int8", payload_bytes=37_824, quality_cost=0.01)


@pytest.fixture(scope="session")
def recording() -> Recording:
    """Four exits of .58, .70, .77 and .80, the image and one boundary to send."""
    return synthetic_recording(options=(IMAGE, TOKENS), stage_ms=(49.3,) * 4)


@pytest.fixture(scope="session")
def profile() -> CostProfile:
    """Four equal stages of 49.3 ms, a gateway of 1 ms each."""
    options = tuple(
        OffloadOption(each.boundary, each.codec, each.payload_bytes, 0.2, each.quality_cost)
        for each in (IMAGE, TOKENS)
    )
    return CostProfile("four-stages", (49.3,) * 4, (1.0,) * 4, options, (0, 1))


def steady(mbps: float) -> LinkTrace:
    """A link of constant rate."""
    return LinkTrace(f"steady-{mbps:g}", Steps((0.0, 1000.0), (mbps * 125_000.0,)))


@pytest.fixture(scope="session")
def scenario(profile: CostProfile) -> Scenario:
    """Budgets redrawn from 60 to 250 ms over a steady link of 8 Mbit/s."""
    return Scenario(
        name="steady",
        profile=profile,
        frames=600,
        period_ms=300.0,
        deadlines=Redrawn((60.0, 100.0, 150.0, 250.0)),
        uplink=steady(8.0),
        delay=WIFI_EDGE,
    )
