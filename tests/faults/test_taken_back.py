"""A device that is content with its own answer: the gateway lets go of its request, the link stays sound."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgeexit.decide.answer import OffloadOutcome, Place
from edgeexit.decide.decision import Action, Decision, Situation
from edgeexit.transport.frames import CANCEL_BYTES

if TYPE_CHECKING:
    from tests.faults.conftest import House

pytestmark = [pytest.mark.broker, pytest.mark.process, pytest.mark.litert]


class Content:
    """Sends every image; while it `waits`, takes the reply, and else is content with its first exit."""

    name = "content"
    anytime = True

    def __init__(self) -> None:
        self.waits = True

    def decide(self, situation: Situation) -> Decision:
        if situation.options and situation.offloads == 0:
            return Decision(Action.OFFLOAD, "sent", option=situation.options[0])
        if situation.evidence is None:
            return Decision(Action.CONTINUE, "floor")
        if self.waits and situation.in_flight is not None:
            return Decision(Action.WAIT, "reply-awaited", wait_ms=20.0)
        return Decision(Action.EXIT, "content")


def test_what_is_not_waited_for_is_taken_back_and_the_link_stays_sound(house: House) -> None:
    # A gateway takes 300 ms for what the device answers in 20: a cancel has all the time it needs.
    house.slow_gateway(stage_ms=100.0)
    policy = Content()
    device = house.device(policy)
    device.answer_until_offloaded()
    policy.waits = False
    device.answer_until(lambda _: device.transport.inner.counters.cancelled > 1)
    device.check_nothing_is_left()
    device.engine.idle()
    taken_back = [each for each in device.offloads if each.outcome is OffloadOutcome.CANCELLED]
    assert taken_back
    for record in taken_back:
        assert (record.reason, record.later_bytes) == ("cancelled", CANCEL_BYTES)
    cancelled = {record.frame for record in taken_back}
    assert {answer.place for answer in device.answers if answer.frame in cancelled} == {Place.DEVICE}
    assert device.transport.status().up
    policy.waits = True
    assert device.answer_until_offloaded().on_time
