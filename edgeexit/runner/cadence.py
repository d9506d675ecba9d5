"""How long stages take when frames come one by one.

Run over and over, a small stage finds its weights in the processor's cache and its clock raised; after a
pause it does not. A camera pauses between frames, so this is the time that decisions need.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from edgeexit.runner.protocol import Clock, Runner, Tensors

# As between the frames of a quick camera; longer pauses changed the times of the demo's network little.
PAUSE_S = 0.025
MOST_ROUNDS = 9
# One round may be disturbed, of two the median is at least between them.
FEWEST_ROUNDS = 2
# A slow board must not wait for its first answer because of this.
PATIENCE_MS = 400.0


def times_between_frames(
    runner: Runner, inputs: Tensors, *, clock: Clock, sleep: Callable[[float], None] = time.sleep
) -> tuple[float, ...]:
    """Median time of every stage, each round after a pause.

    Units: ms. Shapes: inputs, the tensors of boundary 0; one time a stage. Raises: RunnerError.
    """
    rounds: list[list[float]] = []
    began_ms = clock()
    while len(rounds) < FEWEST_ROUNDS or (len(rounds) < MOST_ROUNDS and clock() - began_ms < PATIENCE_MS):
        sleep(PAUSE_S)
        tensors, times_ms = inputs, []
        for stage in range(runner.stage_count):
            before_ms = clock()
            tensors = runner.run(stage, tensors).boundary
            times_ms.append(clock() - before_ms)
        rounds.append(times_ms)
    return tuple(median(stage_ms) for stage_ms in zip(*rounds, strict=True))
