"""A bounded queue with a thread behind it: handing a record over never blocks the inference loop."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence
from typing import Protocol

from edgeexit.device.records import LogRecord

_log = logging.getLogger(__name__)

# Twenty seconds of records at a hundred frames a second: longer than an SD card stalls.
CAPACITY = 4096

# Records written in one go; more would delay the flush for no gain.
BATCH = 256


class Sink(Protocol):
    """Port: takes records somewhere; called from one thread only."""

    def write(self, records: Sequence[LogRecord]) -> None:
        """Take these records. Raises: nothing that a full disk or a dead network can cause."""
        ...

    def close(self) -> None:
        """Finish what is open."""
        ...


class Outbox:
    """Hands records to a sink in a thread of its own; while the sink stalls, new ones are counted as lost."""

    def __init__(self, sink: Sink, name: str) -> None:
        self._sink = sink
        self._queue: queue.Queue[LogRecord | None] = queue.Queue(CAPACITY)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._lost = 0

    @property
    def lost(self) -> int:
        """How many records the sink was too slow for."""
        return self._lost

    def open(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, record: LogRecord) -> None:
        """Hand a record over; never blocks."""
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self._lost += 1

    def close(self, timeout_s: float) -> None:
        """Write what is left, then close the sink; give up after `timeout_s`."""
        if not self._thread.is_alive():
            return
        try:
            self._queue.put(None, timeout=timeout_s)
        except queue.Full:
            return
        self._thread.join(timeout_s)

    def _run(self) -> None:
        ended = False
        while not ended:
            batch: list[LogRecord] = []
            item = self._queue.get()
            while item is not None:
                batch.append(item)
                if len(batch) == BATCH or self._queue.empty():
                    break
                item = self._queue.get()
            ended = item is None
            if batch:
                self._write(batch)
        self._sink.close()

    def _write(self, batch: Sequence[LogRecord]) -> None:
        try:
            self._sink.write(batch)
        except Exception:  # noqa: BLE001 - a bug in a sink must not end its thread
            self._lost += len(batch)
            _log.exception("%d records are lost", len(batch))
