from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.replay.queueing import md1_mean_wait, mmc_mean_wait, waits_ms


@pytest.mark.parametrize(("load", "servers"), [(0.5, 1), (0.8, 1), (0.5, 4), (0.8, 4), (0.9, 16)])
def test_waits_of_exponential_services_are_erlangs(load: float, servers: int) -> None:
    random = np.random.default_rng(11)
    count = 600_000
    rate = load * servers
    arrivals = np.cumsum(random.exponential(1.0 / rate, count))
    waited = waits_ms(arrivals, random.exponential(1.0, count), servers)
    assert float(waited[count // 10 :].mean()) == pytest.approx(mmc_mean_wait(rate, 1.0, servers), rel=0.06)


@pytest.mark.parametrize("load", [0.3, 0.7, 0.9])
def test_waits_of_constant_services_are_pollaczeks(load: float) -> None:
    random = np.random.default_rng(12)
    count = 600_000
    arrivals = np.cumsum(random.exponential(1.0 / load, count))
    waited = waits_ms(arrivals, np.ones(count), 1)
    assert float(waited[count // 10 :].mean()) == pytest.approx(md1_mean_wait(load, 1.0), rel=0.05)


def test_formulas_are_those_of_the_books() -> None:
    # Erlang C of 2 servers at load one half is 1/3: mean wait 1/3 / (2 - 1).
    assert mmc_mean_wait(1.0, 1.0, 2) == pytest.approx(1.0 / 3.0)
    assert mmc_mean_wait(0.5, 1.0, 1) == pytest.approx(1.0)
    assert md1_mean_wait(0.5, 1.0) == pytest.approx(0.5)
    assert mmc_mean_wait(2.0, 1.0, 2) == md1_mean_wait(1.0, 1.0) == float("inf")


times = st.lists(st.tuples(st.floats(0.0, 20.0), st.floats(0.01, 20.0)), min_size=1, max_size=40)


@given(times, st.integers(2, 5))
def test_more_servers_never_make_anybody_wait_longer(pairs: list[tuple[float, float]], servers: int) -> None:
    arrivals = np.cumsum([gap for gap, _ in pairs])
    services = np.asarray([service for _, service in pairs])
    one = waits_ms(arrivals, services, 1)
    several = waits_ms(arrivals, services, servers)
    assert (one >= -1e-9).all()
    assert (several >= 0.0).all()
    assert (several <= one + 1e-6).all()
    assert waits_ms(arrivals, services, len(pairs)).max() == 0.0


@given(times)
def test_one_server_by_running_minimum_is_one_server_by_hand(pairs: list[tuple[float, float]]) -> None:
    arrivals = np.cumsum([gap for gap, _ in pairs])
    services = np.asarray([service for _, service in pairs])
    free = 0.0
    by_hand = []
    for arrival, service in zip(arrivals, services, strict=True):
        start = max(free, arrival)
        by_hand.append(start - arrival)
        free = start + service
    assert waits_ms(arrivals, services, 1) == pytest.approx(by_hand, abs=1e-6)


def test_nothing_waits_where_nothing_comes() -> None:
    assert len(waits_ms(np.zeros(0), np.zeros(0), 3)) == 0
    with pytest.raises(ValueError, match="server"):
        waits_ms(np.zeros(1), np.ones(1), 0)
    with pytest.raises(ValueError, match="length"):
        waits_ms(np.zeros(2), np.ones(1), 1)
