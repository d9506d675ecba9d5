"""A runner that plays a slower board."""

from __future__ import annotations

from collections.abc import Callable
from time import sleep as sleep_seconds

from edgeexit.errors import ConfigError
from edgeexit.runner.protocol import Clock, Runner, StageOutput, Tensors

# Beyond this a stage of 10 ms would take a second: a slip of the pen, not a board.
LARGEST_FACTOR = 100.0


class PacedRunner:
    """Stretches every stage of another runner to `factor` times the time it took.

    The rest is slept, so that the processor is free for others, as it is while another board computes.
    Units: clock gives monotonic ms; sleep takes seconds.
    Raises: ConfigError when the factor is not between 1 and 100.
    """

    def __init__(
        self,
        runner: Runner,
        factor: float,
        clock: Clock,
        sleep: Callable[[float], None] = sleep_seconds,
    ) -> None:
        if not 1.0 <= factor <= LARGEST_FACTOR:
            raise ConfigError(
                f"pace {factor} is refused",
                key="pace",
                why=f"a runner can be slowed down 1 to {LARGEST_FACTOR:g} times, not sped up",
            )
        self._runner = runner
        self._factor = factor
        self._clock = clock
        self._sleep = sleep

    @property
    def stage_count(self) -> int:
        """K."""
        return self._runner.stage_count

    def variant(self, stage: int) -> str:
        """Name of the variant in use."""
        return self._runner.variant(stage)

    def run(self, stage: int, tensors: Tensors) -> StageOutput:
        """Run one stage, slowly. Raises: RunnerError, and then at once."""
        # An image becomes numbers when these are asked for: the factor is one of stages, not of that.
        tensors = dict(tensors)
        begun_ms = self._clock()
        given = self._runner.run(stage, tensors)
        now_ms = self._clock()
        until_ms = begun_ms + self._factor * (now_ms - begun_ms)
        # A sleep may end early (a signal) but never knows it: ask the clock.
        while now_ms < until_ms:
            self._sleep((until_ms - now_ms) / 1000.0)
            now_ms = self._clock()
        return given

    def close(self) -> None:
        """Free the runner underneath."""
        self._runner.close()
