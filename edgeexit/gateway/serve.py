"""One request served: as many stages as the time left allows, the deepest answer given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeexit.gateway.admission import REPLY_GUARD_MS
from edgeexit.gateway.service_times import ServiceTimes
from edgeexit.runner.protocol import Runner, Tensors

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Served:
    """The deepest exit reached in time. Shapes: output (C,)."""

    exit: int
    output: NDArray[np.float32]


def run_in_time(
    runner: Runner,
    digest: str,
    first: int,
    stop: int,
    tensors: Tensors,
    *,
    deadline_ms: float,
    times: ServiceTimes,
    clock: Clock,
) -> Served | None:
    """Run stages first … stop-1 while the next one is expected to end by the deadline.

    None when not even the first one would. A stage that was never measured is tried.
    Raises: RunnerError.
    """
    served: Served | None = None
    for stage in range(first, stop):
        started_ms = clock()
        expected_ms = times.expected_ms(digest, stage, stage + 1, started_ms) or 0.0
        if started_ms + expected_ms + REPLY_GUARD_MS > deadline_ms:
            break
        given = runner.run(stage, tensors)
        now_ms = clock()
        times.observe(digest, stage, now_ms - started_ms, now_ms)
        served = Served(stage, given.output)
        tensors = given.boundary
    return served
