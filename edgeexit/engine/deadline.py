"""The timer that emits the best answer in hand when a stage overruns the deadline."""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition, Thread

from edgeexit.engine.frame import OpenFrame

# A budget may shrink while a stage runs, and no one tells the timer: it looks again this often.
# 100 wake-ups a second cost well under one hundredth of a core.
LOOK_AGAIN_MS = 10.0


class DeadlineTimer:
    """Watches one open frame at a time; never delays an answer, never emits one twice."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._condition = Condition()
        self._watched: OpenFrame | None = None
        self._thread: Thread | None = None

    def open(self) -> None:
        """Start the timer's thread."""
        self._thread = Thread(target=self._run, name="edgeexit-deadline", daemon=True)
        self._thread.start()

    def watch(self, frame: OpenFrame | None) -> None:
        """Watch this frame, or nothing."""
        with self._condition:
            self._watched = frame
            self._condition.notify()

    def close(self) -> None:
        """Stop the thread."""
        thread, self._thread = self._thread, None
        self.watch(None)
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while self._thread is not None:
            due = self._next_due()
            if due is not None:
                due.close("deadline")

    def _next_due(self) -> OpenFrame | None:
        """Wait for the watched frame's deadline; None when it must be looked at anew."""
        with self._condition:
            frame = self._watched
            if frame is None or frame.answer is not None:
                if self._thread is not None:
                    self._condition.wait()
                return None
            remaining_ms = frame.remaining_ms(self._clock())
            if remaining_ms <= 0.0 and frame.best is not None:
                return frame
            # Past the deadline with nothing in hand there is nothing to emit; the loop does it first thing.
            pause_ms = min(remaining_ms, LOOK_AGAIN_MS) if remaining_ms > 0.0 else LOOK_AGAIN_MS
            self._condition.wait(pause_ms / 1000.0)
            return None
