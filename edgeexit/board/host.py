"""Load and memory of the machine and of this process, through psutil."""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import ModuleType

from edgeexit.errors import MissingExtra


@dataclass(frozen=True, slots=True)
class HostReadings:
    """What the operating system counts; None where it does not tell.

    Units: cpu_fraction since the call before, None at the first.
    """

    load_1min: float | None = None
    cpu_fraction: float | None = None
    memory_total_bytes: int | None = None
    memory_available_bytes: int | None = None
    resident_bytes: int | None = None


class Host:
    """Reads the operating system's counters; a call costs up to 0.1 ms each, so it belongs on a timer."""

    __slots__ = ("_asked_before", "_psutil")

    def __init__(self) -> None:
        self._psutil: ModuleType | None = None
        self._asked_before = False

    def read(self) -> HostReadings:
        """The counters now. Raises: MissingExtra without psutil."""
        psutil = self._load()
        try:
            return self._counted(psutil)
        except (psutil.Error, OSError, RuntimeError, NotImplementedError):
            # A sandbox may hide /proc/meminfo or /proc/stat; the board works all the same.
            return HostReadings(load_1min=_load_1min())

    def _counted(self, psutil: ModuleType) -> HostReadings:
        memory = psutil.virtual_memory()
        # The first call has no earlier one to compare with, and says 0.0: unknown, not idle.
        busy = float(psutil.cpu_percent(interval=None)) / 100.0
        cpu_fraction = busy if self._asked_before else None
        self._asked_before = True
        return HostReadings(
            load_1min=_load_1min(),
            cpu_fraction=cpu_fraction,
            memory_total_bytes=int(memory.total),
            memory_available_bytes=int(memory.available),
            resident_bytes=int(psutil.Process().memory_info().rss),
        )

    def _load(self) -> ModuleType:
        if self._psutil is None:
            try:
                import psutil
            except ImportError as error:
                raise MissingExtra("psutil", extra="device", needed_for="reading the board") from error
            self._psutil = psutil
        return self._psutil


def _load_1min() -> float | None:
    try:
        return os.getloadavg()[0]
    except OSError:
        return None
