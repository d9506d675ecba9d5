"""What offloading costs over bare TCP: whole round trips through a broker and through a relay.

    python -m benchmarks.offload_rtt [--rounds N]

Each round sends one tensor through mosquitto with the device's transport (choice of a
gateway, encoding, credit, MQTT 5, checks of the reply) and the same number of bytes through a minimal
TCP relay, in turns; 512 bytes come back. Two hops each way in both, every end a process of its own on
this machine. Once with the broker as we configure it and once with its own defaults (Nagle's algorithm
on, no memory kept), at QoS 0 and 1. Targets: worst_p50_over_floor_ms ≤ 0.5 (up to 150 kB),
worst_p99_ms ≤ 10: no 40 ms step anywhere.

The rows take turns, a sixth of their rounds at a time, each setting with a broker of its own: a bad minute of
the machine falls on all of them, and not on the one that would be the worst then. The largest messages come
after all others: what a broker keeps of their memory makes it quicker with smaller ones.

Beside both, the least that speaks MQTT goes through the same broker: `broker_share_ms` is what it takes
over the relay in the worst row. That much no client can save; below 0 mosquitto is quicker than the relay.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from threading import Event
from time import monotonic, perf_counter, sleep

import numpy as np

from benchmarks._bare_mqtt import ANSWERED, BareClient
from benchmarks._rtt_peers import DIGEST, STAGES, connect, read_message, send_message
from benchmarks.results import publish
from edgeexit.transport.broker import Broker
from edgeexit.transport.exchange import ServedBundle
from edgeexit.transport.offload import MqttTransport, OffloadConfig
from edgeexit.transport.protocol import OffloadReply, OffloadRequest

SIZES_BYTES = (1_000, 16_000, 40_000, 150_000, 600_000)

# Above it the client library's copies of the payload weigh more than the way it is sent.
COMPARED_UP_TO_BYTES = 150_000

# Each of a row's is some 0.1 s: shorter than most bad moods of a machine, long beside its warming up.
TURNS = 6

# The first exchanges of a turn grow socket buffers and fill caches.
WARM_UP_ROUNDS = 10

# Nothing is lost on loopback: whoever waits this long waits for ever.
BUDGET_MS = 20_000.0


@dataclass(frozen=True, slots=True)
class Row:
    """One size, QoS and broker setting.

    Units: over_floor_ms and broker_share_ms, differences of the medians: ours and the bare client's to the
    relay's.
    """

    broker_nodelay: bool
    qos: int
    payload_bytes: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    floor_p50_ms: float
    floor_p99_ms: float
    over_floor_ms: float
    broker_share_ms: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Result:
    """Units: worst_p50_over_floor_ms over the rows up to 150 kB, worst_p99_ms over all rows.

    `broker_share_ms` is that of the row with worst_p50_over_floor_ms.
    """

    worst_p50_over_floor_ms: float
    broker_share_ms: float
    worst_p99_ms: float
    broker: str
    rows: tuple[Row, ...]


@dataclass(slots=True)
class Samples:
    """Round trips of one size. Units: milliseconds."""

    ours: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)


@contextmanager
def peer(*arguments: str, module: str = "_rtt_peers") -> Iterator[str]:
    """A process of another end, and the line with which it says that it is ready."""
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline().strip()
            if not line:
                raise SystemExit(f"{arguments[0]} ended at once")
            yield line
        finally:
            process.terminate()


class Relay:
    """Bare TCP through one process to another."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def exchange_ms(self, payload: bytes) -> float:
        """One round trip."""
        began_s = perf_counter()
        send_message(self._sock, payload)
        read_message(self._sock)
        return (perf_counter() - began_s) * 1000.0


class Offload:
    """The device's transport, as the engine uses it: a reply ends where its future calls back."""

    def __init__(self, transport: MqttTransport) -> None:
        self._transport = transport
        self._frame = 0
        self._landed = Event()
        self._landed_s = 0.0

    def exchange_ms(self, payload: bytes) -> float:
        """One round trip. Raises: OffloadError."""
        self._frame += 1
        tensor = np.frombuffer(payload, np.uint8)
        request = OffloadRequest(self._frame, DIGEST, 1, "raw", {"hidden": tensor}, BUDGET_MS)
        self._landed.clear()
        began_s = perf_counter()
        future = self._transport.submit(request)
        future.add_done_callback(self._land)
        self._landed.wait()
        future.result()
        return (self._landed_s - began_s) * 1000.0

    def _land(self, done: Future[OffloadReply]) -> None:
        self._landed_s = perf_counter()
        self._landed.set()

    def await_gateway(self) -> None:
        """Wait for the gateway's first advert. Raises: SystemExit."""
        until_s = monotonic() + 10.0
        while not self._transport.status().up:
            if monotonic() > until_s:
                raise SystemExit(f"no gateway: {self._transport.error}")
            sleep(0.01)


@dataclass(frozen=True, slots=True)
class Setting:
    """Both ways through a broker of one setting, and what they took by the size of the payload in bytes."""

    nodelay: bool
    qos: int
    offload: Offload
    bare: BareClient
    samples: dict[int, Samples] = field(default_factory=lambda: {size: Samples() for size in SIZES_BYTES})


@contextmanager
def prepared(*, nodelay: bool, qos: int) -> Iterator[Setting]:
    """One QoS and one broker setting, every end of it ready."""
    with ExitStack() as stack:
        address = stack.enter_context(Broker(kind="mosquitto", nodelay=nodelay)).address
        stack.enter_context(peer("gateway", address.host, str(address.port)))
        config = OffloadConfig(address, "bench-device", qos=qos)
        transport = MqttTransport(config, ServedBundle(DIGEST, STAGES))
        stack.callback(transport.close)
        transport.open()
        offload = Offload(transport)
        offload.await_gateway()
        stack.enter_context(peer(str(address.port), str(qos), module="_bare_mqtt"))
        bare = BareClient(address.port, "bare-asker", ANSWERED, qos)
        stack.callback(bare.close)
        yield Setting(nodelay, qos, offload, bare)


def measure(settings: Sequence[Setting], relay: Relay, rounds: int) -> list[Row]:
    """The rows of these settings."""
    largest = [size_bytes for size_bytes in SIZES_BYTES if size_bytes > COMPARED_UP_TO_BYTES]
    for sizes_bytes in ([size_bytes for size_bytes in SIZES_BYTES if size_bytes not in largest], largest):
        for turn in range(TURNS):
            begun, ended = rounds * turn // TURNS, rounds * (turn + 1) // TURNS
            for setting in settings:
                for size_bytes in sizes_bytes:
                    _alternate(setting, relay, size_bytes, setting.samples[size_bytes], ended - begun)
    return [
        _row(setting, size_bytes, samples)
        for setting in settings
        for size_bytes, samples in setting.samples.items()
    ]


def _alternate(setting: Setting, relay: Relay, size_bytes: int, samples: Samples, rounds: int) -> None:
    """More round trips of one size, in turns; a camera's frames are of one size too."""
    payload = bytes(size_bytes)
    turns = [
        (samples.ours, setting.offload.exchange_ms),
        (samples.floor, relay.exchange_ms),
        (samples.bare, setting.bare.exchange_ms),
    ]
    for number in range(WARM_UP_ROUNDS + rounds):
        # Each follows each of the others equally often.
        for kept, exchange_ms in turns if number % 2 else reversed(turns):
            took_ms = exchange_ms(payload)
            if number >= WARM_UP_ROUNDS:
                kept.append(took_ms)


def _row(setting: Setting, size_bytes: int, samples: Samples) -> Row:
    nodelay, qos = setting.nodelay, setting.qos
    p50_ms, floor_p50_ms = median(samples.ours), median(samples.floor)
    row = Row(
        broker_nodelay=nodelay,
        qos=qos,
        payload_bytes=size_bytes,
        p50_ms=round(p50_ms, 3),
        p95_ms=round(float(np.quantile(samples.ours, 0.95)), 3),
        p99_ms=round(float(np.quantile(samples.ours, 0.99)), 3),
        floor_p50_ms=round(floor_p50_ms, 3),
        floor_p99_ms=round(float(np.quantile(samples.floor, 0.99)), 3),
        over_floor_ms=round(p50_ms - floor_p50_ms, 3),
        broker_share_ms=round(median(samples.bare) - floor_p50_ms, 3),
        rounds=len(samples.ours),
    )
    settings = "nodelay " if nodelay else "defaults"
    print(
        f"broker {settings}  QoS {qos}  {size_bytes // 1000:>3} kB  p50 {row.p50_ms:.3f} ms "
        f"(floor {row.floor_p50_ms:.3f}, broker {row.broker_share_ms:+.3f})  "
        f"p99 {row.p99_ms:.2f} ms (floor {row.floor_p99_ms:.2f})",
        flush=True,
    )
    return row


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300, help="round trips a size, QoS and setting")
    rounds = max(1, parser.parse_args().rounds)
    with ExitStack() as stack:
        port = int(stack.enter_context(peer("relay")))
        stack.enter_context(peer("answerer", str(port)))
        relay = Relay(stack.enter_context(connect(port)))
        settings = [
            stack.enter_context(prepared(nodelay=nodelay, qos=qos))
            for nodelay in (True, False)
            for qos in (0, 1)
        ]
        rows = measure(settings, relay, rounds)
    worst = max(
        (row for row in rows if row.payload_bytes <= COMPARED_UP_TO_BYTES), key=lambda row: row.over_floor_ms
    )
    publish(
        "offload_rtt",
        Result(
            worst_p50_over_floor_ms=worst.over_floor_ms,
            broker_share_ms=worst.broker_share_ms,
            worst_p99_ms=max(row.p99_ms for row in rows),
            broker="mosquitto",
            rows=tuple(rows),
        ),
    )


if __name__ == "__main__":
    main()
