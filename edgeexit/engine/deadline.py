"""The timer that emits the best answer in hand when a stage overruns the deadline."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from math import inf
from threading import TIMEOUT_MAX, Lock, Thread

from edgeexit.decide.budget import BudgetSource
from edgeexit.engine.frame import OpenFrame


class DeadlineTimer:
    """Watches one open frame at a time; never delays an answer, never emits one twice.

    Its thread sleeps until the deadline in force, or until the budget may become another one. It is not
    woken because a frame was answered: it wakes at that frame's time, finds the next one, and sleeps on; so
    a frame wakes it once at most, and none that is due after another's time.
    """

    def __init__(self, clock: Callable[[], float], budgets: BudgetSource) -> None:
        self._clock = clock
        self._budgets = budgets
        self._watched: OpenFrame | None = None
        self._thread: Thread | None = None
        # Held while the thread sleeps: a plain lock costs a tenth of a condition, and a signal handler may
        # let go of it at any point.
        self._sleep = Lock()
        self._wakes_ms = inf

    def open(self) -> None:
        """Start the timer's thread, and listen to the budget."""
        self._thread = Thread(target=self._run, name="edgeexit-deadline", daemon=True)
        self._thread.start()
        self._budgets.listen(self._told)

    def watch(self, frame: OpenFrame) -> None:
        """Watch this frame instead of the one before; an answered frame needs no watching."""
        # In this order, so that a change which is told now finds the frame.
        self._watched = frame
        if frame.look(self._clock()) < self._wakes_ms:
            self._wake()

    def let_go(self) -> None:
        """Watch nothing: the frame was answered, and its memory is better freed now than beside the next."""
        self._watched = None

    def close(self) -> None:
        """Stop the thread."""
        thread, self._thread = self._thread, None
        self._budgets.listen(None)
        self._watched = None
        self._wake()
        if thread is not None:
            thread.join()

    def _told(self) -> None:
        """The budget has changed, in whatever thread or signal handler this is."""
        frame = self._watched
        if frame is not None and frame.answer is None:
            frame.budget_changed(self._clock())
            self._wake()

    def _wake(self) -> None:
        with suppress(RuntimeError):  # awake already
            self._sleep.release()

    def _run(self) -> None:
        while self._thread is not None:
            # Whoever watches a frame while it is awake wakes it: it may have looked at the one before.
            self._wakes_ms = inf
            frame, now_ms = self._watched, self._clock()
            next_ms = inf if frame is None else frame.look(now_ms)
            self._wakes_ms = next_ms
            pause_s = (next_ms - now_ms) / 1000.0
            self._sleep.acquire(timeout=-1 if pause_s == inf else min(pause_s, TIMEOUT_MAX))
