"""The client library as a session uses it, by nothing but its public way.

It is driven by the session's own loop. `QuickClient` does the same faster, by what the library keeps to
itself; this one is for the versions of the library that `QuickClient` does not know.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections import deque
from typing import Protocol

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edgeexit.errors import LinkDown
from edgeexit.transport.mqtt_config import ENVELOPE_BYTES, ConnectionConfig, tls_context
from edgeexit.transport.publication import Publication, require_topic
from edgeexit.transport.tcp import acknowledge_at_once, send_at_once

_log = logging.getLogger(__name__)


class Unsent(Protocol):
    """A message of QoS 0 that the socket has not taken yet."""

    def is_published(self) -> bool:
        """Whether it has by now."""
        ...


class MqttClient(paho.Client):
    """One connection of the library.

    What the broker said is kept in `subscribed`, `reason` (of a failure), `refused` and `packet_cap_bytes`
    (None where it told none).
    """

    any_thread_writes = False
    """Whether threads other than the one that made it may write; else they leave that to it."""

    def __init__(self, config: ConnectionConfig) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=config.client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        self.owner = threading.get_ident()
        self.tcp: socket.socket | None = None
        self.subscribed = False
        self.reason: str | None = None
        self.refused = False
        self.packet_cap_bytes: int | None = None
        self._config = config
        self._largest_bytes = config.payload_cap_bytes + ENVELOPE_BYTES
        self._came: list[Publication] = []
        self._to_acknowledge: deque[int] = deque()
        self.suppress_exceptions = True
        self.enable_logger(_log)
        self.connect_timeout = config.connect_timeout_s
        # With this callback set, publish() only queues: the write happens outside the library's locks.
        self.on_socket_register_write = _leave_to_the_loop
        self.on_socket_open = self._on_tcp_open
        self.on_connect = self._on_connected
        self.on_subscribe = self._on_subscribed
        self.on_disconnect = self._on_disconnected
        self.on_message = self._on_parsed
        self.max_inflight_messages_set(config.unacknowledged_cap)
        self.max_queued_messages_set(config.unacknowledged_cap)
        if config.credentials.username is not None:
            self.username_pw_set(config.credentials.username, config.credentials.password())
        self.tls = tls_context(config)
        if self.tls is not None:
            self.tls_set_context(self.tls)
        if config.will is not None:
            properties = _properties(PacketTypes.WILLMESSAGE)
            if config.will.delay_s:
                properties.WillDelayInterval = config.will.delay_s
            self.will_set(config.will.topic, config.will.payload, qos=1, retain=True, properties=properties)

    def open(self, *, clean_start: bool) -> None:
        """Open the socket and queue CONNECT. Raises: OSError, ValueError."""
        config = self._config
        properties = _properties(PacketTypes.CONNECT)
        if config.session_expiry_s:
            properties.SessionExpiryInterval = config.session_expiry_s
        properties.MaximumPacketSize = self._largest_bytes
        host, port = config.address.host, config.address.port
        self.connect(host, port, config.keepalive_s, clean_start=clean_start, properties=properties)

    def send(
        self, topic: str, payload: bytes, packed: bytes, *, retain: bool, at_once: bool
    ) -> Unsent | None:
        """Queue a message of QoS 0, or write it where that is `at_once` possible; None when all is written.

        Raises: LinkDown, WireError.
        """
        require_topic(topic)
        return accepted(self.publish(topic, payload, 0, retain, _PackedProperties(packed)))

    def send_surely(self, topic: str, payload: bytes, packed: bytes, *, retain: bool, at_once: bool) -> bool:
        """The same at QoS 1; whether not too many are without acknowledgement already.

        Raises: LinkDown, WireError.
        """
        require_topic(topic)
        info = self.publish(topic, payload, 1, retain, _PackedProperties(packed))
        if info.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
            return False
        accepted(info)
        return True

    def drop(self, unsent: Unsent) -> bool:
        """Take a queued message back, while nothing is being written; False where that cannot be done."""
        return False

    def read_in(self) -> None:
        """Take in what came: messages are then there to be taken."""
        self.loop_read()
        # What was received along with a packet is not seen by poll().
        while self.has_more():
            self.loop_read()

    @property
    def owes(self) -> bool:
        """Whether messages were taken that are to be acknowledged."""
        return bool(self._to_acknowledge)

    def has_more(self) -> bool:
        """Whether bytes wait that poll() does not see."""
        sock = self.socket()
        return isinstance(sock, ssl.SSLSocket) and sock.pending() > 0

    def take_messages(self) -> list[Publication]:
        """The messages that came since the last call."""
        messages, self._came = self._came, []
        return messages

    def acknowledge(self, *, at_once: bool) -> None:
        """Queue the acknowledgements of all messages taken at QoS 1, or write them where that is possible."""
        while self._to_acknowledge:
            self.ack(self._to_acknowledge.popleft(), 1)

    def expect_more(self) -> None:
        """Be ready to wait for what comes next."""

    def take_in(self, message: Publication, identifier: int) -> None:
        """Keep a message until it is taken, and its number until it is acknowledged."""
        self._came.append(message)
        if message.qos:
            self._to_acknowledge.append(identifier)

    def _on_tcp_open(self, client: paho.Client, data: object, sock: object) -> None:
        if isinstance(sock, socket.socket):
            self.tcp = sock
            send_at_once(sock)

    def _on_connected(
        self,
        client: paho.Client,
        data: object,
        flags: paho.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self.reason = str(reason)
            self.refused = True
            return
        self.packet_cap_bytes = getattr(properties, "MaximumPacketSize", None)
        if not self._config.subscriptions:
            self.subscribed = True
            return
        self.subscribe(
            [(item.topic_filter, SubscribeOptions(qos=item.qos)) for item in self._config.subscriptions]
        )

    def _on_subscribed(
        self,
        client: paho.Client,
        data: object,
        identifier: int,
        reasons: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        for subscription, reason in zip(self._config.subscriptions, reasons, strict=False):
            if reason.is_failure:
                self.reason = f"subscription to {subscription.topic_filter}: {reason}"
                self.refused = True
                self.disconnect()
                return
        self.subscribed = True

    def _on_disconnected(
        self,
        client: paho.Client,
        data: object,
        flags: paho.DisconnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if self.reason is None and flags.is_disconnect_packet_from_server:
            self.reason = str(reason)

    def _on_parsed(self, client: paho.Client, data: object, message: paho.MQTTMessage) -> None:
        """Take a message that the library parsed itself, and has held whole whatever its size."""
        if len(message.payload) > self._config.payload_cap_bytes:
            _log.warning("dropping the connection: a message of %d bytes", len(message.payload))
            self.disconnect()
            return
        if self._config.quick_acknowledge and self.tcp is not None:
            acknowledge_at_once(self.tcp)
        properties = message.properties
        try:
            topic = message.topic
        except UnicodeDecodeError:
            _log.warning("a topic that is no text was left out")
            return
        self.take_in(
            Publication(
                topic,
                bytes(message.payload),
                message.qos,
                message.retain,
                getattr(properties, "ResponseTopic", None),
                getattr(properties, "CorrelationData", None),
                getattr(properties, "ContentType", None),
                getattr(properties, "MessageExpiryInterval", None),
            ),
            message.mid,
        )


def accepted(info: paho.MQTTMessageInfo) -> paho.MQTTMessageInfo:
    """What became of a message that the library took. Raises: LinkDown when it did not."""
    if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
        raise LinkDown(paho.error_string(info.rc))
    return info


class _PackedProperties(Properties):
    """Properties whose bytes are known already."""

    def __init__(self, packed: bytes) -> None:
        object.__setattr__(self, "_packed", packed)

    def pack(self) -> bytes:
        packed: bytes = object.__getattribute__(self, "_packed")
        return packed

    def __str__(self) -> str:
        return "packed"


def _properties(packet_type: int) -> Properties:
    return Properties(packet_type)  # type: ignore[no-untyped-call]


def _leave_to_the_loop(client: paho.Client, data: object, sock: object) -> None:
    """Nothing to do: whoever queued a packet writes it, or wakes the loop."""
