"""The timer that emits the best answer in hand when a stage overruns the deadline."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from threading import Condition, Thread

from edgeexit.engine.frame import OpenFrame

# A budget may shrink while a stage runs, and no one tells the timer: it looks again this often.
# 100 wake-ups a second cost well under one hundredth of a core.
LOOK_AGAIN_MS = 10.0
# Between frames the timer goes on looking for so many rounds before it sleeps: waking a sleeping thread
# at every frame would take the interpreter's lock from the loop just when it begins to compute.
ROUNDS_BEFORE_SLEEP = 20


class DeadlineTimer:
    """Watches one open frame at a time; never delays an answer, never emits one twice."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._condition = Condition()
        self._watched: OpenFrame | None = None
        self._thread: Thread | None = None
        self._wakes_ms = inf

    def open(self) -> None:
        """Start the timer's thread."""
        self._thread = Thread(target=self._run, name="edgeexit-deadline", daemon=True)
        self._thread.start()

    def watch(self, frame: OpenFrame) -> None:
        """Watch this frame instead of the one before; an answered frame needs no watching."""
        now_ms = self._clock()
        due_ms = now_ms + frame.remaining_ms(now_ms)
        with self._condition:
            self._watched = frame
            if due_ms < self._wakes_ms:
                self._condition.notify()

    def close(self) -> None:
        """Stop the thread."""
        thread, self._thread = self._thread, None
        with self._condition:
            self._watched = None
            self._condition.notify()
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        idle_rounds = 0
        while self._thread is not None:
            with self._condition:
                frame = self._watched
                due = self._pause_ms(frame, idle_rounds)
                if due is not None:
                    self._wait(due)
            if due is None and frame is not None:
                frame.close("deadline")
            idle_rounds = idle_rounds + 1 if frame is None or frame.answer is not None else 0

    def _pause_ms(self, frame: OpenFrame | None, idle_rounds: int) -> float | None:
        """How long until it must look again; None when the frame is due now."""
        if frame is None or frame.answer is not None:
            return LOOK_AGAIN_MS if idle_rounds < ROUNDS_BEFORE_SLEEP else inf
        remaining_ms = frame.remaining_ms(self._clock())
        if remaining_ms > 0.0:
            return min(remaining_ms, LOOK_AGAIN_MS)
        # Past the deadline with nothing in hand there is nothing to emit; the loop does it first thing.
        return None if frame.in_hand else LOOK_AGAIN_MS

    def _wait(self, pause_ms: float) -> None:
        if self._thread is None:
            return
        self._wakes_ms = self._clock() + pause_ms
        self._condition.wait(None if pause_ms == inf else pause_ms / 1000.0)
        self._wakes_ms = inf
