import threading
from collections.abc import Sequence

import pytest

from edgeexit.decide.answer import Drop
from edgeexit.device.outbox import Outbox
from edgeexit.device.records import LogRecord


def drop(number: int) -> Drop:
    return Drop(frame=number, source="a.png", captured_ms=0.0, reason="replaced")


class SlowSink:
    """Takes nothing until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.taken: list[LogRecord] = []
        self.closed = False

    def write(self, records: Sequence[LogRecord]) -> None:
        self.go.wait(60)
        self.taken.extend(records)

    def close(self) -> None:
        self.closed = True


def test_all_records_arrive_in_order_before_the_sink_is_closed() -> None:
    sink = SlowSink()
    sink.go.set()
    outbox = Outbox(sink, "test")
    outbox.open()
    for number in range(1000):
        outbox.put(drop(number))
    outbox.close(60.0)
    assert sink.taken == [drop(number) for number in range(1000)]
    assert sink.closed
    assert outbox.lost == 0


def test_a_stalled_sink_costs_records_never_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeexit.device.outbox.CAPACITY", 10)
    sink = SlowSink()
    outbox = Outbox(sink, "test")
    outbox.open()
    for number in range(1000):
        outbox.put(drop(number))
    assert outbox.lost > 900
    sink.go.set()
    outbox.close(60.0)
    assert len(sink.taken) == 1000 - outbox.lost


class BrokenSink(SlowSink):
    """Fails with the first batch."""

    def write(self, records: Sequence[LogRecord]) -> None:
        if not self.taken:
            self.taken.append(records[0])
            raise KeyError("bug")
        self.taken.extend(records)


def test_a_bug_in_a_sink_costs_its_batch_and_no_more() -> None:
    sink = BrokenSink()
    outbox = Outbox(sink, "test")
    outbox.open()
    outbox.put(drop(0))
    while outbox.lost == 0:
        threading.Event().wait(0.001)
    outbox.put(drop(1))
    outbox.close(60.0)
    assert sink.taken == [drop(0), drop(1)]
    assert sink.closed


def test_closing_gives_up_on_a_sink_that_hangs() -> None:
    sink = SlowSink()
    outbox = Outbox(sink, "test")
    outbox.open()
    outbox.put(drop(0))
    outbox.close(0.01)
    assert not sink.closed
    sink.go.set()


def test_closing_what_was_never_opened_is_nothing() -> None:
    Outbox(SlowSink(), "test").close(0.01)
