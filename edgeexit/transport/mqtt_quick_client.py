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
from collections.abc import Sequence
from typing import Literal

from paho.mqtt import client as paho
from paho.mqtt.enums import MQTTErrorCode

from edgeexit.errors import LinkDown, WireError
from edgeexit.transport.mqtt_client import MqttClient, Unsent, accepted
from edgeexit.transport.mqtt_config import ConnectionConfig
from edgeexit.transport.publication import (
    pack_acknowledgement,
    parse_publish,
    publish_head,
    whole_acknowledgement,
    whole_publish,
)
from edgeexit.transport.tcp import acknowledge_at_once

_log = logging.getLogger(__name__)

# Types of packets, in their first bytes.
_PUBLISH, _PUBACK = 0x30, 0x40

# Above it a PUBACK says why a message was not taken.
_REFUSED = 0x80

# One buffer a connection, where the library would ask for one as large as the rest of the packet at
# every read. A boundary of 150 kB fits into it, and is then read in one piece.
_RECEIVE_BYTES = 262_144

# What is replaced or called below, with its parameters; what is written to, with a key that it must have.
_METHODS = {
    "_packet_queue": ("self", "command", "packet", "mid", "qos", "info"),
    "_handle_publish": ("self",),
    "_handle_pubackcomp": ("self", "cmd"),
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
        self._received_some = False
        self._identifier = 0
        self._unacknowledged: set[int] = set()
        self._unacknowledged_cap = config.unacknowledged_cap

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
        head = publish_head(topic, len(payload), packed, retain=retain)
        return self._write_or_queue((head, payload), at_once=at_once)

    def send_surely(self, topic: str, payload: bytes, packed: bytes, *, retain: bool, at_once: bool) -> bool:
        """The same at QoS 1; whether not too many are without acknowledgement already.

        What the library keeps of such a message serves to send it again over another connection; a client
        has but one. Raises: LinkDown, WireError.
        """
        waiting = self._unacknowledged
        if len(waiting) >= self._unacknowledged_cap:
            return False
        identifier = self._identifier % 65_535 + 1
        while identifier in waiting:
            identifier = identifier % 65_535 + 1
        head = publish_head(topic, len(payload), packed, retain=retain, identifier=identifier)
        # The broker's answer may come before the next line.
        waiting.add(identifier)
        self._identifier = identifier
        try:
            self._write_or_queue((head, payload), at_once=at_once)
        except LinkDown:
            waiting.discard(identifier)
            raise
        return True

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

    def read_in(self) -> None:
        """Take in what came: messages are then there to be taken."""
        while True:
            # The library takes a packet apart byte by byte. Those of every exchange need none of that where
            # they have come whole. That it then counts no sign of life costs a ping each keep-alive.
            if self._in_packet["command"] or not self._take_whole():
                self.loop_read()
            if not self.has_more():
                return

    def acknowledge(self, *, at_once: bool) -> None:
        """Queue the acknowledgements of all messages taken at QoS 1, or write them where that is possible."""
        if self._to_acknowledge and self.socket() is not None:
            self._write_or_queue((), at_once=at_once)
            if owed := self._owed():
                self._to_acknowledge.clear()
                self._packet_queue(_PUBACK, owed, 0, 0)

    def expect_more(self) -> None:
        """Have what came acknowledged by the kernel too, unless answers took that along."""
        if self._received_some and self._quick_acknowledge and self.tcp is not None:
            acknowledge_at_once(self.tcp)
        self._received_some = False

    def _owed(self) -> bytes:
        """Acknowledgements to be sent by the thread that takes messages; nothing for others."""
        if not self._to_acknowledge or threading.get_ident() != self.owner:
            return b""
        return b"".join(map(pack_acknowledgement, self._to_acknowledge))

    def _write_or_queue(self, packet: Sequence[bytes], *, at_once: bool) -> paho.MQTTMessageInfo | None:
        """Write a packet past an empty queue, or queue it; None when all is written. Raises: LinkDown."""
        sock = self.tcp if self.socket() is not None else None
        if at_once and sock is not None and not self.want_write():
            return self._write(sock, packet)
        if not packet:
            return None
        info = paho.MQTTMessageInfo(0)
        info.rc = (
            MQTTErrorCode.MQTT_ERR_NO_CONN
            if sock is None
            else self._packet_queue(_PUBLISH, b"".join(packet), 0, 0, info)
        )
        return accepted(info)

    def _write(self, sock: socket.socket, packet: Sequence[bytes]) -> paho.MQTTMessageInfo | None:
        """Send a packet and owed acknowledgements; what the socket does not take comes first in the queue.

        Where the connection is broken that is all of it: the loop's thread then meets the same error.
        """
        owed = self._owed()
        try:
            sent_bytes = sock.sendmsg((*packet, owed) if owed else packet)
        except (OSError, ValueError):  # the last where it is closed meanwhile
            sent_bytes = 0
        packet_bytes = sum(map(len, packet))
        if sent_bytes < packet_bytes:
            return self._queue_first(_PUBLISH, b"".join(packet), sent_bytes)
        if owed:
            self._to_acknowledge.clear()
            if sent_bytes < packet_bytes + len(owed):
                self._queue_first(_PUBACK, owed, sent_bytes - packet_bytes)
        return None

    def _queue_first(self, command: int, packet: bytes, sent_bytes: int) -> paho.MQTTMessageInfo:
        info = paho.MQTTMessageInfo(0)
        self._out_packet.appendleft(
            {
                "command": command,
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

    def _take_whole(self) -> bool:
        """Take a message, or the acknowledgement of one, that has come whole; else leave all to the library.

        So is what is wrong: the library meets the same error, and ends the connection.
        """
        if self._taken == self._filled:
            try:
                self._taken, self._filled = 0, self._receive()
            except OSError:
                return False
        received = self._received[self._taken : self._filled]
        body = whole_publish(received)
        if body is None:
            return self._take_acknowledgement(received)
        # One over the cap is for the library to begin with, and for `_sock_recv` to refuse.
        if body.stop - body.start > self._largest_bytes:
            return False
        try:
            message, identifier = parse_publish(received[0], received[body])
        except WireError:
            return False
        self.take_in(message, identifier)
        self._taken += body.stop
        return True

    def _take_acknowledgement(self, received: memoryview) -> bool:
        acknowledgement = whole_acknowledgement(received)
        if acknowledgement is None:
            return False
        identifier, reason, size_bytes = acknowledgement
        self._acknowledged(identifier, reason)
        self._taken += size_bytes
        return True

    def _acknowledged(self, identifier: int, reason: int) -> None:
        self._unacknowledged.discard(identifier)
        if reason >= _REFUSED:
            _log.warning("the broker refused a message: reason 0x%02x", reason)

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
        self._received_some = True
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
        try:
            message, identifier = parse_publish(self._in_packet["command"], self._in_packet["packet"])
        except WireError as error:
            _log.warning("dropping the connection: %s", error)
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        self.take_in(message, identifier)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _handle_pubackcomp(self, cmd: Literal["PUBACK", "PUBCOMP"]) -> MQTTErrorCode:
        packet = self._in_packet["packet"]
        if len(packet) < 2:
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        self._acknowledged(int.from_bytes(packet[:2], "big"), packet[2] if len(packet) > 2 else 0)
        return MQTTErrorCode.MQTT_ERR_SUCCESS
