"""Both ways to use the client library: versions are told apart, and the public way carries as much."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from paho.mqtt import client as paho

from edgeexit.errors import LinkDown, NoCredit, WireError
from edgeexit.transport import mqtt_quick_client
from edgeexit.transport.address import BrokerAddress
from edgeexit.transport.broker import Broker
from edgeexit.transport.mqtt import (
    ConnectionConfig,
    ConnectionEvents,
    MqttConnection,
    Publication,
    Subscription,
)
from edgeexit.transport.mqtt_client import MqttClient
from edgeexit.transport.mqtt_quick_client import QuickClient, lacks, open_client
from edgeexit.transport.protocol import OffloadRequest

if TYPE_CHECKING:
    from tests.transport.conftest import Site

Wait = Callable[[Callable[[], bool]], None]
CONFIG = ConnectionConfig(BrokerAddress("127.0.0.1"), "a")


class Renamed(paho.Client):
    """A version that calls a parameter otherwise."""

    def _sock_recv(self, size: int) -> bytes:
        return b""


class Without(paho.Client):
    """A version that has one method less."""

    _handle_publish = None  # type: ignore[assignment]


class OtherQueues(QuickClient):
    """A version that keeps its packets in something else."""

    def __init__(self, config: ConnectionConfig) -> None:
        super().__init__(config)
        self._in_packet = object()  # type: ignore[assignment]


def test_the_installed_version_is_known() -> None:
    assert lacks(paho.Client) is None
    client = open_client(CONFIG)
    assert isinstance(client, QuickClient)
    assert client.is_known()


@pytest.mark.parametrize(("library", "name"), [(Renamed, "_sock_recv"), (Without, "_handle_publish")])
def test_another_version_is_told(library: type[paho.Client], name: str) -> None:
    assert lacks(library) == name


def test_other_queues_are_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(mqtt_quick_client, "QuickClient", OtherQueues)
    with caplog.at_level(logging.WARNING):
        assert type(open_client(CONFIG)) is MqttClient
    assert "the slower, public way" in caplog.text


@pytest.mark.parametrize(
    "pieces",
    [
        [b"\x40\2\0\1"],
        [b"\x40", b"\2\0", b"\1"],
        [b"\x40\2\0\1\x40\2\0"],
        [b"\x40\4\0\1\x87\0"],
        [b"\x40\x85\1\0\1\x87\x80\1" + b"\x1f\0\x7d" + bytes([120]) * 125],
    ],
    ids=["whole", "in pieces", "with a part of the next", "refused", "refused with a long reason"],
)
def test_an_acknowledgement_makes_room_for_the_next_message(
    pieces: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    with _connected(ConnectionConfig(BrokerAddress("127.0.0.1"), "a", unacknowledged_cap=1)) as (
        client,
        theirs,
    ):
        assert client.send_surely("t", b"x", b"\0", retain=False, at_once=True)
        assert theirs.recv(100) == b"\x32\7\0\1t\0\1\0x"
        assert not client.send_surely("t", b"x", b"\0", retain=False, at_once=True)
        for piece in pieces:
            theirs.sendall(piece)
            client.read_in()
        assert client.send_surely("t", b"x", b"\0", retain=False, at_once=True)
        assert theirs.recv(100) == b"\x32\7\0\1t\0\2\0x"
        assert ("0x87" in caplog.text) == (b"\x87" in pieces[0])


def test_an_answer_takes_the_acknowledgement_along() -> None:
    with _connected(CONFIG) as (client, theirs):
        theirs.sendall(b"\x32\7\0\1q\0\x09\0?")
        client.read_in()
        assert [message.payload for message in client.take_messages()] == [b"?"]
        # Another thread does not know what became of the message.
        with ThreadPoolExecutor(1) as pool:
            pool.submit(client.send, "t", b"x", b"\0", retain=False, at_once=True).result()
        assert theirs.recv(100) == b"\x30\5\0\1t\0x"
        assert client.owes
        client.send("t", b"y", b"\0", retain=False, at_once=True)
        assert theirs.recv(100) == b"\x30\5\0\1t\0y" + b"\x40\2\0\x09"
        assert not client.owes


@pytest.mark.parametrize("at_once", [True, False])
def test_an_acknowledgement_comes_after_what_waits(at_once: bool) -> None:
    payload = bytes(1_000_000)
    with _connected(CONFIG) as (client, theirs):
        theirs.sendall(b"\x32\7\0\1q\0\x09\0?")
        client.read_in()
        assert client.send("t", payload, b"\0", retain=False, at_once=at_once) is not None
        client.acknowledge(at_once=True)
        assert not client.owes
        packets = b"\x30\xc4\x84\x3d\0\1t\0" + payload + b"\x40\2\0\x09"
        got = bytearray()
        while len(got) < len(packets):
            client.loop_write()
            got += theirs.recv(1 << 20)
        assert got == packets
        assert not client.want_write()


@contextlib.contextmanager
def _connected(config: ConnectionConfig) -> Iterator[tuple[QuickClient, socket.socket]]:
    """A client that takes itself for connected, and the other end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        client = QuickClient(config)
        client._sock = client.tcp = ours
        yield client, theirs
        client._sock = None


@pytest.fixture
def unknown_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a version were installed that nobody here has seen."""
    monkeypatch.setattr(mqtt_quick_client, "lacks", lambda _: "_packet_read")
    assert type(open_client(CONFIG)) is MqttClient


@pytest.mark.broker
@pytest.mark.usefixtures("unknown_version")
@pytest.mark.parametrize("qos", [0, 1])
def test_offloads_go_the_public_way(
    broker: Broker, site: Site, ask: Callable[..., OffloadRequest], wait: Wait, qos: int
) -> None:
    transport, gateway = site.pair(broker.address, qos=qos)
    for values in (1, 4_000, 150_000):
        reply = transport.submit(ask(frame=values, values=values)).result(60.0)
        assert reply.output.tolist() == [values, 2.0, values]
    gateway.manner = "silent"
    pending = transport.submit(ask())
    broker.kill()
    assert isinstance(pending.exception(60.0), LinkDown)
    gateway.manner = "honest"
    broker.start()
    wait(lambda: transport.status().up)
    assert transport.submit(ask(frame=7)).result(60.0).output[0] == 7.0


@pytest.mark.broker
@pytest.mark.usefixtures("unknown_version")
def test_threads_share_the_public_way(mosquitto: Broker, wait: Wait) -> None:
    got: list[Publication] = []
    receiver = ConnectionConfig(mosquitto.address, "b", subscriptions=(Subscription("t/+", 1),))
    sender = ConnectionConfig(mosquitto.address, "a", backlog_cap_bytes=1_000_000, unacknowledged_cap=50)
    with (
        MqttConnection(receiver, ConnectionEvents(got.append)) as hearing,
        MqttConnection(sender, ConnectionEvents(lambda message: None)) as saying,
    ):
        assert hearing.wait_up(60.0)
        assert saying.wait_up(60.0)
        with pytest.raises(WireError):
            saying.publish("t/+", b"x")

        def say(thread: int) -> None:
            for number in range(40):
                sent = threading.Event()
                while not sent.is_set():
                    with contextlib.suppress(NoCredit):
                        saying.publish(
                            f"t/{thread}",
                            bytes([number]) * 20_000,
                            qos=number % 2,
                            correlation=b"c",
                            expiry_s=60,
                        )
                        sent.set()
                    sent.wait(0.001)

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(say, range(3)))
        wait(lambda: len(got) == 120)
        for thread in range(3):
            mine = [message for message in got if message.topic == f"t/{thread}"]
            assert sorted(message.payload[0] for message in mine) == list(range(40))
            assert all(message.correlation == b"c" and message.expiry_s for message in mine)


@pytest.mark.usefixtures("unknown_version")
def test_the_public_way_delivers_nothing_over_our_cap() -> None:
    got: list[Publication] = []
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        config = ConnectionConfig(
            BrokerAddress("127.0.0.1", server.getsockname()[1]),
            "a",
            backoff_s=(0.05, 0.2),
            payload_cap_bytes=10_000,
        )
        connection = MqttConnection(config, ConnectionEvents(got.append, tick_s=0.05))
        connection.open()
        client, _ = server.accept()
        with client:
            client.settimeout(60.0)
            large = bytes([0x30, 0xA0, 0x8D, 0x06, 0, 1, 0x74]) + bytes(99_997)
            client.sendall(bytes([0x20, 3, 0, 0, 0]) + large)  # CONNACK, then a PUBLISH of 100 kB
            with contextlib.suppress(ConnectionResetError):
                while client.recv(4096):
                    pass
        connection.close()
    assert not got
