"""Gateways that answer late, twice, what was not asked, or rubbish: no frame is harmed, none is fooled."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from edgeexit.decide.answer import Answer, OffloadOutcome, Place

if TYPE_CHECKING:
    from tests.faults.conftest import Device, House

pytestmark = [pytest.mark.broker, pytest.mark.process, pytest.mark.litert]


def resume(device: Device) -> None:
    """Offloading comes back by itself, and nothing is left of the bad times."""
    device.answer_until_offloaded()
    device.check_every_frame()
    device.check_nothing_is_left()


def test_late_replies_are_late_offloads_and_teach(house: House) -> None:
    gateway = house.crooked_gateway()
    device = house.device()
    device.answer_until_offloaded()
    gateway.order("late")
    answer = device.answer_until(lambda _: device.transport.inner.counters.late > 0)
    assert answer.place is Place.DEVICE
    device.check_nothing_is_left()
    device.engine.idle()
    assert any(record.outcome is OffloadOutcome.LATE for record in device.offloads)
    gateway.order("honest")
    resume(device)


def test_duplicated_replies_are_used_once(house: House) -> None:
    gateway = house.crooked_gateway()
    device = house.device()
    gateway.order("duplicated")
    device.answer_until_offloaded()
    device.answer_until(lambda _: device.transport.inner.counters.duplicate > 0)
    ends = Counter(record.frame for record in device.offloads)
    frames_sent = Counter(answer.offloads for answer in device.answers)
    assert sum(ends.values()) <= sum(count * times for count, times in frames_sent.items())
    resume(device)


@pytest.mark.parametrize("manner", ["foreign", "corrupted", "silent"])
def test_what_is_no_answer_is_never_taken_for_one(house: House, manner: str) -> None:
    gateway = house.crooked_gateway()
    device = house.device()
    device.answer_until_offloaded()
    before = len(device.answers)
    gateway.order(manner)

    def was_noticed(_: Answer) -> bool:
        counters = device.transport.inner.counters
        return {
            "foreign": counters.foreign > 0 and counters.mismatched > 0,
            "corrupted": counters.malformed > 0 and counters.corrupt > 0,
            "silent": sum(answer.offloads for answer in device.answers[before:]) >= 2,
        }[manner]

    device.answer_until(was_noticed)
    device.answer_for(1.0)
    assert {answer.place for answer in device.answers[before:]} == {Place.DEVICE}
    device.check_nothing_is_left()
    gateway.order("honest")
    resume(device)
