"""A gateway that misbehaves on the wire: `python crooked_gateway.py BROKER ID BUNDLE`.

Each line on standard input names how it answers from then on: honest, late, duplicated, foreign,
corrupted, silent. The word comes back on standard output once it is obeyed. It ends with its standard input.
"""

from __future__ import annotations

import itertools
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgeexit.bundle import Bundle, open_bundle
from edgeexit.gateway.adverts import Advertiser
from edgeexit.gateway.service import Load
from edgeexit.runner.selection import open_verified
from edgeexit.transport import frames, topics, wire
from edgeexit.transport.address import parse_broker
from edgeexit.transport.adverts import BundleAdvert, encode_advert, lost
from edgeexit.transport.codecs import decode_tensors
from edgeexit.transport.mqtt import ConnectionConfig, ConnectionEvents, MqttConnection, Subscription, Will
from edgeexit.transport.publication import Publication
from edgeexit.transport.wire import Frame, Header, Kind, WireTensor

# Late means: after the deadline that the request came with, by this much.
LATE_BY_S = 0.05


class CrookedGateway:
    """Computes right answers and sends them wrong."""

    def __init__(self, bundle: Bundle, name: str, broker: str) -> None:
        self._bundle = bundle
        self._runner, _ = open_verified(bundle)
        self._manner = "honest"
        self._random = random.Random(7)
        self._advertiser = Advertiser()
        self._status = topics.gateway_status(name)
        self._lock = threading.Lock()
        self.connection = MqttConnection(
            ConnectionConfig(
                address=parse_broker(broker),
                client_id=name,
                will=Will(self._status, encode_advert(lost(self._advertiser.boot_id))),
                subscriptions=(
                    Subscription(topics.gateway_infer_filter(name)),
                    Subscription(topics.POOL_FILTER),
                ),
            ),
            ConnectionEvents(message=self._take_in, up=self.advertise),
        )

    def behave(self, manner: str) -> None:
        """Answer in this manner from now on."""
        self._manner = manner

    def advertise(self) -> None:
        """Promise everything."""
        stages = tuple(range(self._bundle.manifest.stage_count))
        told = BundleAdvert(digest12=topics.digest12(self._bundle.digest), stages=stages)
        advert = self._advertiser.advert("ready", Load(queue_depth=0, free_slots=4, bundles=(told,)))
        if self.connection.is_up:
            self.connection.publish(self._status, advert, retain=True)

    def _take_in(self, message: Publication) -> None:
        threading.Thread(target=self._answer, args=(message,), daemon=True).start()

    def _answer(self, message: Publication) -> None:
        asked = wire.decode(message.payload)
        if message.response_topic is None or message.correlation is None:
            return
        send = self._sender(message.response_topic, message.correlation)
        if asked.header.kind is Kind.PING:
            send(frames.pong_to(asked.header))
            return
        right = self._right_answer(asked)
        manner = self._manner
        if manner == "honest":
            send(right)
        elif manner == "late":
            time.sleep((asked.header.budget_left_ms or 0.0) / 1000.0 + LATE_BY_S)
            send(right)
        elif manner == "duplicated":
            for _ in range(3):
                send(right)
        elif manner == "foreign":
            self._send_foreign(asked, message.response_topic)
        elif manner == "corrupted":
            self._send_corrupted(asked, right, send)

    def _sender(self, topic: str, correlation: bytes) -> Callable[[bytes], None]:
        def send(data: bytes) -> None:
            if self.connection.is_up:
                self.connection.publish(
                    topic, data, correlation=correlation, content_type=frames.CONTENT_TYPE, expiry_s=5
                )

        return send

    def _right_answer(self, asked: Frame) -> bytes:
        header = asked.header
        boundary = self._bundle.manifest.boundaries[header.stage_in]
        tensors = decode_tensors(asked.tensors, boundary.tensors)
        with self._lock:
            for stage in range(header.stage_in, self._runner.stage_count):
                given = self._runner.run(stage, tensors)
                tensors = dict(given.boundary)
        last = self._runner.stage_count - 1
        return frames.reply_to(header, given.output, exit_index=last, queue_ms=0.0, compute_ms=0.1)

    def _send_foreign(self, asked: Frame, topic: str) -> None:
        """Answers to what was never asked: other ids, another bundle, a number from before the start."""
        header = asked.header
        output = np.array([9.0, -9.0, -9.0], np.float32)
        for request_id in (bytes(16), self._random.randbytes(16), header.request_id[:8] + bytes(8)):
            other = Header(kind=Kind.REQUEST, request_id=request_id, bundle_digest=header.bundle_digest)
            self._sender(topic, request_id)(
                frames.reply_to(other, output, exit_index=2, queue_ms=0.0, compute_ms=0.0)
            )
        wrong_bundle = Header(
            kind=Kind.REQUEST, request_id=header.request_id, bundle_digest=bytes(16), stage_in=header.stage_in
        )
        self._sender(topic, header.request_id)(
            frames.reply_to(wrong_bundle, output, exit_index=2, queue_ms=0.0, compute_ms=0.0)
        )

    def _send_corrupted(self, asked: Frame, right: bytes, send: Callable[[bytes], None]) -> None:
        """Flipped bits, cut ends, noise, and well-formed frames that say nonsense."""
        header = asked.header
        for _ in range(4):
            flipped = bytearray(right)
            flipped[self._random.randrange(20)] ^= 1 << self._random.randrange(8)
            send(bytes(flipped))
            send(right[: self._random.randrange(len(right))])
            send(self._random.randbytes(200))
        for output, exit_index in (
            (np.array([np.nan, 0.0, 0.0], np.float32), 2),
            (np.zeros(1000, np.float32), 2),
            (np.zeros(3, np.float32), 200),
        ):
            send(frames.reply_to(header, output, exit_index=exit_index, queue_ms=0.0, compute_ms=0.0))
        reply = Header(
            kind=Kind.REPLY, request_id=header.request_id, bundle_digest=header.bundle_digest, stage_out=2
        )
        send(wire.encode(reply, [WireTensor.of("other", np.zeros(3, np.float32))]))
        send(wire.encode(reply, []))


def main() -> None:
    """Advertise once a second and take orders until standard input ends."""
    broker, name, path = sys.argv[1:]
    gateway = CrookedGateway(open_bundle(Path(path)), name, broker)
    ended = threading.Event()

    def advertise() -> None:
        for _ in itertools.count():
            if ended.wait(1.0):
                return
            gateway.advertise()

    with gateway.connection:
        threading.Thread(target=advertise, daemon=True).start()
        for line in sys.stdin:
            gateway.behave(line.strip())
            sys.stdout.write(line)
            sys.stdout.flush()
        ended.set()


if __name__ == "__main__":
    main()
