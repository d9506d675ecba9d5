"""Where every record of a run goes: counted, and handed to the sinks without waiting for them."""

from __future__ import annotations

from edgeexit.decide.answer import Answer, Record
from edgeexit.device.outbox import Outbox
from edgeexit.device.records import LogRecord, RunEnded
from edgeexit.device.tally import Tally

# Sinks get this long to take what is left: an SD card that stalls longer is full or dying.
FINISH_S = 1.0


class Recorder:
    """Safe to call from several threads; never blocks.

    `answered` is the number of the last frame that was answered, None before the first.
    """

    def __init__(self) -> None:
        self.tally = Tally()
        self.answered: int | None = None
        self._outboxes: list[Outbox] = []

    def add(self, outbox: Outbox) -> None:
        """Send records there too, from now on."""
        outbox.open()
        self._outboxes.append(outbox)

    def emit(self, record: Record) -> None:
        """Take what became of a frame or of an offload."""
        if isinstance(record, Answer):
            self.answered = record.frame
        self.tally.add(record)
        self.note(record)

    def note(self, record: LogRecord) -> None:
        """Take a record that is not counted."""
        for outbox in self._outboxes:
            outbox.put(record)

    def finish(self, now_ms: float) -> None:
        """Write the last record, and let the sinks take what is left."""
        counts = self.tally.counts()
        self.note(
            RunEnded(
                answered=counts.answered,
                dropped=counts.dropped,
                late=counts.late,
                records_lost=sum(outbox.lost for outbox in self._outboxes),
                ended_ms=now_ms,
            )
        )
        for outbox in self._outboxes:
            outbox.close(FINISH_S)
