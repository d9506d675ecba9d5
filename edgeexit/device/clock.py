"""The device's clock, and the one by which a slower board is played."""

from __future__ import annotations

from time import monotonic_ns, sleep, thread_time_ns


def monotonic_ms() -> float:
    """Monotonic milliseconds: the one clock of the daemon."""
    return monotonic_ns() / 1e6


def processor_ms() -> float:
    """Milliseconds that this thread has computed: what other programs take from it is not counted."""
    return thread_time_ns() / 1e6


class PlayedClock:
    """Time as a thread on a board of its own would see it: what it computed, and what it slept.

    A played board stretches the time of each stage; by the wall clock it would stretch, too, every
    moment in which another program had the processor.
    """

    def __init__(self) -> None:
        self._slept_ms = 0.0

    def now_ms(self) -> float:
        """Monotonic milliseconds, for one thread only."""
        return processor_ms() + self._slept_ms

    def sleep(self, seconds: float) -> None:
        """Sleep, and count it."""
        begun_ms = monotonic_ms()
        sleep(seconds)
        self._slept_ms += monotonic_ms() - begun_ms
