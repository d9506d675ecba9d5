"""Waiting at servers: one queue before equal servers, first come, first served.

Fast enough for millions of requests: a single server is one running minimum, several are a heap of
the times at which they are free.
"""

from __future__ import annotations

from heapq import heapify, heapreplace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def waits_ms(arrivals_ms: Floats, services_ms: Floats, servers: int) -> Floats:
    """How long each request waits before a server takes it.

    Shapes: arrivals_ms (n,) rising, services_ms (n,), result (n,).
    Raises: ValueError when there is no server, or the columns differ in length.
    Source: for one server Lindley's recursion (1952) as a running minimum; for several the
    Kiefer-Wolfowitz recursion (1955), of which only the smallest workload is needed at each arrival.
    """
    if servers < 1:
        raise ValueError("at least one server is needed")
    if len(arrivals_ms) != len(services_ms):
        raise ValueError("arrivals and services differ in length")
    if len(arrivals_ms) == 0:
        return np.zeros(0)
    if servers == 1:
        # Work that has come before each request, less the time that has passed.
        work = np.concatenate(([0.0], np.cumsum(services_ms)[:-1])) - arrivals_ms
        return np.asarray(work - np.minimum.accumulate(work), dtype=np.float64)
    free_ms = [0.0] * min(servers, len(arrivals_ms))
    heapify(free_ms)
    waited = np.empty(len(arrivals_ms))
    pairs = zip(arrivals_ms.tolist(), services_ms.tolist(), strict=True)
    for index, (arrival_ms, service_ms) in enumerate(pairs):
        start_ms = free_ms[0]
        if start_ms < arrival_ms:
            start_ms = arrival_ms
        waited[index] = start_ms - arrival_ms
        heapreplace(free_ms, start_ms + service_ms)
    return waited


def mmc_mean_wait(arrival_rate: float, service_rate: float, servers: int) -> float:
    """Mean wait of Poisson arrivals and exponential services; infinite at or above full load.

    Units: time in the unit of the rates. Source: Erlang's C formula (1917).
    """
    offered = arrival_rate / service_rate
    if offered >= servers:
        return float("inf")
    # Erlang B by its recursion, which does not overflow, then C from B.
    blocked = 1.0
    for count in range(1, servers + 1):
        blocked = offered * blocked / (count + offered * blocked)
    load = offered / servers
    delayed = blocked / (1.0 - load * (1.0 - blocked))
    return delayed / (servers * service_rate - arrival_rate)


def md1_mean_wait(arrival_rate: float, service_time: float) -> float:
    """Mean wait of Poisson arrivals at one server of constant service; infinite at or above full load.

    Source: Pollaczek (1930) and Khinchine (1932).
    """
    load = arrival_rate * service_time
    return float("inf") if load >= 1.0 else load * service_time / (2.0 * (1.0 - load))
