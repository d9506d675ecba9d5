"""The client library by what it keeps to itself: no copy, no parser and no queue where none is needed.

The one file that touches the library's private names. `open_client` looks whether the installed version has
them all, with the parameters that are known here, and goes the public way where it has not.
"""

from __future__ import annotations

import inspect
import logging
import socket
import ssl
import threading

from paho.mqtt import client as paho
from paho.mqtt.enums import MQTTErrorCode

from edgeexit.errors import WireError
from edgeexit.transport.mqtt_client import MqttClient, Unsent, accepted
from edgeexit.transport.mqtt_config import ConnectionConfig
from edgeexit.transport.publication import pack_publish, parse_publish, whole_publish
from edgeexit.transport.tcp import acknowledge_at_once

_log = logging.getLogger(__name__)

# Type of a PUBLISH in the first byte of a packet.
_PUBLISH = 0x30

# One buffer a connection, where the library would ask for one as large as the rest of the packet at
# every read. A boundary of 150 kB fits into it, and is then read in one piece.
_RECEIVE_BYTES = 262_144

# What is replaced or called below, with its parameters; what is written to, with a key that it must have.
_METHODS = {
    "_packet_queue": ("self", "command", "packet", "mid", "qos", "info"),
    "_packet_read": ("self",),
    "_handle_publish": ("self",),
    "_sock_recv": ("self", "bufsize"),
    "_sock_send": ("self", "buf"),
    "_ssl_wrap_socket": ("self", "tcp_sock"),
}
_PACKET_KEYS = {"command", "packet"}


def open_client(config: ConnectionConfig) -> MqttClient:
    """The quickest client that the installed library allows."""
    lacking = lacks(paho.Client)
    if lacking is None:
        client = QuickClient(config)
        if client.is_known():
            return client
        lacking = "its queues"
    _log.warning(
        "this paho-mqtt has not the %s that is known here: messages go the slower, public way", lacking
    )
    return MqttClient(config)


def lacks(library: type) -> str | None:
    """First private method that a version of the library lacks or has otherwise; None for a known one."""
    for name, parameters in _METHODS.items():
        method = getattr(library, name, None)
        if not inspect.isfunction(method) or tuple(inspect.signature(method).parameters) != parameters:
            return name
    return None


class QuickClient(MqttClient):
    """The library's client, which any thread may write to.

    It is read and closed only by the thread that made it: an error met while writing elsewhere is left for
    that thread to find.
    """

    any_thread_writes = True

    def __init__(self, config: ConnectionConfig) -> None:
        super().__init__(config)
        self._quick_acknowledge = config.quick_acknowledge
        self._received = memoryview(bytearray(_RECEIVE_BYTES))
        self._taken = self._filled = 0

    def is_known(self) -> bool:
        """Whether its queues are what is written to below."""
        queue, packet = getattr(self, "_out_packet", None), getattr(self, "_in_packet", None)
        return hasattr(queue, "appendleft") and isinstance(packet, dict) and packet.keys() >= _PACKET_KEYS

    def send(
        self, topic: str, payload: bytes, packed: bytes, *, retain: bool, at_once: bool
    ) -> Unsent | None:
        """Write a message of QoS 0 past an empty queue, or queue it; None when all of it is written.

        Raises: LinkDown, WireError.
        """
        packet = pack_publish(topic, payload, packed, retain=retain)
        return self._write(packet) if at_once and not self.want_write() else self._queue(packet)

    def drop(self, unsent: Unsent) -> bool:
        """Take a queued message back, while nothing is being written; False where some of it has left."""
        for packet in tuple(self._out_packet):
            if packet["info"] is unsent:
                if packet["pos"]:
                    return False
                self._out_packet.remove(packet)
                return True
        return False

    def has_more(self) -> bool:
        """Whether bytes wait that were received from the socket already."""
        if self._taken < self._filled:
            return self.socket() is not None
        return super().has_more()

    def _queue(self, packet: bytes) -> paho.MQTTMessageInfo:
        info = paho.MQTTMessageInfo(0)
        info.rc = (
            MQTTErrorCode.MQTT_ERR_NO_CONN
            if self.socket() is None
            else self._packet_queue(_PUBLISH, packet, 0, 0, info)
        )
        return accepted(info)

    def _write(self, packet: bytes) -> paho.MQTTMessageInfo | None:
        """Send a whole packet; what the socket does not take comes first in the queue.

        Where the connection is broken that is all of it: the loop's thread then meets the same error.
        """
        if self.socket() is None:
            return self._queue(packet)
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
            if body is not None and body.stop - body.start <= self._largest_bytes:
                self._taken += body.stop
                return self._take(received[0], received[body])
        return super()._packet_read()

    def _sock_recv(self, bufsize: int) -> bytes:
        # The library asks for the whole rest of a packet before any of it has come.
        if bufsize > self._largest_bytes:
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
        if self.tls is None:
            return super()._ssl_wrap_socket(tcp_sock)
        wrapped = self.tls.wrap_socket(tcp_sock, server_hostname=self.host, do_handshake_on_connect=False)
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
        self.take_in(message, identifier)
        return MQTTErrorCode.MQTT_ERR_SUCCESS
