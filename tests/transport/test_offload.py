"""Offloading over real brokers: answers, refusals, and every fault shown harmless."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from edgeexit.errors import (
    ConfigError,
    GatewayRefused,
    LinkDown,
    NoCredit,
    OffloadCancelled,
    OffloadTimeout,
    WireError,
)
from edgeexit.transport import topics
from edgeexit.transport.address import BrokerAddress
from edgeexit.transport.broker import Broker
from edgeexit.transport.exchange import ServedBundle
from edgeexit.transport.frames import CANCEL_BYTES
from edgeexit.transport.mqtt import ConnectionConfig, ConnectionEvents, MqttConnection
from edgeexit.transport.offload import MqttTransport, OffloadConfig
from edgeexit.transport.protocol import OffloadReply, OffloadRequest

if TYPE_CHECKING:
    from tests.transport.conftest import Site

pytestmark = pytest.mark.broker

Ask = Callable[..., OffloadRequest]
Wait = Callable[[Callable[[], bool]], None]


def _result(future: Future[OffloadReply]) -> OffloadReply:
    return future.result(timeout=60.0)


def _error(future: Future[OffloadReply]) -> BaseException | None:
    return future.exception(timeout=60.0)


@pytest.mark.parametrize("qos", [0, 1])
def test_tensors_of_every_size_are_answered(broker: Broker, site: Site, ask: Ask, qos: int) -> None:
    transport, _ = site.pair(broker.address, qos=qos)
    for values in (1, 250, 4_000, 10_000, 37_500, 150_000):
        reply = _result(transport.submit(ask(frame=values, values=values, budget_ms=60_000.0)))
        assert reply.output.tolist() == [values, 2.0, values]
        assert reply.uplink_bytes > 4 * values
        assert reply.gateway == "gw-1"
    assert transport.counters.answered == 6
    assert transport.status().in_flight == 0


def test_a_codec_travels_too(mosquitto: Broker, site: Site, ask: Ask) -> None:
    transport, _ = site.pair(mosquitto.address)
    reply = _result(transport.submit(ask(codec="int8", values=1000)))
    assert reply.output.tolist() == [1.0, 2.0, 1000.0]
    assert 1000 < reply.uplink_bytes < 1300


def test_a_gateway_that_names_no_ability_gets_nothing_packed(mosquitto: Broker, site: Site, ask: Ask) -> None:
    transport, _ = site.pair(mosquitto.address)
    assert transport.status().abilities == frozenset()
    with pytest.raises(LinkDown, match="no gateway takes"):
        transport.submit(ask(codec="int4"))
    assert transport.status().in_flight == 0


def test_a_ping_comes_back(broker: Broker, site: Site) -> None:
    transport, gateway = site.pair(broker.address)
    pong = transport.probe(50_000).result(timeout=60.0)
    assert pong.gateway == "gw-1"
    assert abs(pong.uplink_bytes - 50_000) <= 64
    assert gateway.requests == 0


def test_opening_without_a_broker_returns_and_heals(site: Site, ask: Ask, wait: Wait) -> None:
    broker = Broker(kind="mosquitto")
    broker.start()
    broker.kill()
    transport = site.transport(broker.address)
    wait(lambda: transport.error is not None)
    error = transport.error
    assert error is not None
    assert error.fix is not None
    assert not transport.status().up
    with pytest.raises(LinkDown):
        transport.submit(ask())
    with pytest.raises(LinkDown):
        transport.probe(10)
    try:
        broker.start()
        site.gateway(broker.address)
        wait(lambda: transport.status().up)
        assert transport.error is None
        assert _result(transport.submit(ask())).exit == 3
        site.close()
    finally:
        broker.stop()


def test_a_killed_broker_fails_what_is_pending_and_offloading_resumes(
    broker: Broker, site: Site, ask: Ask, wait: Wait
) -> None:
    transport, gateway = site.pair(broker.address)
    gateway.manner = "silent"
    futures = [transport.submit(ask(budget_ms=60_000.0)) for _ in range(2)]
    broker.kill()
    assert all(isinstance(_error(future), LinkDown) for future in futures)
    status = transport.status()
    assert not status.up
    assert status.in_flight == 0
    with pytest.raises(LinkDown):
        transport.submit(ask())
    gateway.manner = "honest"
    broker.start()
    wait(lambda: transport.status().up)
    assert _result(transport.submit(ask(frame=5))).output[0] == 5.0
    assert transport.connection.connects == 2


def test_many_broker_deaths_leave_no_future_open_and_leak_nothing(
    broker: Broker, site: Site, ask: Ask, wait: Wait
) -> None:
    transport, _ = site.pair(broker.address)
    futures: list[Future[OffloadReply]] = []
    stop = threading.Event()

    def keep_submitting() -> None:
        frame = 0
        while not stop.is_set():
            frame += 1
            try:
                futures.append(transport.submit(ask(frame=frame, values=20_000, budget_ms=60_000.0)))
            except (LinkDown, NoCredit):
                stop.wait(0.001)

    with ThreadPoolExecutor(2) as engines:
        running = [engines.submit(keep_submitting) for _ in range(2)]
        before = _descriptors()
        for _ in range(5):
            answered = transport.counters.answered
            wait(lambda: transport.counters.answered > answered + 5)  # noqa: B023 (called in this round)
            broker.restart()
            wait(lambda: transport.status().up)
        stop.set()
        for engine in running:
            engine.result(timeout=60.0)
    wait(lambda: all(future.done() for future in futures))
    assert transport.status().in_flight == 0
    wait(lambda: _descriptors() <= before)
    for future in futures:
        error = future.exception(timeout=0)
        assert error is None or isinstance(error, LinkDown)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_gateway_that_vanishes_fails_its_requests_at_once(
    broker: Broker, site: Site, ask: Ask, wait: Wait
) -> None:
    transport, gateway = site.pair(broker.address)
    gateway.manner = "silent"
    future = transport.submit(ask())
    wait(lambda: gateway.requests == 1)
    # It comes back by itself in no time, and says so only when it is told to.
    gateway.advertises = False
    gateway.crash()
    assert isinstance(_error(future), LinkDown)
    wait(lambda: not transport.status().up)
    with pytest.raises(LinkDown):
        transport.submit(ask())
    gateway.manner = "honest"
    gateway.advertises = True
    wait(lambda: transport.status().up)
    assert _result(transport.submit(ask(frame=6))).output[0] == 6.0


def test_a_gateway_without_this_bundle_is_never_asked(mosquitto: Broker, site: Site, ask: Ask) -> None:
    stranger = site.gateway(mosquitto.address, "gw-other", digest="77" * 32)
    transport, gateway = site.pair(mosquitto.address)
    for frame in range(20):
        _result(transport.submit(ask(frame=frame)))
    assert gateway.requests == 20
    assert stranger.requests == 0
    assert transport.status().gateways == 1


def test_two_gateways_share_the_work(mosquitto: Broker, site: Site, ask: Ask, wait: Wait) -> None:
    gateways = [site.gateway(mosquitto.address, f"gw-{number}") for number in (1, 2)]
    transport = site.transport(mosquitto.address)
    wait(lambda: transport.status().gateways == 2)
    for frame in range(40):
        futures = [transport.submit(ask(frame=frame)) for _ in range(2)]
        for future in futures:
            _result(future)
    assert all(gateway.requests > 0 for gateway in gateways)


def test_a_busy_gateway_is_left_alone(mosquitto: Broker, site: Site, ask: Ask) -> None:
    transport, gateway = site.pair(mosquitto.address)
    gateway.manner = "busy"
    error = _error(transport.submit(ask()))
    assert isinstance(error, GatewayRefused)
    assert (error.reason, error.retry_after_ms) == ("busy", 60_000.0)
    assert not transport.status().up
    with pytest.raises(LinkDown):
        transport.submit(ask())
    assert gateway.requests == 1


def test_duplicate_replies_are_harmless(broker: Broker, site: Site, ask: Ask, wait: Wait) -> None:
    transport, gateway = site.pair(broker.address)
    gateway.manner = "twice"
    for frame in range(5):
        assert _result(transport.submit(ask(frame=frame))).output[0] == frame
    wait(lambda: transport.counters.duplicate == 5)
    assert transport.counters.answered == 5


def test_corrupted_replies_are_harmless(broker: Broker, site: Site, ask: Ask) -> None:
    transport, gateway = site.pair(broker.address)
    gateway.manner = "corrupt"
    assert _result(transport.submit(ask(frame=4))).output[0] == 4.0
    assert transport.counters.malformed == 3
    gateway.manner = "wrong_shape"
    assert isinstance(_error(transport.submit(ask())), WireError)
    gateway.manner = "honest"
    assert _result(transport.submit(ask(frame=5))).output[0] == 5.0


def test_foreign_replies_are_harmless(broker: Broker, site: Site, ask: Ask) -> None:
    transport, gateway = site.pair(broker.address)
    gateway.manner = "foreign"
    assert _result(transport.submit(ask(frame=4))).output[0] == 4.0
    counters = transport.counters
    assert (counters.foreign, counters.unknown, counters.mismatched) == (1, 1, 1)


def test_late_replies_teach_until_nobody_waits(broker: Broker, site: Site, ask: Ask, wait: Wait) -> None:
    transport, gateway = site.pair(broker.address, late_ms=60_000.0)
    gateway.manner = "late"
    future = transport.submit(ask(frame=4, budget_ms=1.0))
    wait(lambda: bool(gateway.kept) and transport.status().in_flight == 0)
    assert not future.done()
    gateway.send_kept()
    assert _result(future).output[0] == 4.0
    assert transport.counters.late == 1
    impatient = site.transport(broker.address, "porch-2", late_ms=1.0)
    wait(lambda: impatient.status().up)
    given_up = impatient.submit(ask(budget_ms=1.0))
    assert isinstance(_error(given_up), OffloadTimeout)
    wait(lambda: bool(gateway.kept))
    gateway.send_kept()
    wait(lambda: impatient.counters.expired == 1)


@pytest.mark.parametrize("qos", [0, 1])
def test_a_request_is_taken_back_once_and_a_gateway_that_goes_on_is_no_harm(
    broker: Broker, site: Site, ask: Ask, wait: Wait, qos: int
) -> None:
    transport, gateway = site.pair(broker.address, qos=qos, late_ms=60_000.0)
    gateway.manner = "late"
    future = transport.submit(ask(frame=4))
    wait(lambda: bool(gateway.kept))
    assert transport.withdraw(future) == CANCEL_BYTES
    wait(lambda: len(gateway.cancels) == 1)
    correlation = gateway.kept[0][2]
    assert gateway.cancels == [correlation]
    assert transport.status().in_flight == 1
    gateway.send_kept()
    assert _result(future).output[0] == 4.0
    assert transport.withdraw(future) == 0
    assert transport.counters.cancelled == 0


def test_what_went_to_the_pool_is_not_called_back(
    mosquitto: Broker, site: Site, ask: Ask, wait: Wait
) -> None:
    gateway = site.gateway(mosquitto.address, advertises=False)
    gateway.manner = "late"
    transport = site.transport(mosquitto.address, pool=True)
    wait(lambda: transport.connection.is_up)
    future = transport.submit(ask(frame=8))
    wait(lambda: bool(gateway.kept))
    assert transport.withdraw(future) == 0
    gateway.send_kept()
    assert _result(future).output[0] == 8.0
    assert gateway.cancels == []


def test_what_has_not_left_is_never_sent(
    mosquitto: Broker, site: Site, ask: Ask, wait: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport, gateway = site.pair(mosquitto.address)
    session = transport.connection._session
    assert session is not None
    # As while the socket takes nothing more: what is published is queued, and stays there.
    monkeypatch.setattr(session, "flush", lambda: True)
    with session._writing:
        first, second = (transport.submit(ask(frame=frame, values=5_000)) for frame in (1, 2))
    before_bytes = transport.connection.backlog_bytes
    assert before_bytes >= 40_000
    assert not transport.connection.drop(bytes(16))
    assert transport.withdraw(second) == 0
    error = second.exception(timeout=0)
    assert isinstance(error, OffloadCancelled)
    assert (error.queue_ms, error.compute_ms) == (None, None)
    assert transport.connection.backlog_bytes <= before_bytes - 20_000
    monkeypatch.undo()
    assert _result(first).output[0] == 1.0
    assert _result(transport.submit(ask(frame=3))).output[0] == 3.0
    assert (gateway.requests, gateway.cancels) == (2, [])
    assert transport.counters.cancelled == 1


def test_silence_opens_the_circuit_and_a_ping_closes_it(
    mosquitto: Broker, site: Site, ask: Ask, wait: Wait
) -> None:
    transport, gateway = site.pair(mosquitto.address)
    gateway.manner = "silent"
    for _ in range(3):
        transport.submit(ask(budget_ms=1.0))
        wait(lambda: transport.status().in_flight == 0)
    wait(lambda: not transport.status().up and gateway.requests == 3)
    gateway.manner = "honest"
    wait(lambda: transport.status().up)
    assert gateway.requests == 3
    assert gateway.pings >= 1


def test_a_stale_advert_is_no_gateway(mosquitto: Broker, site: Site, wait: Wait) -> None:
    transport, gateway = site.pair(mosquitto.address)
    gateway.advertises = False
    wait(lambda: not transport.status().up)
    gateway.advertises = True
    wait(lambda: transport.status().up)


def test_garbage_for_adverts_is_harmless(mosquitto: Broker, site: Site, ask: Ask) -> None:
    transport, _ = site.pair(mosquitto.address)
    config = ConnectionConfig(mosquitto.address, "vandal")
    with MqttConnection(config, ConnectionEvents(lambda message: None)) as vandal:
        assert vandal.wait_up(60.0)
        for payload in (b"", b"{}", b"\xff" * 100, b"[" * 50_000):
            vandal.publish(topics.gateway_status("gw-evil"), payload, qos=1)
            vandal.publish(topics.device_reply("porch-1"), payload, qos=1)
        vandal.publish(topics.PREFIX + "/g/Evil Gateway/status", b"{}", qos=1)
        assert _result(transport.submit(ask(frame=3))).output[0] == 3.0


def test_the_pool_serves_where_no_advert_is_fresh(
    mosquitto: Broker, site: Site, ask: Ask, wait: Wait
) -> None:
    site.gateway(mosquitto.address, advertises=False)
    transport = site.transport(mosquitto.address, pool=True)
    wait(lambda: transport.connection.is_up)
    assert transport.status().gateways == 0
    assert transport.status().up
    reply = _result(transport.submit(ask(frame=8, budget_ms=60_000.0)))
    assert reply.output[0] == 8.0
    assert reply.gateway == "pool"


def test_the_pool_is_no_way_round_a_busy_gateway(mosquitto: Broker, site: Site, ask: Ask, wait: Wait) -> None:
    gateway = site.gateway(mosquitto.address)
    gateway.manner = "busy"
    transport = site.transport(mosquitto.address, pool=True)
    wait(lambda: transport.status().gateways == 1)
    assert isinstance(_error(transport.submit(ask())), GatewayRefused)
    assert not transport.status().up
    with pytest.raises(LinkDown):
        transport.submit(ask())


def test_a_broker_that_hangs_is_a_link_that_is_down(site: Site, ask: Ask, wait: Wait) -> None:
    with Broker(kind="mosquitto") as broker:
        transport, _ = site.pair(broker.address, keepalive_s=1)
        process = broker._process
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        try:
            future = transport.submit(ask(budget_ms=60_000.0))
            assert isinstance(_error(future), LinkDown)
            assert not transport.status().up
        finally:
            os.kill(process.pid, signal.SIGCONT)
        wait(lambda: transport.status().up)
        assert _result(transport.submit(ask(frame=9))).output[0] == 9.0
        site.close()


def test_the_credit_window_holds_over_mqtt(mosquitto: Broker, site: Site, ask: Ask) -> None:
    transport, gateway = site.pair(mosquitto.address)
    gateway.manner = "late"
    futures = [transport.submit(ask(budget_ms=60_000.0)) for _ in range(2)]
    with pytest.raises(NoCredit):
        transport.submit(ask())
    transport.close()
    assert all(isinstance(_error(future), LinkDown) for future in futures)


@pytest.mark.parametrize("qos", [0, 1])
def test_what_the_broker_would_not_take_is_not_sent(site: Site, ask: Ask, wait: Wait, qos: int) -> None:
    with Broker(kind="mosquitto", packet_cap_bytes=65_536) as broker:
        transport, gateway = site.pair(broker.address, qos=qos)
        assert transport.status().largest_payload_bytes == 65_536 - 1024
        with pytest.raises(WireError) as caught:
            transport.submit(ask(values=20_000))
        assert caught.value.status == 413
        # At the limit it still goes through, and the connection lives.
        reply = _result(transport.submit(ask(values=16_000, budget_ms=60_000.0)))
        assert reply.output[2] == 16_000.0
        assert transport.connection.connects == 1
        assert gateway.requests == 1
        site.close()


def test_an_id_that_cannot_stand_in_a_topic_is_refused(bundle: ServedBundle) -> None:
    with pytest.raises(ConfigError):
        MqttTransport(OffloadConfig(BrokerAddress("127.0.0.1"), "porch/+"), bundle)
