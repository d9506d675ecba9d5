import threading

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.decide.answer import Drop
from edgeexit.device.slot import FrameSlot
from edgeexit.engine import Frame

PIXEL = np.zeros((1, 1), dtype=np.uint8)


def frame(number: int) -> Frame:
    return Frame(number, f"{number}.png", float(number), PIXEL)


def test_the_newest_frame_wins_and_the_replaced_one_is_dropped() -> None:
    drops: list[Drop] = []
    slot = FrameSlot(drops.append)
    slot.put(frame(0))
    slot.put(frame(1))
    taken = slot.take(0.0)
    assert taken is not None
    assert taken.number == 1
    assert drops == [Drop(frame=0, source="0.png", captured_ms=0.0, reason="replaced")]


@given(steps=st.lists(st.sampled_from(["put", "take", "close", "end"]), max_size=60))
def test_every_frame_is_taken_or_dropped_once(steps: list[str]) -> None:
    drops: list[Drop] = []
    slot = FrameSlot(drops.append)
    taken: list[int] = []
    number = 0
    for step in steps:
        if step == "put":
            slot.put(frame(number))
            number += 1
        elif step == "take":
            got = slot.take(0.0)
            if got is not None:
                taken.append(got.number)
        elif step == "close":
            slot.close()
        else:
            slot.end()
    slot.close()
    assert sorted(taken + [drop.frame for drop in drops]) == list(range(number))
    assert taken == sorted(taken)
    assert {drop.reason for drop in drops} <= {"replaced", "shutdown"}


def test_a_put_wakes_a_consumer_that_waits() -> None:
    slot = FrameSlot(lambda drop: None)
    got: list[Frame | None] = []
    consumer = threading.Thread(target=lambda: got.append(slot.take(60.0)))
    consumer.start()
    slot.put(frame(7))
    consumer.join(60)
    assert [each.number for each in got if each is not None] == [7]


def test_a_close_wakes_a_consumer_and_drops_what_waits() -> None:
    drops: list[Drop] = []
    slot = FrameSlot(drops.append)
    got: list[Frame | None] = []
    consumer = threading.Thread(target=lambda: got.append(slot.take(60.0)))
    consumer.start()
    slot.close()
    consumer.join(60)
    assert got == [None]
    slot.put(frame(1))
    assert [drop.reason for drop in drops] == ["shutdown"]
    assert slot.exhausted


def test_the_last_frame_is_still_given_after_the_end() -> None:
    slot = FrameSlot(lambda drop: None)
    slot.put(frame(0))
    slot.end()
    assert [slot.exhausted, slot.take(0.0) is None, slot.exhausted] == [False, False, True]
    assert slot.take(30.0) is None  # and at once


def test_waiting_for_an_empty_slot() -> None:
    slot = FrameSlot(lambda drop: None)
    assert slot.wait_empty(0.0)
    slot.put(frame(0))
    assert not slot.wait_empty(0.0)
    slot.take(0.0)
    assert slot.wait_empty(0.0)
