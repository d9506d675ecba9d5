import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.decide.answer import Drop
from edgeexit.device.capture import Capture, Pace, Shot
from edgeexit.device.clock import monotonic_ms
from edgeexit.device.slot import FrameSlot
from edgeexit.errors import DataError, DeviceError, MissingExtra

PIXEL = np.zeros((1, 1), dtype=np.uint8)


class ScriptedReader:
    """Gives what its script says: a name is an image, an error is raised."""

    def __init__(self, script: list[str | Exception], *, live: bool = False) -> None:
        self.live = live
        self.rate_hz: float | None = None
        self.opened = 0
        self.closed = 0
        self._script: Iterator[str | Exception] = iter(script)

    def open(self) -> None:
        self.opened += 1

    def read(self) -> Shot | None:
        step = next(self._script, None)
        if step is None:
            return None
        if isinstance(step, Exception):
            raise step
        return Shot(step, 5.0, PIXEL)

    def close(self) -> None:
        self.closed += 1


class Run:
    """A capture with everything that it tells written down."""

    def __init__(self, reader: ScriptedReader, rate_hz: float | None = None) -> None:
        self.drops: list[Drop] = []
        self.troubles: list[DeviceError | None] = []
        self.slot = FrameSlot(self.drops.append)
        self.capture = Capture(
            reader,
            self.slot,
            rate_hz=rate_hz,
            clock=monotonic_ms,
            drop=self.drops.append,
            trouble=self.troubles.append,
        )

    def taken(self) -> list[tuple[int, str]]:
        self.capture.open()
        found = []
        while not self.slot.exhausted:
            frame = self.slot.take(10.0)
            if frame is not None:
                found.append((frame.number, frame.source))
        self.capture.close()
        return found


def test_a_source_without_a_pace_loses_nothing() -> None:
    run = Run(ScriptedReader([f"{index}.png" for index in range(50)]))
    assert run.taken() == [(index, f"{index}.png") for index in range(50)]
    assert run.drops == []


def test_an_unreadable_image_is_a_drop_and_the_next_one_goes_on() -> None:
    run = Run(ScriptedReader(["a.png", DataError("broken", file="b.png"), "c.png"]))
    assert run.taken() == [(0, "a.png"), (2, "c.png")]
    assert [(drop.frame, drop.source, drop.reason) for drop in run.drops] == [(1, "b.png", "unreadable")]


def test_every_read_ends_in_a_frame_or_a_drop_when_paced() -> None:
    run = Run(ScriptedReader([f"{index}.png" for index in range(30)]), rate_hz=1000.0)
    taken = run.taken()
    assert sorted([number for number, _ in taken] + [drop.frame for drop in run.drops]) == list(range(30))


def test_a_source_that_breaks_down_ends_and_says_why() -> None:
    gone = DeviceError("the folder is gone")
    reader = ScriptedReader(["a.png", gone, "never.png"])
    run = Run(reader)
    assert run.taken() == [(0, "a.png")]
    assert run.troubles == [gone]
    assert reader.closed == 1


def test_a_camera_that_was_unplugged_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeexit.device.capture.REOPEN_S", (0.001,))
    gone = DeviceError("unplugged")
    reader = ScriptedReader(["0", gone, "1"], live=True)
    run = Run(reader)
    taken = run.taken()
    assert reader.opened == 2
    assert run.troubles == [gone, None]
    assert [number for number, _ in taken] + [drop.frame for drop in run.drops] in ([0, 1], [1, 0])


@pytest.mark.parametrize(
    "bug", [KeyError("bug"), MissingExtra("x", extra="y", needed_for="z"), MemoryError()]
)
def test_a_reader_that_fails_in_any_other_way_is_a_lost_source_too(bug: Exception) -> None:
    run = Run(ScriptedReader(["a.png", bug]))
    assert run.taken() == [(0, "a.png")]
    assert [type(trouble) for trouble in run.troubles] == [DeviceError]


def test_closing_does_not_wait_for_a_consumer() -> None:
    run = Run(ScriptedReader(["a.png", "b.png"]))
    run.capture.open()
    run.capture.close()
    for thread in threading.enumerate():
        if thread.name == "capture":
            thread.join(60)
            assert not thread.is_alive()


def test_frames_are_due_at_a_steady_pace() -> None:
    now = [0.0]
    pace = Pace(100.0, lambda: now[0])
    waits = []
    for took_ms in (0.0, 30.0, 60.0, 10.0):
        now[0] += took_ms
        wait_ms = pace.wait_ms()
        waits.append(wait_ms)
        now[0] += wait_ms
    assert waits == [0.0, 70.0, 40.0, 90.0]
    assert now[0] == 300.0


@given(took_ms=st.lists(st.floats(min_value=0.0, max_value=1000.0), max_size=50))
def test_a_pace_that_was_missed_is_not_made_up_for(took_ms: list[float]) -> None:
    now = [0.0]
    pace = Pace(100.0, lambda: now[0])
    due = []
    for each in took_ms:
        now[0] += each
        wait_ms = pace.wait_ms()
        assert 0.0 <= wait_ms <= 100.0 + 1e-6
        now[0] += wait_ms
        due.append(now[0])
    # At most one frame early after a short delay, never a burst: two frames span at least one period.
    assert all(later - earlier >= 100.0 - 1e-6 for earlier, later in zip(due, due[2:], strict=False))
