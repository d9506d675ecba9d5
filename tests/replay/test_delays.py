from __future__ import annotations

import numpy as np
import pytest

from edgeexit.replay.delays import (
    LTE_CLOUD,
    LTE_EDGE,
    WIFI_CLOUD,
    WIFI_EDGE,
    WIFI_EDGE_CROWDED,
    RttModel,
    constant_delay,
)

# Measured between real clients and servers: p50, p90, p99 in ms.
MEASURED = [
    (WIFI_EDGE.idle, (2.0, 2.0, 2.0)),
    (WIFI_EDGE_CROWDED.busy, (3.0, 5.0, 8.0)),
    (WIFI_CLOUD.idle, (39.0, 41.0, 45.0)),
    (LTE_EDGE.idle, (41.0, 52.0, 630.0)),
    (LTE_EDGE.busy, (35.0, 52.0, 62.0)),
    (LTE_CLOUD.idle, (73.0, 92.0, 653.0)),
]


@pytest.mark.parametrize(("model", "points"), MEASURED)
def test_models_have_the_quantiles_that_were_measured(
    model: RttModel, points: tuple[float, float, float]
) -> None:
    drawn = np.percentile(model.sample(np.random.default_rng(1), 400_000), [50, 90, 99])
    for got, wanted in zip(drawn, points, strict=True):
        # Measured figures are whole milliseconds; a lognormal body fits them within a tenth.
        assert got == pytest.approx(wanted, rel=0.1, abs=0.6)


def test_a_constant_delay_never_varies() -> None:
    drawn = constant_delay(7.0).busy.sample(np.random.default_rng(1), 100)
    assert set(drawn.tolist()) == {7.0}
