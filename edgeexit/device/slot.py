"""The newest-frame slot between capture and inference: at most one frame waits, and it is the newest."""

from __future__ import annotations

import threading
from collections.abc import Callable

from edgeexit.decide.answer import Drop
from edgeexit.engine import Frame


class FrameSlot:
    """Holds the newest frame; the one that it replaces is dropped with a reason, never queued.

    `drop` is called outside the lock, in the thread that puts or closes.
    """

    def __init__(self, drop: Callable[[Drop], None]) -> None:
        self._drop = drop
        self._changed = threading.Condition()
        self._waiting: Frame | None = None
        self._ended = False
        self._closed = False

    def put(self, frame: Frame) -> None:
        """Make this the newest frame and wake the consumer."""
        with self._changed:
            refused: Frame | None
            if self._closed:
                refused, reason = frame, "shutdown"
            else:
                refused, reason = self._waiting, "replaced"
                self._waiting = frame
                self._changed.notify_all()
        if refused is not None:
            self._drop(dropped(refused, reason))

    def take(self, timeout_s: float) -> Frame | None:
        """The newest frame; None when none came in time, or none will come any more."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._waiting is not None or self._ended or self._closed, timeout_s
            )
            frame, self._waiting = self._waiting, None
            self._changed.notify_all()
            return frame

    def wait_empty(self, timeout_s: float) -> bool:
        """Wait until the last frame was taken, for sources that lose nothing by waiting."""
        with self._changed:
            return self._changed.wait_for(lambda: self._waiting is None or self._closed, timeout_s)

    def end(self) -> None:
        """Say that no more frames will come; the one that waits may still be taken."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def waiting(self) -> bool:
        """Whether a frame waits now."""
        return self._waiting is not None

    @property
    def closed(self) -> bool:
        """Whether frames are no longer taken."""
        return self._closed

    @property
    def exhausted(self) -> bool:
        """Whether no frame waits and none will come."""
        with self._changed:
            return self._waiting is None and (self._ended or self._closed)

    def close(self) -> None:
        """Take no more frames; the one that waits is dropped as `shutdown`."""
        with self._changed:
            self._closed = True
            frame, self._waiting = self._waiting, None
            self._changed.notify_all()
        if frame is not None:
            self._drop(dropped(frame, "shutdown"))


def dropped(frame: Frame, reason: str) -> Drop:
    """The record of a frame that gets no answer."""
    return Drop(frame=frame.number, source=frame.source, captured_ms=frame.captured_ms, reason=reason)
