"""The transport over MQTT: requests to gateways that say they are there, replies to futures."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from math import ceil
from random import Random
from time import monotonic

from edgeexit.errors import BrokerError, LinkDown, NoCredit, OffloadError, WireError
from edgeexit.transport import frames, topics
from edgeexit.transport.address import BrokerAddress, Credentials
from edgeexit.transport.adverts import decode_advert
from edgeexit.transport.codecs import abilities_for
from edgeexit.transport.dispatch import FRESH_MS, Dispatch
from edgeexit.transport.exchange import BOOT_ID_BYTES, Asked, Counters, Exchange, Fate, Outcome, ServedBundle
from edgeexit.transport.mqtt import (
    ConnectionConfig,
    ConnectionEvents,
    MqttConnection,
    Publication,
    Subscription,
)
from edgeexit.transport.pending import Window
from edgeexit.transport.protocol import Clock, LinkStatus, OffloadReply, OffloadRequest, Pong
from edgeexit.transport.wire import FRAME_CAP_BYTES

_log = logging.getLogger(__name__)

# Stands for the gateway where the broker picks one.
POOL = "pool"

# A reply later than this is no help to any frame, and a broker need not keep the request longer: its
# expiry is in whole seconds.
_EXPIRY_SLACK_S = 1

# A ping that took longer than this says no more than that the link is bad.
_PING_TIMEOUT_MS = 3000.0


@dataclass(frozen=True, slots=True)
class OffloadConfig:
    """How a device offloads.

    `qos` is that of tensors: at 0 a lost one costs its bytes, at 1 two more messages. `pool` lets the
    broker pick a gateway while none that has the bundle is heard.
    Units: late_ms, how long after its deadline a reply can still teach something; payload_cap_bytes,
    largest message ever sent.
    """

    broker: BrokerAddress
    device: str
    credentials: Credentials = field(default_factory=Credentials)
    qos: int = 0
    pool: bool = False
    window: Window = field(default_factory=Window)
    late_ms: float = 5000.0
    fresh_ms: float = FRESH_MS
    payload_cap_bytes: int = FRAME_CAP_BYTES
    keepalive_s: int = 15
    backoff_s: tuple[float, float] = (0.5, 30.0)
    quick_acknowledge: bool = True


class MqttTransport:
    """Transport over one MQTT connection of its own, so that tensors never hold up control messages.

    Raises: ConfigError when the device's id could not stand in a topic.
    """

    def __init__(
        self,
        config: OffloadConfig,
        bundle: ServedBundle,
        *,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        self._config = config
        self._bundle = bundle
        self._reply_topic = topics.device_reply(topics.require_id(config.device, key="device"))
        clock = clock if clock is not None else _monotonic_ms
        random = random if random is not None else Random()
        self._dispatch = Dispatch(clock=clock, random=random, fresh_ms=config.fresh_ms)
        self._exchange = Exchange(
            bundle,
            boot_id=secrets.token_bytes(BOOT_ID_BYTES),
            clock=clock,
            window=config.window,
            late_ms=config.late_ms,
        )
        connection = ConnectionConfig(
            address=config.broker,
            client_id=f"{config.device}-d",
            credentials=config.credentials,
            subscriptions=(
                Subscription(self._reply_topic, config.qos),
                Subscription(topics.GATEWAY_STATUS_FILTER),
            ),
            keepalive_s=config.keepalive_s,
            backoff_s=config.backoff_s,
            payload_cap_bytes=config.payload_cap_bytes,
            quick_acknowledge=config.quick_acknowledge,
        )
        events = ConnectionEvents(message=self._on_message, down=self._on_down, tick=self._on_tick)
        self._connection = MqttConnection(connection, events, random=random)

    @property
    def counters(self) -> Counters:
        """What came in so far, for reports."""
        return self._exchange.counters

    @property
    def error(self) -> BrokerError | None:
        """Why there is no connection; None while there is, and before the first attempt ended."""
        return self._connection.error

    @property
    def connection(self) -> MqttConnection:
        """The connection beneath, for checks."""
        return self._connection

    def open(self) -> None:
        """Start connecting; returns at once, also where no broker answers yet."""
        self._connection.open()

    def status(self) -> LinkStatus:
        """How the link stands now; cheap, never blocks.

        It is up when a request could be sent: the broker answers, and a gateway with this bundle is
        there, not busy, and answering.
        """
        up = self._connection.is_up
        able = self._dispatch.able(topics.digest12(self._bundle.digest), self._bundle.stage_count - 1)
        gateways = able.gateways if up else 0
        requests, held_bytes = self._exchange.in_flight()
        return LinkStatus(
            up=up and (gateways > 0 or self._may_use_pool(topics.digest12(self._bundle.digest))),
            gateways=gateways,
            in_flight=requests,
            in_flight_bytes=max(held_bytes, self._connection.backlog_bytes),
            largest_payload_bytes=self._connection.largest_payload_bytes,
            abilities=able.abilities if gateways else frozenset(),
        )

    def submit(self, request: OffloadRequest) -> Future[OffloadReply]:
        """Send a request; never blocks on the network.

        Raises: LinkDown, NoCredit, WireError (too large for one message): nothing was sent.
        """
        if not self._connection.is_up:
            raise LinkDown("not connected to the broker")
        digest12 = topics.digest12(request.bundle_digest)
        needed = abilities_for(request.codec, request.boundary)
        gateway = self._dispatch.choose(
            digest12,
            request.boundary,
            self._bundle.stage_count - 1,
            self._exchange.under_way,
            needed=needed,
        )
        # Nobody has said what the gateways of the pool can unpack.
        if gateway is None and (needed or not self._may_use_pool(digest12)):
            raise LinkDown(f"no gateway takes stage {request.boundary} of bundle {digest12}")
        if self._exchange.waits:
            # Requests past their deadline hold no credit, but their bytes may still wait for a slow link.
            backlog_bytes = self._connection.backlog_bytes
            if backlog_bytes > self._config.window.size_bytes:
                raise NoCredit(in_flight=self._exchange.in_flight()[0], in_flight_bytes=backlog_bytes)
        topic = (
            topics.pool_infer(request.bundle_digest, request.boundary)
            if gateway is None
            else topics.gateway_infer(gateway, request.bundle_digest, request.boundary)
        )
        return self._exchange.submit(
            request,
            gateway=POOL if gateway is None else gateway,
            cap_bytes=self._connection.largest_payload_bytes,
            send=self._sender(topic, request.budget_left_ms),
        )

    def withdraw(self, reply: Future[OffloadReply]) -> int:
        """Take a request back, for no more than a small message at QoS 0; what that took in bytes.

        What went to the pool stays there: the broker alone knows which gateway has it.
        """
        return self._exchange.withdraw(reply, drop=self._connection.drop, send=self._tell)

    def probe(self, payload_bytes: int) -> Future[Pong]:
        """Send a ping of about this size to a gateway. Raises: LinkDown."""
        gateway = self._dispatch.choose(
            topics.digest12(self._bundle.digest),
            self._bundle.stage_count - 1,
            self._bundle.stage_count - 1,
            self._exchange.under_way,
        )
        if gateway is None:
            raise LinkDown("no gateway has this bundle")
        return self._ping(gateway, payload_bytes)

    def close(self) -> None:
        """Fail what is pending with LinkDown and end the connection."""
        self._connection.close()
        self._exchange.fail_all(lambda: LinkDown("closed"))

    def _may_use_pool(self, digest12: str) -> bool:
        return self._config.pool and not self._dispatch.heard(digest12)

    def _ping(self, gateway: str, payload_bytes: int) -> Future[Pong]:
        topic = topics.gateway_infer(gateway, self._bundle.digest, 0)
        try:
            return self._exchange.ping(
                payload_bytes,
                gateway=gateway,
                cap_bytes=self._connection.largest_payload_bytes,
                timeout_ms=_PING_TIMEOUT_MS,
                send=self._sender(topic, _PING_TIMEOUT_MS),
            )
        except (NoCredit, WireError) as error:
            raise LinkDown(str(error)) from error

    def _sender(self, topic: str, budget_ms: float) -> Callable[[bytes, bytes], None]:
        expiry_s = ceil(min(max(budget_ms, 0.0), 1e6) / 1000.0) + _EXPIRY_SLACK_S

        def send(payload: bytes, key: bytes) -> None:
            self._connection.publish(
                topic,
                payload,
                qos=self._config.qos,
                response_topic=self._reply_topic,
                correlation=key,
                content_type=frames.CONTENT_TYPE,
                expiry_s=expiry_s,
            )

        return send

    def _tell(self, asked: Asked, payload: bytes) -> None:
        """Send a cancel after its request. It has no correlation: gateways of before would answer to it."""
        if asked.gateway == POOL:
            raise LinkDown("the broker picked the gateway")
        self._connection.publish(
            topics.gateway_infer(asked.gateway, asked.digest.hex(), asked.boundary),
            payload,
            response_topic=self._reply_topic,
            content_type=frames.CONTENT_TYPE,
            expiry_s=_EXPIRY_SLACK_S,
        )

    def _on_message(self, message: Publication) -> None:
        if message.topic == self._reply_topic:
            self._exchange.accept(message.payload, correlation=message.correlation, judged=self._on_outcome)
            return
        gateway = topics.parse_gateway_status(message.topic)
        if gateway is None:
            return
        try:
            advert = decode_advert(message.payload)
        except WireError as error:
            _log.warning("%s: %s", message.topic, error)
            return
        if self._dispatch.hear(gateway, advert, retained=message.retained):
            self._exchange.fail_all(lambda: LinkDown(f"gateway {gateway} is gone"), gateway=gateway)

    def _on_outcome(self, outcome: Outcome) -> None:
        if outcome.fate is Fate.REFUSED:
            digest12 = topics.digest12(self._bundle.digest)
            self._dispatch.refused(outcome.gateway, digest12, outcome.status, outcome.retry_after_ms)
        elif outcome.fate is Fate.CORRUPT:
            self._dispatch.missed(outcome.gateway)
        else:
            self._dispatch.answered(outcome.gateway, outcome.network_ms)

    def _on_down(self, why: str) -> None:
        self._dispatch.link_lost()
        self._exchange.fail_all(lambda: LinkDown(why))

    def _on_tick(self) -> None:
        for gateway in self._exchange.sweep():
            self._dispatch.missed(gateway)
        if not self._connection.is_up:
            return
        for gateway in self._dispatch.probes_due():
            self._try(gateway)

    def _try(self, gateway: str) -> None:
        """Ping a gateway that may have stopped answering: never a tensor."""
        try:
            self._ping(gateway, 0)
        except OffloadError as error:
            _log.info("gateway %s: %s", gateway, error)
            self._dispatch.missed(gateway)


def _monotonic_ms() -> float:
    return monotonic() * 1000.0
