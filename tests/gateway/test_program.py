"""The gateway as a process behind a real broker, seen from the wire."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgeexit.bundle import Bundle
from edgeexit.errors import ConfigError
from edgeexit.gateway.config import GatewayConfig
from edgeexit.gateway.program import run_gateway
from edgeexit.transport import frames, topics, wire
from edgeexit.transport.adverts import Advert, decode_advert
from edgeexit.transport.broker import Broker, BrokerKind
from edgeexit.transport.mqtt import ConnectionConfig, ConnectionEvents, MqttConnection, Subscription
from edgeexit.transport.publication import Publication
from edgeexit.transport.status import Status
from edgeexit.transport.wire import Frame, Kind, WireTensor

if TYPE_CHECKING:
    from tests.gateway.conftest import CopyBundle

pytestmark = [pytest.mark.broker, pytest.mark.process, pytest.mark.litert]

PATIENCE_S = 60.0
GATEWAY = "gw-1"
MAIN = """
import sys
from pathlib import Path
from edgeexit.gateway.config import read_config
from edgeexit.gateway.program import run_gateway
sys.exit(run_gateway(read_config(Path(sys.argv[1]), {})))
"""


@pytest.fixture(params=["mosquitto", "iotcore"])
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    kind: BrokerKind = request.param
    with Broker(kind=kind) as running:
        yield running


@dataclass
class Asker:
    """A device's end of the wire: asks in frames, and sees every reply and every advert."""

    connection: MqttConnection
    messages: queue.Queue[Publication]
    adverts: list[tuple[Advert, bool]] = field(default_factory=list)
    serial: int = 0

    def next_message(self) -> Publication:
        return self.messages.get(timeout=PATIENCE_S)

    def advert(self, wanted: Callable[[Advert], bool]) -> Advert:
        """The next advert, published from now on or retained, that is wanted."""
        end_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < end_s:
            message = self.next_message()
            if topics.parse_gateway_status(message.topic) == GATEWAY and message.payload:
                advert = decode_advert(message.payload)
                if wanted(advert):
                    return advert
        raise AssertionError("no such advert")

    def ask(self, bundle: Bundle, topic: str, *, response_topic: str = "", **changed: object) -> bytes:
        """Send a request; its id."""
        self.serial += 1
        request_id = self.serial.to_bytes(16, "big")
        boundary = int(topic.rsplit("/", 1)[1])
        specs = bundle.manifest.boundaries[min(boundary, 2)].tensors
        budget_left_ms = changed.get("budget_left_ms", 60_000.0)
        assert isinstance(budget_left_ms, float)
        data = frames.request(
            request_id,
            bundle_digest=bundle.digest,
            boundary=boundary,
            last_stage=255,
            frame=self.serial,
            budget_left_ms=budget_left_ms,
            tensors=[WireTensor.of(spec.name, np.zeros(spec.shape, spec.dtype)) for spec in specs],
        )
        self.publish(topic, data, request_id, response_topic=response_topic)
        return request_id

    def publish(self, topic: str, data: bytes, request_id: bytes, *, response_topic: str = "") -> None:
        self.connection.publish(
            topic,
            data,
            response_topic=response_topic or topics.device_reply("porch"),
            correlation=request_id,
            content_type=frames.CONTENT_TYPE,
            expiry_s=60,
        )

    def reply(self) -> tuple[Frame, Publication]:
        end_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < end_s:
            message = self.next_message()
            if not topics.is_reply(message.topic):
                continue
            frame = wire.decode(message.payload)
            if frame.header.kind is Kind.REPLY:
                return frame, message
        raise AssertionError("no reply")


@pytest.fixture
def asker(broker: Broker) -> Iterator[Asker]:
    messages: queue.Queue[Publication] = queue.Queue()
    config = ConnectionConfig(
        address=broker.address,
        client_id="porch",
        subscriptions=(
            Subscription(topics.device_reply("porch")),
            Subscription(topics.GATEWAY_STATUS_FILTER, 1),
        ),
        payload_cap_bytes=2 * wire.FRAME_CAP_BYTES - 4096,
    )
    with MqttConnection(config, ConnectionEvents(message=messages.put)) as connection:
        assert connection.wait_up(PATIENCE_S)
        yield Asker(connection, messages)


@dataclass(frozen=True, slots=True)
class Footprint:
    """Threads, file descriptors, resident memory."""

    threads: int
    files: int
    rss_kib: int

    def fits(self, before: Footprint) -> bool:
        """Whether there are no more threads and files than before."""
        return self.threads <= before.threads and self.files <= before.files


@dataclass
class Gateway:
    """A gateway process with a store of its own."""

    process: subprocess.Popen[bytes]
    store: Path
    log_file: Path

    def footprint(self) -> Footprint:
        """What the process holds now."""
        root = Path("/proc") / str(self.process.pid)
        status = dict(
            line.split(":", 1) for line in (root / "status").read_text(encoding="ascii").splitlines()
        )
        return Footprint(
            threads=int(status["Threads"]),
            files=len(list((root / "fd").iterdir())),
            rss_kib=int(status["VmRSS"].split()[0]),
        )

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)


@pytest.fixture
def start_gateway(tmp_path: Path, tiny_bundle: Bundle, broker: Broker) -> Iterator[Callable[[], Gateway]]:
    started: list[Gateway] = []

    def start() -> Gateway:
        store = tmp_path / "store"
        if not store.exists():
            shutil.copytree(tiny_bundle.path, store / "tiny")
        config, log_file = tmp_path / "gateway.toml", tmp_path / "gateway.log"
        config.write_text(
            f'[gateway]\nid = "{GATEWAY}"\nbroker = "{broker.address}"\nstore = "{store}"\n'
            f'concurrency = 1\nlog_file = "{log_file}"\n',
            encoding="utf-8",
        )
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen([sys.executable, "-c", MAIN, str(config)], env=environment)
        gateway = Gateway(process, store, log_file)
        started.append(gateway)
        return gateway

    yield start
    for gateway in started:
        if gateway.process.poll() is None:
            gateway.process.kill()
        gateway.process.wait(PATIENCE_S)


def eventually(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def ready(advert: Advert) -> bool:
    return advert.state == "ready"


def test_directed_and_pool_requests_are_answered_and_refused_in_words(
    asker: Asker, start_gateway: Callable[[], Gateway], tiny_bundle: Bundle
) -> None:
    gateway = start_gateway()
    advert = asker.advert(ready)
    assert [bundle.digest12 for bundle in advert.bundles] == [tiny_bundle.short_digest]
    assert advert.free_slots == 1

    directed = topics.gateway_infer(GATEWAY, tiny_bundle.digest, 0)
    request_id = asker.ask(tiny_bundle, directed)
    frame, message = asker.reply()
    assert message.correlation == frame.header.request_id == request_id
    assert (frame.header.status, frame.header.stage_out) == (Status.OK, 2)
    assert frames.output_of(frame).shape == (3,)

    request_id = asker.ask(tiny_bundle, topics.pool_infer(tiny_bundle.digest, 1))
    frame, message = asker.reply()
    assert message.correlation == frame.header.request_id == request_id
    assert (frame.header.status, frame.header.stage_in, frame.header.stage_out) == (Status.OK, 1, 2)

    unknown = "0" * 64
    asker.ask(tiny_bundle, topics.gateway_infer(GATEWAY, unknown, 0))
    assert asker.reply()[0].header.status is Status.DIGEST_MISMATCH
    asker.ask(tiny_bundle, topics.gateway_infer(GATEWAY, tiny_bundle.digest, 9))
    assert asker.reply()[0].header.status is Status.UNKNOWN_BUNDLE
    asker.publish(directed, b"no frame of ours, but a message", b"m" * 16)
    frame, message = asker.reply()
    assert (frame.header.status, message.correlation) == (Status.MALFORMED, b"m" * 16)
    asker.publish(directed, bytes(wire.FRAME_CAP_BYTES + 16), b"l" * 16)
    assert asker.reply()[0].header.status is Status.TOO_LARGE

    asker.ask(tiny_bundle, directed, budget_left_ms=0.0)
    assert asker.reply()[0].header.status is Status.TOO_LATE

    # Silence: no way back, and a way back that would be a hole. The next answer is the next request's.
    asker.ask(tiny_bundle, directed, response_topic="edgeexit/v1/g/gw-2/status")
    asker.ask(tiny_bundle, directed, response_topic="homes/other")
    last = asker.ask(tiny_bundle, directed)
    frame, _ = asker.reply()
    assert (frame.header.request_id, frame.header.status) == (last, Status.OK)
    assert gateway.stop() == 0


def test_advert_is_retained_and_an_orderly_end_is_told_before_the_goodbye(
    broker: Broker, asker: Asker, start_gateway: Callable[[], Gateway]
) -> None:
    gateway = start_gateway()
    first = asker.advert(ready)
    second = asker.advert(lambda advert: ready(advert) and advert.sequence > first.sequence)
    assert second.boot_id == first.boot_id
    assert gateway.stop() == 0
    states = [asker.advert(lambda advert: not ready(advert)).state]
    while states[-1] != "disconnected":
        states.append(asker.advert(lambda _: True).state)
    assert list(dict.fromkeys(states)) == ["draining", "disconnected"]

    retained: queue.Queue[Publication] = queue.Queue()
    late = ConnectionConfig(
        address=broker.address,
        client_id="late",
        subscriptions=(Subscription(topics.GATEWAY_STATUS_FILTER),),
    )
    with MqttConnection(late, ConnectionEvents(message=retained.put)):
        message = retained.get(timeout=PATIENCE_S)
    assert message.retained
    assert decode_advert(message.payload).state == "disconnected"


def test_killed_gateway_is_told_lost_and_its_successor_is_another_life(
    asker: Asker, start_gateway: Callable[[], Gateway]
) -> None:
    gateway = start_gateway()
    first = asker.advert(ready)
    gateway.process.kill()
    lost = asker.advert(lambda advert: advert.state == "lost")
    assert lost.boot_id == first.boot_id
    start_gateway()
    again = asker.advert(ready)
    assert again.boot_id != first.boot_id


def test_new_bundle_is_served_without_a_restart(
    asker: Asker, start_gateway: Callable[[], Gateway], copy_bundle: CopyBundle, tiny_bundle: Bundle
) -> None:
    gateway = start_gateway()
    asker.advert(ready)
    (gateway.store / "broken").mkdir()
    (gateway.store / "broken" / "manifest.json").write_text("{}", encoding="utf-8")
    new = copy_bundle(gateway.store / "new", 7)
    asker.advert(lambda advert: len(advert.bundles) == 2)
    asker.ask(new, topics.gateway_infer(GATEWAY, new.digest, 0))
    assert asker.reply()[0].header.status is Status.OK
    shutil.rmtree(gateway.store / "tiny")
    asker.advert(lambda advert: [bundle.digest12 for bundle in advert.bundles] == [new.short_digest])
    asker.ask(tiny_bundle, topics.gateway_infer(GATEWAY, tiny_bundle.digest, 0))
    assert asker.reply()[0].header.status is Status.UNKNOWN_BUNDLE
    assert gateway.stop() == 0
    assert "bundle_rejected" in gateway.log_file.read_text(encoding="utf-8")


def test_broker_that_comes_late_or_again_is_found(
    broker: Broker, asker: Asker, start_gateway: Callable[[], Gateway], tiny_bundle: Bundle
) -> None:
    broker.kill()
    gateway = start_gateway()
    eventually(lambda: gateway.log_file.exists() and "ready" in gateway.log_file.read_text(encoding="utf-8"))
    # Who mistyped the broker's name is told why nothing comes, once.
    eventually(lambda: "broker_unreachable" in gateway.log_file.read_text(encoding="utf-8"))
    broker.start()
    assert asker.connection.wait_up(PATIENCE_S)
    asker.advert(ready)
    before = gateway.footprint()
    broker.kill()
    eventually(lambda: not asker.connection.is_up)
    while not asker.messages.empty():  # nothing that was said before this counts
        asker.messages.get()
    broker.start()
    asker.advert(ready)
    # It may be looking through its store just now.
    eventually(lambda: gateway.footprint().fits(before))
    assert asker.connection.wait_up(PATIENCE_S)
    asker.ask(tiny_bundle, topics.gateway_infer(GATEWAY, tiny_bundle.digest, 0))
    assert asker.reply()[0].header.status is Status.OK
    assert gateway.stop() == 0


@pytest.mark.parametrize("broker", ["mosquitto"], indirect=True)
def test_thousands_of_requests_leave_nothing_behind(
    asker: Asker, start_gateway: Callable[[], Gateway], tiny_bundle: Bundle
) -> None:
    gateway = start_gateway()
    asker.advert(ready)
    directed = topics.gateway_infer(GATEWAY, tiny_bundle.digest, 0)
    unknown = topics.gateway_infer(GATEWAY, "0" * 64, 0)
    footprints = []
    # The first round fills caches and lists that have an end.
    for _ in range(2):
        for number in range(1500):
            if number % 3:
                asker.ask(tiny_bundle, directed)
            else:
                asker.ask(tiny_bundle, unknown)
            asker.reply()
        footprints.append(gateway.footprint())
    first, second = footprints
    eventually(lambda: gateway.footprint().fits(first))
    # 1,500 requests that left but 3 KiB each behind would be 4.4 MiB; what is remembered of each for a few
    # seconds, its id, is a tenth of that.
    assert second.rss_kib - first.rss_kib < 4096


def test_gateway_without_a_store_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        run_gateway(GatewayConfig(store=tmp_path / "absent", id=GATEWAY))
    assert caught.value.key == "store"
