"""The least that speaks MQTT 5 through a broker: what is left of a round trip is the broker's.

python -m benchmarks._bare_mqtt PORT QOS    answers every message at once, and says when it is ready
"""

from __future__ import annotations

import socket
import struct
import sys
from time import perf_counter

from edgeexit.transport.tcp import acknowledge_at_once

ASKED, ANSWERED = b"bare/asked", b"bare/answered"
ANSWER = bytes(512)

_CONNECT, _SUBSCRIBE, _PUBACK, _PUBLISH = 0x10, 0x82, 0x40, 0x30
_KEEP_ALIVE_S = 600
# The largest message of the benchmark, and the packet around it.
_BUFFER_BYTES = 1 << 20


class BareClient:
    """One connection, one subscription, blocking; nothing is checked."""

    def __init__(self, port: int, name: str, topic: bytes, qos: int) -> None:
        self._qos = qos
        self._received = memoryview(bytearray(_BUFFER_BYTES))
        self._filled = 0
        self._sock = socket.create_connection(("127.0.0.1", port))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        clean_start = b"\x02"
        keep_alive = struct.pack(">H", _KEEP_ALIVE_S)
        self._send(
            _CONNECT, _sized(b"MQTT") + b"\x05" + clean_start + keep_alive + b"\0" + _sized(name.encode())
        )
        self._take()
        self._send(_SUBSCRIBE, b"\0\1\0" + _sized(topic) + bytes([qos]))
        self._take()

    def publish(self, topic: bytes, payload: bytes) -> None:
        """Send a message without properties."""
        identifier = b"\0\1" if self._qos else b""
        self._send(_PUBLISH | self._qos << 1, _sized(topic) + identifier + b"\0" + payload)

    def receive(self) -> bytes:
        """Wait for a message; its packet identifier, empty at QoS 0."""
        while True:
            first, body = self._take()
            if first >> 4 == _PUBLISH >> 4:
                after = 2 + int.from_bytes(body[:2], "big")
                return body[after : after + 2] if self._qos else b""

    def acknowledge(self, identifier: bytes) -> None:
        """Acknowledge a message of QoS 1."""
        if identifier:
            self._send(_PUBACK, identifier)

    def exchange_ms(self, payload: bytes) -> float:
        """One round trip to a client that answers."""
        began_s = perf_counter()
        self.publish(ASKED, payload)
        identifier = self.receive()
        took_ms = (perf_counter() - began_s) * 1000.0
        self.acknowledge(identifier)
        return took_ms

    def close(self) -> None:
        """End the connection."""
        self._sock.close()

    def _send(self, first: int, body: bytes) -> None:
        self._sock.sendall(bytes([first]) + _length(len(body)) + body)

    def _take(self) -> tuple[int, bytes]:
        """The next packet: its first byte, and the first 64 bytes of its body."""
        while (ends := self._ends()) is None:
            count = self._sock.recv_into(self._received[self._filled :])
            if count == 0:
                raise EOFError
            # Without it a broker with Nagle's algorithm on waits 40 ms for a delayed acknowledgement.
            acknowledge_at_once(self._sock)
            self._filled += count
        start, end = ends
        first, body = self._received[0], bytes(self._received[start : min(end, start + 64)])
        rest = bytes(self._received[end : self._filled])
        self._received[: len(rest)] = rest
        self._filled = len(rest)
        return first, body

    def _ends(self) -> tuple[int, int] | None:
        """Where the body of the first packet begins and ends; None while it is not there whole."""
        length = 0
        for index in range(1, min(self._filled, 5)):
            byte = self._received[index]
            length |= (byte & 127) << 7 * (index - 1)
            if byte < 128:
                end = index + 1 + length
                return (index + 1, end) if end <= self._filled else None
        return None


def _sized(value: bytes) -> bytes:
    return struct.pack(">H", len(value)) + value


def _length(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def main() -> None:
    """Answer."""
    client = BareClient(int(sys.argv[1]), "bare-answerer", ASKED, int(sys.argv[2]))
    print("ready", flush=True)
    while True:
        identifier = client.receive()
        client.publish(ANSWERED, ANSWER)
        client.acknowledge(identifier)


if __name__ == "__main__":
    main()
