"""The other ends of `offload_rtt`, each a process of its own.

    python -m benchmarks._rtt_peers gateway HOST PORT    answers requests over MQTT, at once
    python -m benchmarks._rtt_peers relay                passes bytes between two TCP connections
    python -m benchmarks._rtt_peers answerer PORT        answers requests through the relay, at once

Each prints one line when it is ready, the relay its port.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
import threading

import numpy as np

from edgeexit.transport import frames, topics, wire
from edgeexit.transport.address import BrokerAddress
from edgeexit.transport.adverts import Advert, BundleAdvert, encode_advert
from edgeexit.transport.mqtt import (
    ConnectionConfig,
    ConnectionEvents,
    MqttConnection,
    Publication,
    Subscription,
)
from edgeexit.transport.wire import Kind

GATEWAY = "bench"
DIGEST = "be" * 32
STAGES = 4

# 100 logits in float32 and a header: 512 bytes, as a classifier with 100 classes answers.
OUTPUT = np.linspace(0.0, 1.0, 100, dtype=np.float32)
REPLY_BYTES = 512

LENGTH = struct.Struct("<I")

# What a relay copies at a time; Linux hands out what came, up to this.
_CHUNK_BYTES = 1 << 18


class Gateway:
    """A gateway whose stages take no time: what is left is the transport."""

    def __init__(self, address: BrokerAddress) -> None:
        self._sequence = 0
        config = ConnectionConfig(
            address, GATEWAY, subscriptions=(Subscription(topics.gateway_infer_filter(GATEWAY), 1),)
        )
        events = ConnectionEvents(self._answer, up=self._advertise, tick=self._advertise, tick_s=1.0)
        self.connection = MqttConnection(config, events)

    def _advertise(self) -> None:
        self._sequence += 1
        advert = Advert(
            state="ready",
            boot_id="0" * 16,
            sequence=self._sequence,
            bundles=(BundleAdvert(digest12=topics.digest12(DIGEST), stages=tuple(range(STAGES))),),
        )
        if self.connection.is_up:
            self.connection.publish(topics.gateway_status(GATEWAY), encode_advert(advert), retain=True)

    def _answer(self, message: Publication) -> None:
        topic = message.response_topic
        asked = wire.decode(message.payload).header
        if topic is None or not topics.is_reply(topic):
            return
        if asked.kind is Kind.PING:
            reply = frames.pong_to(asked)
        else:
            reply = frames.reply_to(asked, OUTPUT, exit_index=STAGES - 1, queue_ms=0.0, compute_ms=0.0)
        self.connection.publish(topic, reply, qos=message.qos, correlation=message.correlation)


def read_message(sock: socket.socket) -> bytearray:
    """One message with its length before it. Raises: EOFError at the end of the connection."""
    (size,) = LENGTH.unpack(_read_exactly(sock, LENGTH.size))
    return _read_exactly(sock, size)


def send_message(sock: socket.socket, payload: bytes) -> None:
    """One message with its length before it, in one piece."""
    sock.sendall(LENGTH.pack(len(payload)) + payload)


def connect(port: int) -> socket.socket:
    """A connection to the relay, without Nagle's algorithm."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _read_exactly(sock: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = sock.recv_into(view)
        if count == 0:
            raise EOFError
        view = view[count:]
    return data


def _gateway(host: str, port: int) -> None:
    with Gateway(BrokerAddress(host, port)).connection as connection:
        if not connection.wait_up(10.0):
            raise SystemExit(str(connection.error))
        print("ready", flush=True)
        threading.Event().wait()


def _relay() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        ends = [server.accept()[0] for _ in range(2)]
    other = {ends[0].fileno(): (ends[0], ends[1]), ends[1].fileno(): (ends[1], ends[0])}
    poller = select.poll()
    for end in ends:
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poller.register(end, select.POLLIN)
    while True:
        for fileno, _ in poller.poll():
            source, sink = other[fileno]
            data = source.recv(_CHUNK_BYTES)
            if not data:
                return
            sink.sendall(data)


def _answerer(port: int) -> None:
    reply = bytes(REPLY_BYTES)
    with connect(port) as sock:
        print("ready", flush=True)
        while True:
            read_message(sock)
            send_message(sock, reply)


def main() -> None:
    """Be the peer that the first argument names."""
    role, *rest = sys.argv[1:]
    if role == "gateway":
        _gateway(rest[0], int(rest[1]))
    elif role == "relay":
        _relay()
    else:
        _answerer(int(rest[0]))


if __name__ == "__main__":
    main()
