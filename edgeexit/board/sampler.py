"""Looks at the board on a timer, in a thread of its own: never while a stage runs, never per frame."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from edgeexit.board import sysfs, vcgencmd
from edgeexit.board.host import Host
from edgeexit.board.profile import Sensors
from edgeexit.board.readings import Readings, Throttling

Clock = Callable[[], float]

# Heat and load change over seconds; a look costs about half a millisecond, and `vcgencmd` a process.
DEFAULT_INTERVAL_S = 5.0

# How long a close waits for a look in progress: longer than the slowest sensor is allowed to take.
CLOSE_S = 2.0


def look(sensors: Sensors, host: Host, *, at_ms: float, root: Path = Path("/")) -> Readings:
    """One look at the board; what it has no sensor for is None. Raises: MissingExtra without psutil."""
    counted = host.read()
    return Readings(
        at_ms=at_ms,
        load_1min=counted.load_1min,
        cpu_fraction=counted.cpu_fraction,
        cpu_hz=sysfs.cpu_hz(root),
        temperature_c=sysfs.temperature_c(root, sensors.thermal_zones),
        throttling=_throttling(sensors, root),
        memory_total_bytes=counted.memory_total_bytes,
        memory_available_bytes=counted.memory_available_bytes,
        resident_bytes=counted.resident_bytes,
        power_w=sysfs.power_w(root, sensors.power_rails),
    )


def _throttling(sensors: Sensors, root: Path) -> Throttling | None:
    if sensors.throttling == "vcgencmd":
        return vcgencmd.read_throttled()
    if sensors.throttling == "cooling-device":
        return sysfs.thermal_throttling(root)
    return None


class BoardSampler:
    """Keeps the latest reading; `on_reading` is called in the sampling thread after each look."""

    def __init__(
        self,
        interval_s: float,
        clock: Clock,
        *,
        sensors: Sensors = Sensors(),  # noqa: B008 - frozen
        root: Path = Path("/"),
        on_reading: Callable[[Readings], None] | None = None,
    ) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._sensors = sensors
        self._root = root
        self._on_reading = on_reading
        self._host = Host()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._latest: Readings | None = None

    @property
    def latest(self) -> Readings | None:
        """The last reading; None before the first look."""
        return self._latest

    def open(self) -> None:
        """Look once, then go on looking on the timer. Raises: MissingExtra without psutil."""
        self._take()
        self._thread = threading.Thread(target=self._run, name="board-sampler", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def __enter__(self) -> BoardSampler:
        self.open()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            self._take()

    def _take(self) -> None:
        self._latest = look(self._sensors, self._host, at_ms=self._clock(), root=self._root)
        if self._on_reading is not None:
            self._on_reading(self._latest)
