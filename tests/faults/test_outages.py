"""Gateways, brokers and links that go and come back: frames are answered all along, offloading resumes."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from edgeexit.decide.answer import OffloadOutcome, Place

if TYPE_CHECKING:
    from tests.faults.conftest import Device, GatewayProcess, House

pytestmark = [pytest.mark.broker, pytest.mark.process, pytest.mark.litert]


def kill_mid_request(device: Device, gateway: GatewayProcess) -> None:
    """Answer frames, and kill the gateway in the middle of a request."""
    killed = threading.Event()
    # One that stands still answers nothing that is sent from here on, whenever it is killed.
    gateway.stop()
    sent = len(device.transport.futures)

    def kill() -> None:
        while len(device.transport.futures) == sent:
            time.sleep(0.001)
        gateway.kill()
        killed.set()

    killer = threading.Thread(target=kill)
    killer.start()
    while not killed.is_set():
        device.answer()
    killer.join()


def answer_alone(device: Device) -> None:
    """Answer frames until the link is known to be down, and some more without it."""
    device.answer_until(lambda answer: answer.link_up is False)
    alone = device.answer_for(0.5)
    assert {(answer.place, answer.link_up) for answer in alone} == {(Place.DEVICE, False)}


def test_gateway_killed_mid_request(house: House) -> None:
    gateway = house.slow_gateway(stage_ms=50.0)
    device = house.device()
    device.answer_until_offloaded()
    threads = threading.active_count()

    kill_mid_request(device, gateway)
    device.answer_until(lambda _: any(each.outcome is OffloadOutcome.FAILED for each in device.offloads))
    alone = device.answer_for(1.0)
    assert alone[-1].place is Place.DEVICE

    house.slow_gateway(stage_ms=50.0)
    device.answer_until_offloaded()
    device.check_every_frame()
    device.check_nothing_is_left()
    assert threading.active_count() == threads


@pytest.mark.parametrize("house", ["mosquitto", "iotcore"], indirect=True)
def test_broker_killed_and_restarted(house: House) -> None:
    house.slow_gateway()
    device = house.device()
    device.answer_until_offloaded()
    threads = threading.active_count()

    house.broker.kill()
    answer_alone(device)
    device.check_nothing_is_left()

    house.broker.start()
    device.answer_until_offloaded()
    device.check_every_frame()
    device.check_nothing_is_left()
    assert threading.active_count() == threads


def test_link_cut_and_mended(house: House) -> None:
    house.slow_gateway()
    device = house.device(shaky=True)
    device.answer_until_offloaded()

    for _ in range(2):
        house.link.cut()
        answer_alone(device)
        device.check_nothing_is_left()
        house.link.mend()
        device.answer_until_offloaded()
    device.check_every_frame()
    device.check_nothing_is_left()


@pytest.mark.parametrize("held_s", [1.0, 6.0], ids=["shorter-than-keepalive", "longer-than-keepalive"])
def test_half_open_link(house: House, held_s: float) -> None:
    house.slow_gateway()
    device = house.device(shaky=True)
    device.answer_until_offloaded()

    house.link.hold()
    alone = device.answer_for(held_s)
    assert alone[-1].place is Place.DEVICE
    house.link.release()
    device.answer_until_offloaded()
    device.check_every_frame()
    device.check_nothing_is_left()


def test_no_broker_at_first(house: House) -> None:
    house.broker.kill()
    device = house.device()
    alone = device.answer_for(1.0)
    assert {answer.place for answer in alone} == {Place.DEVICE}
    house.broker.start()
    house.slow_gateway()
    device.answer_until_offloaded()
    device.check_every_frame()
    device.check_nothing_is_left()


def test_gateway_without_the_bundle_until_it_gets_it(house: House) -> None:
    other_store = house.store.parent / "other-store"
    house.other_bundle(other_store / "other")
    house.slow_gateway(store=other_store)
    device = house.device()
    alone = device.answer_for(3.0)
    assert {answer.place for answer in alone} == {Place.DEVICE}
    assert device.transport.futures == []

    (house.store / "tiny").rename(other_store / "tiny")
    device.answer_until_offloaded()
    device.check_every_frame()
    device.check_nothing_is_left()


def test_pool_without_the_bundle_is_a_refusal(house: House) -> None:
    other_store = house.store.parent / "other-store"
    house.other_bundle(other_store / "other")
    house.slow_gateway(store=other_store)
    house.wait_for_ready()
    device = house.device(pool=True)
    device.answer_until(lambda _: any(each.reason == "unknown_bundle" for each in device.offloads))
    device.check_every_frame()
    device.check_nothing_is_left()
    assert {answer.place for answer in device.answers} == {Place.DEVICE}
