"""One MQTT session over paho-mqtt, from CONNECT to its end; the one file that knows the library.

The library's own thread would write what other threads publish, which costs a hand-over of 0.2 ms each
way. Here whoever publishes writes to the socket itself, and the thread that made the session reads, and
writes what the socket would not take at once.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections import deque

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edgeexit.errors import BrokerError, LinkDown, NoCredit, WireError
from edgeexit.transport.mqtt_config import ENVELOPE_BYTES, ConnectionConfig, tls_context
from edgeexit.transport.publication import (
    Publication,
    pack_publish,
    parse_publish,
    require_topic,
    whole_publish,
)
from edgeexit.transport.tcp import acknowledge_at_once, send_at_once, unacknowledged_bytes

_log = logging.getLogger(__name__)

# Type of a PUBLISH in the first byte of a packet.
_PUBLISH = 0x30

# One buffer a connection, where the library would ask for one as large as the rest of the packet at
# every read. A boundary of 150 kB fits into it, and is then read in one piece.
_RECEIVE_BYTES = 262_144


class MqttSession:
    """One TCP connection to the broker; the next one begins with nothing of this one.

    Made, read and ended by one thread; `enqueue` and `flush` are for any.
    """

    def __init__(self, config: ConnectionConfig, *, clean_start: bool) -> None:
        self._config = config
        self._clean_start = clean_start
        self._client = _Client(config)
        self._client.on_socket_open = self._on_socket_open
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_disconnect = self._on_disconnect
        self._writing = threading.Lock()
        self._unsent: deque[tuple[paho.MQTTMessageInfo, int]] = deque()
        self._socket: socket.socket | None = None
        self._fileno = -1
        self._reason: str | None = None
        self._refused = False
        self._subscribed = False
        self._packet_cap_bytes: int | None = None

    @property
    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._fileno

    @property
    def is_open(self) -> bool:
        """Whether there is a socket."""
        return self._client.socket() is not None

    @property
    def is_ready(self) -> bool:
        """Whether the broker has acknowledged the connection and all subscriptions."""
        return self._subscribed and self.is_open

    @property
    def wants_write(self) -> bool:
        """Whether packets wait for the socket."""
        return self._client.want_write()

    @property
    def largest_payload_bytes(self) -> int:
        """Our cap, or less where the broker announced less."""
        cap_bytes = self._config.payload_cap_bytes
        if self._packet_cap_bytes is None:
            return cap_bytes
        return max(0, min(cap_bytes, self._packet_cap_bytes - ENVELOPE_BYTES))

    @property
    def backlog_bytes(self) -> int:
        """What waits here and in the kernel; callers take turns."""
        kernel_bytes = 0 if self._socket is None else unacknowledged_bytes(self._socket)
        return self._queued_bytes() + kernel_bytes

    def connect(self) -> None:
        """Open the socket and queue CONNECT. Raises: BrokerError."""
        config = self._config
        properties = _properties(PacketTypes.CONNECT)
        if config.session_expiry_s:
            properties.SessionExpiryInterval = config.session_expiry_s
        properties.MaximumPacketSize = config.payload_cap_bytes + ENVELOPE_BYTES
        address = config.address
        try:
            self._client.connect(
                address.host,
                address.port,
                config.keepalive_s,
                clean_start=self._clean_start,
                properties=properties,
            )
        except (OSError, ValueError) as error:
            raise self.failure(str(error) or type(error).__name__) from error
        sock = self._client.socket()
        if sock is None:
            raise self.failure("the connection was closed at once")
        self._fileno = sock.fileno()

    def enqueue(self, topic: str, payload: bytes, qos: int, retain: bool, packed: bytes) -> None:
        """Send a PUBLISH with these packed properties, or queue it; callers take turns, and flush after it.

        Raises: LinkDown, NoCredit, WireError: nothing was sent or queued.
        """
        waiting_bytes = self._queued_bytes()
        if waiting_bytes and waiting_bytes + len(payload) > self._config.backlog_cap_bytes:
            raise NoCredit(in_flight=len(self._unsent), in_flight_bytes=waiting_bytes)
        if qos == 0:
            info = self._send(pack_publish(topic, payload, packed, retain=retain))
            if info is None:
                return
        else:
            require_topic(topic)
            info = self._client.publish(topic, payload, qos, retain, _PackedProperties(packed))
        if info.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
            raise NoCredit(in_flight=self._config.unacknowledged_cap, in_flight_bytes=waiting_bytes)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise LinkDown(paho.error_string(info.rc))
        if qos == 0:
            self._unsent.append((info, len(payload)))

    def _send(self, packet: bytes) -> paho.MQTTMessageInfo | None:
        """Write a PUBLISH of QoS 0 past an empty queue, or queue it; None when all of it is written."""
        client = self._client
        if self._config.address.tls or not self._writing.acquire(blocking=False):
            return client.queue(packet)
        try:
            # What another thread queues from here on comes after this packet.
            return client.queue(packet) if client.want_write() else client.write(packet)
        finally:
            self._writing.release()

    def flush(self) -> bool:
        """Write what the socket takes now; whether nothing is left. Never waits."""
        if self._config.address.tls and threading.get_ident() != self._client.owner:
            # One TLS object must not be read and written by two threads at a time.
            return False
        if self._client.want_write() and self._writing.acquire(blocking=False):
            try:
                self._client.loop_write()
            finally:
                self._writing.release()
        return not self._client.want_write()

    def read(self) -> list[Publication]:
        """Take what came; the messages in it."""
        client = self._client
        client.loop_read()
        # What was received along with a packet is not seen by poll().
        while client.has_more():
            client.loop_read()
        return client.take_messages()

    def acknowledge(self) -> None:
        """Queue the acknowledgements of what was read, once it is delivered: answers go out before them."""
        self._client.acknowledge()

    def keep_alive(self) -> None:
        """Ping the broker, or close the socket, when it was silent for long."""
        self._client.loop_misc()

    def say_goodbye(self) -> None:
        """Queue DISCONNECT: the broker forgets the will, and the socket closes once it is written."""
        self._client.disconnect()

    def end(self) -> None:
        """Close the socket."""
        # A publishing thread may be inside send(): the descriptor is not closed under its hands.
        with self._writing:
            sock = self._client.socket()
            if sock is not None:
                sock.close()

    def failure(self, why: str) -> BrokerError:
        """What to raise: the broker's own reason where it gave one, else `why`."""
        address = self._config.address
        fix = "start a broker there, or give its address" if self._reason is None else None
        if self._refused:
            fix = "check user name, password and the broker's access rules"
        return BrokerError(self._reason or why, host=address.host, port=address.port, fix=fix)

    def socket_option(self, level: int, option: int) -> int | None:
        """An option of the socket; None without one."""
        try:
            return None if self._socket is None else self._socket.getsockopt(level, option)
        except OSError:
            return None

    def _queued_bytes(self) -> int:
        while self._unsent and self._unsent[0][0].is_published():
            self._unsent.popleft()
        return sum(size_bytes for _, size_bytes in self._unsent)

    def _on_socket_open(self, client: paho.Client, data: object, sock: object) -> None:
        if isinstance(sock, socket.socket):
            self._socket = sock
            send_at_once(sock)

    def _on_connect(
        self,
        client: paho.Client,
        data: object,
        flags: paho.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._reason = str(reason)
            self._refused = True
            return
        self._packet_cap_bytes = getattr(properties, "MaximumPacketSize", None)
        if not self._config.subscriptions:
            self._subscribed = True
            return
        client.subscribe(
            [(item.topic_filter, SubscribeOptions(qos=item.qos)) for item in self._config.subscriptions]
        )

    def _on_subscribe(
        self,
        client: paho.Client,
        data: object,
        identifier: int,
        reasons: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        for subscription, reason in zip(self._config.subscriptions, reasons, strict=False):
            if reason.is_failure:
                self._reason = f"subscription to {subscription.topic_filter}: {reason}"
                self._refused = True
                client.disconnect()
                return
        self._subscribed = True

    def _on_disconnect(
        self,
        client: paho.Client,
        data: object,
        flags: paho.DisconnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if self._reason is None and flags.is_disconnect_packet_from_server:
            self._reason = str(reason)


class _Client(paho.Client):
    """The library's client, driven by our loop.

    It may be written from any thread, but it is read and closed only by the one that made it: an error
    met while writing elsewhere is left for that thread to find.
    """

    def __init__(self, config: ConnectionConfig) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=config.client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        self.owner = threading.get_ident()
        self._quick_acknowledge = config.quick_acknowledge
        self._packet_cap_bytes = config.payload_cap_bytes + ENVELOPE_BYTES
        self._messages: list[Publication] = []
        self._taken_on: deque[int] = deque()
        self._received = memoryview(bytearray(_RECEIVE_BYTES))
        self._taken = self._filled = 0
        self.suppress_exceptions = True
        self.enable_logger(_log)
        self.connect_timeout = config.connect_timeout_s
        # With this callback set, publish() only queues: the write happens outside the library's locks.
        self.on_socket_register_write = _leave_to_the_loop
        self.on_message = self._on_unparsed
        self.max_inflight_messages_set(config.unacknowledged_cap)
        self.max_queued_messages_set(config.unacknowledged_cap)
        if config.credentials.username is not None:
            self.username_pw_set(config.credentials.username, config.credentials.password())
        self._tls = tls_context(config)
        if self._tls is not None:
            self.tls_set_context(self._tls)
        if config.will is not None:
            properties = _properties(PacketTypes.WILLMESSAGE)
            if config.will.delay_s:
                properties.WillDelayInterval = config.will.delay_s
            self.will_set(config.will.topic, config.will.payload, qos=1, retain=True, properties=properties)

    def queue(self, packet: bytes) -> paho.MQTTMessageInfo:
        """Queue a whole PUBLISH of QoS 0."""
        info = paho.MQTTMessageInfo(0)
        info.rc = (
            MQTTErrorCode.MQTT_ERR_NO_CONN
            if self.socket() is None
            else self._packet_queue(_PUBLISH, packet, 0, 0, info)
        )
        return info

    def write(self, packet: bytes) -> paho.MQTTMessageInfo | None:
        """Send a whole PUBLISH of QoS 0; what the socket does not take comes first in the queue.

        Where the connection is broken that is all of it: the loop's thread then meets the same error.
        """
        if self.socket() is None:
            return self.queue(packet)
        try:
            sent_bytes = super()._sock_send(packet)
        except (OSError, AttributeError, ValueError):  # the last two where it is closed meanwhile
            sent_bytes = 0
        if sent_bytes == len(packet):
            return None
        info = paho.MQTTMessageInfo(0)
        self._out_packet.appendleft(
            {
                "command": _PUBLISH,
                "mid": 0,
                "qos": 0,
                "pos": sent_bytes,
                "to_process": len(packet) - sent_bytes,
                "packet": memoryview(packet),  # type: ignore[typeddict-item]
                "info": info,
            }
        )
        return info

    def _packet_queue(
        self,
        command: int,
        packet: bytes | bytearray,
        mid: int,
        qos: int,
        info: paho.MQTTMessageInfo | None = None,
    ) -> MQTTErrorCode:
        # The library sends packet[position:], which copies what is left, at every attempt; the slice of
        # a view copies nothing.
        return super()._packet_queue(command, memoryview(packet), mid, qos, info)  # type: ignore[arg-type]

    def has_more(self) -> bool:
        """Whether bytes wait that were received from the socket already."""
        if self._taken < self._filled:
            return self.socket() is not None
        sock = self.socket()
        return isinstance(sock, ssl.SSLSocket) and sock.pending() > 0

    def take_messages(self) -> list[Publication]:
        """The messages parsed since the last call."""
        messages, self._messages = self._messages, []
        return messages

    def _packet_read(self) -> MQTTErrorCode:
        # The library takes a packet apart byte by byte. A PUBLISH that has come whole needs none of that.
        # That it then counts no sign of life from the broker costs a ping each keep-alive.
        if self._in_packet["command"] == 0:
            if self._taken == self._filled:
                try:
                    self._taken, self._filled = 0, self._receive()
                except BlockingIOError:
                    return MQTTErrorCode.MQTT_ERR_AGAIN
                except OSError as error:
                    _log.info("receiving failed: %s", error)
                    return MQTTErrorCode.MQTT_ERR_CONN_LOST
                if self._filled == 0:
                    return MQTTErrorCode.MQTT_ERR_CONN_LOST
            received = self._received[self._taken : self._filled]
            body = whole_publish(received)
            # One over the cap is for the library to begin with, and for `_sock_recv` to refuse.
            if body is not None and body.stop - body.start <= self._packet_cap_bytes:
                self._taken += body.stop
                return self._take(received[0], received[body])
        return super()._packet_read()

    def _sock_recv(self, bufsize: int) -> bytes:
        # The library asks for the whole rest of a packet before any of it has come.
        if bufsize > self._packet_cap_bytes:
            raise ConnectionAbortedError(f"a packet of {bufsize} bytes")
        # It reads a packet's first bytes one by one: from here, not from the kernel.
        if self._taken == self._filled:
            self._taken, self._filled = 0, self._receive()
        start = self._taken
        self._taken = min(start + bufsize, self._filled)
        # The library appends it to the packet at once, so that a view does.
        return self._received[start : self._taken]  # type: ignore[return-value]

    def _receive(self) -> int:
        sock = self.socket()
        if not isinstance(sock, socket.socket):
            raise ConnectionAbortedError("the socket is closed")
        try:
            count = sock.recv_into(self._received)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            raise BlockingIOError from error
        if self._quick_acknowledge:
            acknowledge_at_once(sock)
        return count

    def _sock_send(self, buf: bytes | bytearray) -> int:
        try:
            return super()._sock_send(buf)
        except OSError as error:
            if threading.get_ident() == self.owner or isinstance(error, BlockingIOError):
                raise
            raise BlockingIOError from error

    def _ssl_wrap_socket(self, tcp_sock: socket.socket) -> ssl.SSLSocket:
        """As the library does it, but a failed handshake leaves no open socket behind."""
        if self._tls is None:
            return super()._ssl_wrap_socket(tcp_sock)
        wrapped = self._tls.wrap_socket(tcp_sock, server_hostname=self.host, do_handshake_on_connect=False)
        try:
            wrapped.settimeout(self.connect_timeout)
            wrapped.do_handshake()
        except OSError:
            wrapped.close()
            raise
        return wrapped

    def _handle_publish(self) -> MQTTErrorCode:
        return self._take(self._in_packet["command"], self._in_packet["packet"])

    def _take(self, first_byte: int, packet: bytearray | memoryview) -> MQTTErrorCode:
        try:
            message, identifier = parse_publish(first_byte, packet)
        except WireError as error:
            _log.warning("dropping the connection: %s", error)
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        self._messages.append(message)
        if message.qos:
            self._taken_on.append(identifier)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def acknowledge(self) -> None:
        """Queue the acknowledgements of all messages taken at QoS 1."""
        while self._taken_on:
            self._send_puback(self._taken_on.popleft())

    def _on_unparsed(self, client: paho.Client, data: object, message: paho.MQTTMessage) -> None:
        """Take a message that the library parsed itself: a version of it without `_handle_publish`."""
        properties = message.properties
        self._messages.append(
            Publication(
                message.topic,
                bytes(message.payload),
                message.qos,
                message.retain,
                getattr(properties, "ResponseTopic", None),
                getattr(properties, "CorrelationData", None),
                getattr(properties, "ContentType", None),
                getattr(properties, "MessageExpiryInterval", None),
            )
        )


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
