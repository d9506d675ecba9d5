"""Stopping in order, and in time."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

# A frame in hand is answered within this of the first signal; a stage that still runs half a second later
# hangs, and its frame is dropped.
ANSWER_WITHIN_MS = 1500.0
GIVE_UP_S = 2.0

# From then on, connections and sinks get this long: less than the unit's TimeoutStopSec of 10 s.
CLOSE_WITHIN_S = 5.0


class Signals:
    """Turns signals into requests that the loop looks at; only the main thread may install it.

    The first SIGTERM or SIGINT asks to stop and calls `on_stop`; the second one ends the process at once.
    """

    def __init__(self, on_stop: Callable[[], None]) -> None:
        self._on_stop = on_stop
        self.stopping = False
        self.reload_wanted = False

    def install(self) -> None:
        """Take the signals over; elsewhere than in the main thread that is somebody else's business."""
        if threading.current_thread() is not threading.main_thread():
            return
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGHUP, self._reload)

    def stop(self) -> None:
        """Ask to stop, as the first SIGTERM does."""
        if not self.stopping:
            self.stopping = True
            self._on_stop()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.stopping:
            os._exit(128 + number)
        self.stop()

    def _reload(self, number: int, frame: FrameType | None) -> None:
        self.reload_wanted = True


class ShutdownGuard:
    """Ends the process in order even where a stage or a connection hangs.

    `finish` writes down what is known; it is called by this guard's thread when the loop did not end in
    time, or closing did not.
    """

    def __init__(self, finish: Callable[[], None]) -> None:
        self._finish = finish
        self._asked = threading.Event()
        self._loop_ended = threading.Event()
        self._closed = threading.Event()

    def open(self) -> None:
        """Start the thread now: a signal handler may interrupt anything, so it must start nothing."""
        threading.Thread(target=self._watch, name="shutdown-guard", daemon=True).start()

    def begin(self) -> None:
        """Begin to count; all that a signal handler does."""
        self._asked.set()

    def loop_ended(self) -> None:
        """Say that no frame is in hand any more."""
        self._loop_ended.set()

    def closed(self) -> None:
        """Say that all is closed."""
        self._loop_ended.set()
        self._closed.set()
        self._asked.set()

    def _watch(self) -> None:
        self._asked.wait()
        if self._loop_ended.wait(GIVE_UP_S) and self._closed.wait(CLOSE_WITHIN_S):
            return
        self._finish()
        os._exit(0)
