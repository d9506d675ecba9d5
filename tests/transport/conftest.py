"""A small bundle, brokers, and a gateway that can misbehave."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Literal

import numpy as np
import pytest

from edgeexit.transport import frames, topics, wire
from edgeexit.transport.address import BrokerAddress
from edgeexit.transport.adverts import Advert, BundleAdvert, encode_advert, lost
from edgeexit.transport.broker import Broker
from edgeexit.transport.exchange import ServedBundle
from edgeexit.transport.mqtt import (
    ConnectionConfig,
    ConnectionEvents,
    MqttConnection,
    Publication,
    Subscription,
    Will,
)
from edgeexit.transport.offload import MqttTransport, OffloadConfig
from edgeexit.transport.protocol import OffloadRequest
from edgeexit.transport.status import Status
from edgeexit.transport.wire import Kind

DIGEST = "5e" * 32
BUNDLE = ServedBundle(digest=DIGEST, stage_count=4, output_size=3)

Manner = Literal["honest", "silent", "busy", "twice", "corrupt", "wrong_shape", "foreign", "late", "failing"]


def make_request(
    *, frame: int = 1, boundary: int = 2, codec: str = "raw", values: int = 100, budget_ms: float = 60_000.0
) -> OffloadRequest:
    """A request whose answer the test gateway's arithmetic tells."""
    hidden = np.linspace(0.0, 1.0, values, dtype=np.float32).reshape(1, values)
    return OffloadRequest(frame, DIGEST, boundary, codec, {"hidden": hidden}, budget_ms)


def answer(payload: bytes) -> bytes:
    """What an honest gateway answers: the frame, the boundary, and how many values came."""
    frame = wire.decode(payload)
    if frame.header.kind is Kind.PING:
        return frames.pong_to(frame.header)
    size = sum(tensor.data.size for tensor in frame.tensors)
    output = np.array([frame.header.frame, frame.header.stage_in, size], np.float32)
    return frames.reply_to(frame.header, output, exit_index=3, queue_ms=0.5, compute_ms=1.5)


class Gateway:
    """A gateway over a real connection, with a manner that tests change."""

    def __init__(
        self, address: BrokerAddress, name: str = "gw-1", *, digest: str = DIGEST, advertises: bool = True
    ) -> None:
        self.name = name
        self.manner: Manner = "honest"
        self.advertises = advertises
        self.requests = 0
        self.pings = 0
        self.cancels: list[bytes] = []
        self.kept: list[tuple[str, bytes, bytes | None]] = []
        self._boot_id = secrets.token_hex(8)
        self._digest = digest
        self._sequence = 0
        status = topics.gateway_status(name)
        self.connection = MqttConnection(
            ConnectionConfig(
                address,
                f"test-{name}",
                will=Will(status, encode_advert(lost(self._boot_id))),
                subscriptions=(
                    Subscription(topics.gateway_infer_filter(name), 1),
                    Subscription(topics.POOL_FILTER),
                ),
                backoff_s=(0.05, 0.2),
            ),
            ConnectionEvents(self._on_message, up=self.advertise, tick=self.advertise, tick_s=0.1),
        )

    def __enter__(self) -> Gateway:
        self.connection.open()
        return self

    def __exit__(self, *exception: object) -> None:
        self.connection.close()

    def advertise(self) -> None:
        """Say what a gateway says once a second."""
        self._sequence += 1
        advert = Advert(
            state="ready",
            boot_id=self._boot_id,
            sequence=self._sequence,
            bundles=(BundleAdvert(digest12=self._digest[:12], stages=(0, 1, 2, 3)),),
            free_slots=1,
        )
        if self.advertises and self.connection.is_up:
            self.connection.publish(topics.gateway_status(self.name), encode_advert(advert), retain=True)

    def crash(self) -> None:
        """Lose the connection without a goodbye, as a killed process does; it comes back by itself."""
        session = self.connection._session
        assert session is not None
        tcp = session._client.tcp
        assert tcp is not None
        tcp.shutdown(socket.SHUT_RDWR)

    def send_kept(self) -> None:
        """Send the replies that were kept back."""
        kept, self.kept = self.kept, []
        for topic, payload, correlation in kept:
            self.connection.publish(topic, payload, correlation=correlation)

    def _on_message(self, message: Publication) -> None:
        topic = message.response_topic
        assert topic is not None
        assert topics.is_reply(topic)
        asked = wire.decode(message.payload).header
        correlation = message.correlation
        manner = self.manner
        if asked.kind is Kind.REQUEST:
            self.requests += 1
        if asked.kind is Kind.CANCEL:
            # As a gateway that does not know of them: it takes note, and goes on.
            assert correlation is None
            self.cancels.append(asked.request_id)
            return
        if manner == "silent":
            return
        reply = answer(message.payload)
        if asked.kind is Kind.PING:
            self.pings += 1
            self.connection.publish(topic, reply, correlation=correlation)
            return
        if manner == "late":
            self.kept.append((topic, reply, correlation))
            return
        if manner == "busy":
            reply = frames.refusal_of(asked, Status.BUSY, retry_after_ms=60_000.0)
        elif manner == "failing":
            reply = frames.refusal_of(asked, Status.FAILED)
        elif manner == "corrupt":
            self.connection.publish(topic, reply[:40] + b"\xff" + reply[41:], correlation=correlation)
            self.connection.publish(topic, reply[:-16], correlation=correlation)
            self.connection.publish(topic, b"not a frame", correlation=correlation)
        elif manner == "wrong_shape":
            wrong = np.zeros(5, np.float32)
            reply = frames.reply_to(asked, wrong, exit_index=3, queue_ms=0.0, compute_ms=0.0)
        elif manner == "foreign":
            for other in (secrets.token_bytes(16), asked.request_id[:8] + b"\xff" * 8):
                stranger = wire.Header(
                    kind=Kind.REPLY, request_id=other, bundle_digest=asked.bundle_digest, stage_out=3
                )
                self.connection.publish(topic, wire.encode(stranger), correlation=other)
            mixed_up = wire.Header(
                kind=Kind.REPLY, request_id=asked.request_id, bundle_digest=bytes(16), stage_out=3
            )
            self.connection.publish(topic, wire.encode(mixed_up), correlation=correlation)
        for _ in range(2 if manner == "twice" else 1):
            self.connection.publish(topic, reply, qos=message.qos, correlation=correlation)


# Waits end as soon as what they wait for is so; this only ends a test that would hang.
PATIENCE_S = 60.0


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    until_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until_s, "it never came to be"
        threading.Event().wait(0.01)


class Site:
    """A broker's surroundings: gateways and transports that are closed when the test ends."""

    def __init__(self) -> None:
        self._open = ExitStack()

    def gateway(
        self, address: BrokerAddress, name: str = "gw-1", *, digest: str = DIGEST, advertises: bool = True
    ) -> Gateway:
        """A gateway that is up."""
        gateway = self._open.enter_context(Gateway(address, name, digest=digest, advertises=advertises))
        assert gateway.connection.wait_up(PATIENCE_S), gateway.connection.error
        return gateway

    def transport(
        self,
        address: BrokerAddress,
        device: str = "porch-1",
        *,
        qos: int = 0,
        pool: bool = False,
        late_ms: float = 5000.0,
        keepalive_s: int = 15,
    ) -> MqttTransport:
        """A transport that was opened, up or not."""
        config = OffloadConfig(
            address,
            device,
            qos=qos,
            pool=pool,
            late_ms=late_ms,
            keepalive_s=keepalive_s,
            backoff_s=(0.05, 0.2),
        )
        transport = MqttTransport(config, BUNDLE)
        self._open.callback(transport.close)
        transport.open()
        return transport

    def pair(
        self, address: BrokerAddress, *, qos: int = 0, late_ms: float = 5000.0, keepalive_s: int = 15
    ) -> tuple[MqttTransport, Gateway]:
        """A transport and the gateway that it has found."""
        gateway = self.gateway(address)
        transport = self.transport(address, qos=qos, late_ms=late_ms, keepalive_s=keepalive_s)
        eventually(lambda: transport.status().up)
        return transport, gateway

    def close(self) -> None:
        """Close everything."""
        self._open.close()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture
def bundle() -> ServedBundle:
    return BUNDLE


@pytest.fixture
def ask() -> Callable[..., OffloadRequest]:
    return make_request


@pytest.fixture
def wait() -> Callable[[Callable[[], bool]], None]:
    return eventually


@pytest.fixture
def serve() -> Callable[[bytes], bytes]:
    return answer


@pytest.fixture(params=["mosquitto", "iotcore"])
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    with Broker(kind=request.param) as running:
        yield running


@pytest.fixture
def mosquitto() -> Iterator[Broker]:
    with Broker(kind="mosquitto") as running:
        yield running
