"""How long each stage takes on this gateway, as measured while serving."""

from __future__ import annotations

from dataclasses import dataclass, replace

# Weight of the newest sample: about the last five requests count, so that a machine that becomes busy is
# believed within a few frames and one outlier is not.
NEWEST_WEIGHT = 0.3
# What a stage costs above its best time is forgotten by half in this time without a new sample. Without
# it one long pause of the machine would make every later request look hopeless, and a stage that is
# never run is never measured again.
FORGET_HALF_MS = 2_000.0


@dataclass(frozen=True, slots=True)
class StageTime:
    """What is known of one stage. Units: milliseconds; measured_ms, when the last sample came."""

    mean_ms: float
    deviation_ms: float
    best_ms: float
    measured_ms: float

    def expected_ms(self, now_ms: float) -> float:
        """Mean plus one mean deviation, sinking towards the best time while nothing new is measured."""
        above_best_ms = self.mean_ms + self.deviation_ms - self.best_ms
        age_ms = max(0.0, now_ms - self.measured_ms)
        return float(self.best_ms + above_best_ms * 0.5 ** (age_ms / FORGET_HALF_MS))


class ServiceTimes:
    """Moving averages of stage times, by bundle and stage.

    Entries are replaced whole, so that readers in other threads need no lock.
    """

    def __init__(self) -> None:
        self._stages: dict[tuple[str, int], StageTime] = {}

    def observe(self, digest: str, stage: int, took_ms: float, now_ms: float) -> None:
        """Learn that a stage took this long just now."""
        known = self._stages.get((digest, stage))
        if known is None:
            self._stages[digest, stage] = StageTime(took_ms, 0.0, took_ms, now_ms)
            return
        off_ms = took_ms - known.mean_ms
        self._stages[digest, stage] = replace(
            known,
            mean_ms=known.mean_ms + NEWEST_WEIGHT * off_ms,
            deviation_ms=known.deviation_ms + NEWEST_WEIGHT * (abs(off_ms) - known.deviation_ms),
            best_ms=min(known.best_ms, took_ms),
            measured_ms=now_ms,
        )

    def expected_ms(self, digest: str, first: int, stop: int, now_ms: float) -> float | None:
        """Expected time of stages first … stop-1; None while one of them was never measured."""
        total_ms = 0.0
        for stage in range(first, stop):
            known = self._stages.get((digest, stage))
            if known is None:
                return None
            total_ms += known.expected_ms(now_ms)
        return total_ms

    def request_ms(
        self, digest: str, first: int, stop: int, left_ms: float, now_ms: float
    ) -> tuple[float, float]:
        """Expected time of stage `first`, and of stages first … stop-1; 0 where one was never measured.

        Who has `left_ms` left is cut off then, so that nobody waits for it any longer.
        """
        first_ms = self.expected_ms(digest, first, first + 1, now_ms) or 0.0
        return first_ms, min(left_ms, self.expected_ms(digest, first, stop, now_ms) or 0.0)

    def mean_ms(self, digest: str, stage: int) -> float | None:
        """The plain moving average of one stage, as adverts tell it; None while never measured."""
        known = self._stages.get((digest, stage))
        return None if known is None else known.mean_ms

    def forget(self, digest: str) -> None:
        """Drop what is known of a bundle that is no longer served."""
        for key in [key for key in self._stages if key[0] == digest]:
            self._stages.pop(key, None)
