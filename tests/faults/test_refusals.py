"""Every typed refusal of a real gateway, as a device's transport sees it over a real broker."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

import pytest

from edgeexit.errors import GatewayRefused, LinkDown, NoCredit, OffloadCancelled, OffloadTimeout
from edgeexit.transport.exchange import ServedBundle
from edgeexit.transport.frames import CANCEL_BYTES
from edgeexit.transport.offload import MqttTransport, OffloadConfig
from edgeexit.transport.pending import Window
from edgeexit.transport.protocol import OffloadReply, OffloadRequest

if TYPE_CHECKING:
    from edgeexit.bundle import Bundle
    from tests.faults.conftest import House

pytestmark = [pytest.mark.broker, pytest.mark.process, pytest.mark.litert]

PATIENCE_S = 60.0
STAGE_MS = 60.0

Ask = Callable[[float], Future[OffloadReply]]
"""Sends the image with so much of its budget left, in ms."""


def transport_of(house: House, bundle: Bundle, *, pool: bool) -> MqttTransport:
    config = OffloadConfig(broker=house.broker.address, device="porch", pool=pool, window=Window(requests=64))
    return MqttTransport(config, ServedBundle(bundle.digest, bundle.manifest.stage_count, output_size=3))


def asking(transport: MqttTransport, bundle: Bundle) -> Ask:
    image = bundle.golden().sample(0)

    def ask(budget_left_ms: float) -> Future[OffloadReply]:
        return transport.submit(
            OffloadRequest(
                frame=1,
                bundle_digest=bundle.digest,
                boundary=0,
                codec="u8",
                tensors=image,
                budget_left_ms=budget_left_ms,
            )
        )

    return ask


def wait_for_link(transport: MqttTransport) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not transport.status().up:
        assert time.monotonic() < end_s
        time.sleep(0.02)


@pytest.fixture
def ask(house: House) -> Ask:
    house.slow_gateway(stage_ms=STAGE_MS)
    transport = transport_of(house, house.bundle, pool=False)
    house.parts.callback(transport.close)
    transport.open()
    wait_for_link(transport)
    return asking(transport, house.bundle)


def refusal(future: Future[OffloadReply]) -> GatewayRefused:
    with pytest.raises(GatewayRefused) as caught:
        future.result(PATIENCE_S)
    return caught.value


def test_time_for_all_stages_gives_the_last_exit(ask: Ask) -> None:
    reply = ask(30_000.0).result(PATIENCE_S)
    assert reply.exit == 2
    assert reply.gateway == "gw-1"
    assert reply.compute_ms >= 3 * STAGE_MS


def test_too_little_time_for_any_stage_is_too_late(ask: Ask) -> None:
    assert refusal(ask(STAGE_MS / 2)).reason == "too_late"


def test_time_for_some_stages_gives_the_deepest_of_them(ask: Ask) -> None:
    # Between one stage and three; a machine that is too busy even for one says so, or nothing in time.
    refusals: set[str] = set()
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        try:
            reply = ask(2.5 * STAGE_MS).result(PATIENCE_S)
        except (GatewayRefused, LinkDown, OffloadTimeout) as error:
            refusals.add(error.reason if isinstance(error, GatewayRefused) else "too_late")
            time.sleep(0.02)
            continue
        assert reply.exit < 2
        assert refusals <= {"too_late"}
        return
    raise AssertionError(f"no stage was ever in time: {refusals}")


def test_more_than_can_be_served_in_time_is_busy(ask: Ask) -> None:
    futures: list[Future[OffloadReply]] = []
    busy: list[GatewayRefused] = []
    end_s = time.monotonic() + PATIENCE_S
    while not busy and time.monotonic() < end_s:
        # The transport leaves a busy gateway alone from its first refusal on.
        with contextlib.suppress(LinkDown, NoCredit):
            futures.append(ask(2000.0))
        ends = [future.exception() for future in futures if future.done()]
        busy = [end for end in ends if isinstance(end, GatewayRefused) and end.reason == "busy"]
    assert busy
    assert all(end.retry_after_ms is not None and end.retry_after_ms > 0.0 for end in busy)
    assert any(future.exception(PATIENCE_S) is None for future in futures)


def test_what_nobody_waits_for_any_more_is_let_go(house: House) -> None:
    # Stages far longer than a message takes: the cancels arrive while the first one runs.
    house.slow_gateway(stage_ms=2_000.0, when="served")
    transport = transport_of(house, house.bundle, pool=False)
    house.parts.callback(transport.close)
    transport.open()
    wait_for_link(transport)
    ask = asking(transport, house.bundle)
    runs, waits, wanted = ask(40_000.0), ask(60_000.0), ask(80_000.0)
    assert transport.withdraw(waits) == CANCEL_BYTES
    assert isinstance(waits.exception(PATIENCE_S), OffloadCancelled)
    assert not runs.done(), "who waits is let go at once"
    assert transport.withdraw(runs) == CANCEL_BYTES
    ended = runs.exception(PATIENCE_S)
    assert isinstance(ended, OffloadCancelled)
    assert ended.compute_ms is not None
    assert ended.compute_ms < 3 * 2_000.0, "not all of its stages ran"
    assert wanted.result(PATIENCE_S).exit == 2
    assert transport.counters.cancelled == 2
    assert transport.status().in_flight == 0


def test_bundle_that_no_gateway_has(house: House) -> None:
    house.slow_gateway()
    house.wait_for_ready()
    other = house.other_bundle(house.store.parent / "elsewhere")
    for pool in (True, False):
        transport = transport_of(house, other, pool=pool)
        house.parts.callback(transport.close)
        transport.open()
        assert transport.connection.wait_up(PATIENCE_S)
        if pool:
            assert refusal(asking(transport, other)(30_000.0)).reason == "unknown_bundle"
        else:
            with pytest.raises(LinkDown):
                asking(transport, other)(30_000.0)


def test_gateway_that_leaves_refuses_what_is_too_much_for_its_last_seconds(house: House) -> None:
    gateway = house.slow_gateway(stage_ms=10_000.0, when="served")
    transport = transport_of(house, house.bundle, pool=False)
    house.parts.callback(transport.close)
    transport.open()
    wait_for_link(transport)
    ask = asking(transport, house.bundle)
    # Two are at work for longer than a leaving gateway waits, the others wait behind them.
    futures = [ask(60_000.0) for _ in range(4)]
    house.wait_for_advert(lambda advert: (advert.free_slots, advert.queue_depth) == (0, 2))
    gateway.terminate()
    reasons = []
    for future in futures:
        error = future.exception(PATIENCE_S)
        assert isinstance(error, GatewayRefused | LinkDown)
        reasons.append(error.reason if isinstance(error, GatewayRefused) else "gone")
    assert reasons == ["gone", "gone", "draining", "draining"]
    assert gateway.wait() == 0
    assert not transport.status().up
