"""One request served: as many stages as the time left allows, with pauses for those in more of a hurry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeexit.runner.protocol import Runner, Tensors
from edgeexit.transport.admission import ends_in_time
from edgeexit.transport.service_times import ServiceTimes

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Served:
    """How far a request has come: the next stage, what it takes, and the deepest answer so far.

    `exit` and `output` are None before the first. `paused` tells that it may go on, after somebody who
    is in more of a hurry. Shapes: output (C,).
    """

    stage: int
    tensors: Tensors
    exit: int | None = None
    output: NDArray[np.float32] | None = None
    paused: bool = False


def run_in_time(
    runner: Runner,
    digest: str,
    begun: Served,
    stop: int,
    *,
    deadline_ms: float,
    times: ServiceTimes,
    clock: Clock,
    overtaken: Callable[[], bool],
) -> Served:
    """Run the next stages, up to stop-1, while each is expected to end by the deadline.

    It pauses between two stages where `overtaken` says so. A stage that was never measured is tried.
    Raises: RunnerError.
    """
    served = begun
    for stage in range(begun.stage, stop):
        started_ms = clock()
        expected_ms = times.expected_ms(digest, stage, stage + 1, started_ms) or 0.0
        if not ends_in_time(started_ms, expected_ms, deadline_ms):
            break
        given = runner.run(stage, served.tensors)
        now_ms = clock()
        times.observe(digest, stage, now_ms - started_ms, now_ms)
        paused = stage + 1 < stop and overtaken()
        served = Served(stage + 1, given.boundary, stage, given.output, paused)
        if paused:
            break
    return served
