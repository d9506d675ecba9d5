"""Capture: one thread that reads a source at its pace into the newest-frame slot."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeexit.decide.answer import Drop
from edgeexit.device.slot import FrameSlot
from edgeexit.engine import Frame
from edgeexit.errors import DataError, DeviceError, EdgeExitError

Clock = Callable[[], float]

# A camera that was unplugged is tried again after these waits; the last one is repeated.
REOPEN_S = (0.5, 1.0, 2.0, 5.0, 10.0)

# How often a thread that waits for the consumer looks whether it should stop.
STOP_CHECK_S = 0.1

# How long a close waits for a read in progress: V4L2 drivers give up on a frame after ten seconds, which
# is longer than a shutdown may take; the thread is a daemon and dies with the process.
CLOSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Shot:
    """One image as it came from a source.

    Units: captured_ms on the device's clock. Shapes: image (H, W) or (H, W, 3), 8 bit, RGB.
    """

    source: str
    captured_ms: float
    image: NDArray[np.uint8]


class Reader(Protocol):
    """Port: gives images one after another, in the capture thread only."""

    @property
    def live(self) -> bool:
        """Whether images come at their own time, as from a camera, and one not taken is lost."""
        ...

    @property
    def rate_hz(self) -> float | None:
        """The source's own frame rate, where it has one."""
        ...

    def open(self) -> None:
        """Get ready to read. Raises: DeviceError; MissingExtra."""
        ...

    def read(self) -> Shot | None:
        """The next image; None at the end.

        Raises: DataError when this image cannot be read but the next may be; DeviceError when the
        source is gone.
        """
        ...

    def close(self) -> None:
        """Let the source go."""
        ...


class Capture:
    """Reads `reader` into `slot` at `rate_hz`, or at the source's own pace where that is None.

    A source without a pace of its own (a folder) is then read as fast as frames are answered.
    `trouble` is told of a source that was lost (the error) and that came back (None).
    """

    def __init__(
        self,
        reader: Reader,
        slot: FrameSlot,
        *,
        rate_hz: float | None,
        clock: Clock,
        drop: Callable[[Drop], None],
        trouble: Callable[[DeviceError | None], None],
    ) -> None:
        self._reader = reader
        self._slot = slot
        self._rate_hz = rate_hz
        self._clock = clock
        self._drop = drop
        self._trouble = trouble
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._number = 0

    def open(self) -> None:
        """Open the source, then read it in a thread. Raises: DeviceError; MissingExtra."""
        self._reader.open()
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop reading and let the source go."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        try:
            self._read_all()
        except EdgeExitError as error:
            self._trouble(DeviceError("the source cannot be read", why=str(error), fix=error.fix))
        except Exception as error:  # noqa: BLE001 - the outermost frame of this thread
            self._trouble(DeviceError("the source broke down", why=f"{type(error).__name__}: {error}"))
        finally:
            self._reader.close()
            self._slot.end()

    def _read_all(self) -> None:
        reader = self._reader
        # A camera keeps its own time: pausing between reads would only let its frames grow old.
        rate_hz = None if reader.live else self._rate_hz or reader.rate_hz
        pace = None if rate_hz is None else Pace(1000.0 / rate_hz, self._clock)
        while not self._stop.is_set() and not self._slot.closed:
            if pace is not None:
                self._stop.wait(pace.wait_ms() / 1000.0)
            elif not reader.live and not self._slot.wait_empty(STOP_CHECK_S):
                continue
            if self._stop.is_set() or self._slot.closed:
                return
            try:
                shot = reader.read()
            except DataError as error:
                self._drop(Drop(self._next_number(), error.file, self._clock(), "unreadable"))
                continue
            except DeviceError as error:
                self._trouble(error)
                if not (reader.live and self._reopened()):
                    return
                continue
            if shot is None:
                return
            self._slot.put(Frame(self._next_number(), shot.source, shot.captured_ms, shot.image))

    def _next_number(self) -> int:
        number = self._number
        self._number += 1
        return number

    def _reopened(self) -> bool:
        """Open the source again, however long it takes; False when asked to stop meanwhile."""
        self._reader.close()
        attempt = 0
        while not self._stop.wait(REOPEN_S[min(attempt, len(REOPEN_S) - 1)]):
            attempt += 1
            try:
                self._reader.open()
            except DeviceError:
                continue
            self._trouble(None)
            return True
        return False


class Pace:
    """When the next frame is due. Units: period_ms. A pace that was missed is not made up for."""

    def __init__(self, period_ms: float, clock: Clock) -> None:
        self._period_ms = period_ms
        self._clock = clock
        self._due_ms: float | None = None

    def wait_ms(self) -> float:
        """How long to wait from now until the next frame is due; moves on by one frame."""
        now_ms = self._clock()
        if self._due_ms is None:
            self._due_ms = now_ms
        else:
            self._due_ms += self._period_ms
            # Behind by more than a whole frame: those frames never were, a burst would help nobody.
            if self._due_ms < now_ms - self._period_ms:
                self._due_ms = now_ms
        return max(0.0, self._due_ms - now_ms)
