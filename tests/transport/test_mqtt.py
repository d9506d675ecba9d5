"""The connection: sockets without delays, callbacks that fail, goodbyes, wills, back-pressure."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from edgeexit.errors import ConfigError, LinkDown, NoCredit, WireError
from edgeexit.transport.address import BrokerAddress, Credentials
from edgeexit.transport.broker import Broker
from edgeexit.transport.mqtt import (
    ConnectionConfig,
    ConnectionEvents,
    MqttConnection,
    Publication,
    Subscription,
    Will,
)

pytestmark = pytest.mark.broker

Wait = Callable[[Callable[[], bool]], None]

QUICK = (0.05, 0.2)


class Peer:
    """A connection that keeps what it got, and may answer in its own thread."""

    def __init__(
        self,
        address: BrokerAddress,
        name: str,
        *topic_filters: str,
        qos: int = 1,
        answers: bool = False,
        will: Will | None = None,
        backlog_cap_bytes: int = 4 << 20,
        goodbye_s: float = 1.0,
    ) -> None:
        self.got: list[Publication] = []
        self.ups = 0
        self.downs: list[str] = []
        self._answers = answers
        config = ConnectionConfig(
            address,
            name,
            subscriptions=tuple(Subscription(item, qos) for item in topic_filters),
            will=will,
            backoff_s=QUICK,
            backlog_cap_bytes=backlog_cap_bytes,
            goodbye_s=goodbye_s,
        )
        events = ConnectionEvents(self._take, up=self._up, down=self.downs.append, tick_s=0.05)
        self.connection = MqttConnection(config, events)

    def __enter__(self) -> Peer:
        self.connection.open()
        assert self.connection.wait_up(60.0), self.connection.error
        return self

    def __exit__(self, *exception: object) -> None:
        self.connection.close()

    def _up(self) -> None:
        self.ups += 1

    def _take(self, message: Publication) -> None:
        self.got.append(message)
        if self._answers and message.response_topic is not None:
            self.connection.publish(
                message.response_topic, message.payload[:16], qos=message.qos, correlation=message.correlation
            )


def test_both_ends_of_every_connection_send_at_once(broker: Broker, wait: Wait) -> None:
    with Peer(broker.address, "a") as peer:
        option = peer.connection.socket_option(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert option is not None
        assert option != 0
        broker.restart()
        wait(lambda: peer.connection.connects == 2)
        assert peer.connection.socket_option(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("nodelay", [True, False])
@pytest.mark.parametrize("qos", [0, 1])
def test_request_and_response_with_the_brokers_defaults_too(qos: int, nodelay: bool, wait: Wait) -> None:
    with (
        Broker(kind="mosquitto", nodelay=nodelay) as broker,
        Peer(broker.address, "gateway", "ask", answers=True),
        Peer(broker.address, "device", "reply") as device,
    ):
        for number, size_bytes in enumerate((1, 1_000, 40_000, 150_000, 600_000)):
            payload = bytes([number]) * size_bytes
            device.connection.publish(
                "ask", payload, qos=qos, response_topic="reply", correlation=bytes([number]) * 16
            )
            wait(lambda: len(device.got) > number)  # noqa: B023 (called before the next round)
        assert [message.correlation for message in device.got] == [bytes([n]) * 16 for n in range(5)]


def test_properties_and_payload_arrive_as_sent(broker: Broker, wait: Wait) -> None:
    with Peer(broker.address, "b", "topic/+") as receiver, Peer(broker.address, "a") as sender:
        sender.connection.publish(
            "topic/ä",
            b"\0payload",
            qos=1,
            response_topic="back",
            correlation=b"\1\2",
            content_type="application/json",
            expiry_s=30,
        )
        wait(lambda: bool(receiver.got))
        message = receiver.got[0]
        assert message.expiry_s in (29, 30)
        assert message == Publication(
            "topic/ä", b"\0payload", 1, False, "back", b"\1\2", "application/json", message.expiry_s
        )


def test_a_retained_copy_is_told_from_a_live_message(broker: Broker, wait: Wait) -> None:
    with Peer(broker.address, "a", "state") as sender:
        sender.connection.publish("state", b"1", qos=1, retain=True)
        wait(lambda: bool(sender.got))
        with Peer(broker.address, "b", "state") as later:
            wait(lambda: bool(later.got))
            assert later.got[0].retained
        assert not sender.got[0].retained


def test_messages_from_many_threads_arrive_whole_and_in_order(broker: Broker, wait: Wait) -> None:
    with Peer(broker.address, "b", "t/+", qos=0) as receiver, Peer(broker.address, "a") as sender:

        def send(thread: int) -> None:
            for number in range(100):
                payload = number.to_bytes(2, "big") + bytes([thread]) * (number * 97)
                sender.connection.publish(f"t/{thread}", payload)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(send, range(4)))
        wait(lambda: len(receiver.got) == 400)
        for thread in range(4):
            payloads = [message.payload for message in receiver.got if message.topic == f"t/{thread}"]
            assert [int.from_bytes(payload[:2], "big") for payload in payloads] == list(range(100))
            assert all(set(payload[2:]) <= {thread} for payload in payloads)


def test_an_exception_in_a_callback_is_logged_and_harmless(
    mosquitto: Broker, wait: Wait, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[bytes] = []

    def fail(message: Publication) -> None:
        calls.append(message.payload)
        raise RuntimeError("out of order")

    def fail_always() -> None:
        raise RuntimeError("out of order")

    config = ConnectionConfig(mosquitto.address, "a", subscriptions=(Subscription("t", 1),), backoff_s=QUICK)
    events = ConnectionEvents(
        fail, up=fail_always, down=lambda why: fail_always(), tick=fail_always, tick_s=0.05
    )
    with caplog.at_level(logging.CRITICAL), MqttConnection(config, events) as connection:
        assert connection.wait_up(60.0)
        for number in range(3):
            connection.publish("t", bytes([number]), qos=1)
        wait(lambda: len(calls) == 3)
        mosquitto.restart()
        wait(lambda: connection.connects == 2 and connection.is_up)
        connection.publish("t", b"after", qos=1)
        wait(lambda: b"after" in calls)


def test_down_is_told_once_and_up_again_after_healing(broker: Broker, wait: Wait) -> None:
    with Peer(broker.address, "a", "t") as peer:
        broker.kill()
        wait(lambda: not peer.connection.is_up and peer.connection.error is not None)
        with pytest.raises(LinkDown):
            peer.connection.publish("t", b"x")
        broker.start()
        wait(lambda: peer.ups == 2)
        assert len(peer.downs) == 1
        assert peer.downs[0]
        peer.connection.publish("t", b"x", qos=1)
        wait(lambda: len(peer.got) == 1)
        assert peer.connection.error is None
    assert peer.downs[1:] == ["closed"]


def test_a_goodbye_sends_what_is_queued_and_no_will(broker: Broker, wait: Wait) -> None:
    with Peer(broker.address, "b", "t", "will", qos=1) as watcher:
        with Peer(broker.address, "a", will=Will("will", b"lost"), goodbye_s=60.0) as leaver:
            for number in range(50):
                leaver.connection.publish("t", bytes([number]) * 20_000)
        wait(lambda: len(watcher.got) == 50)
        assert [message.payload[0] for message in watcher.got] == list(range(50))
        with Peer(broker.address, "a") as again:
            again.connection.publish("t", b"end", qos=1)
            wait(lambda: watcher.got[-1].payload == b"end")
        assert all(message.topic == "t" for message in watcher.got)


def _publish_many(connection: MqttConnection, payload: bytes, *, qos: int) -> None:
    for _ in range(200):
        connection.publish("t", payload, qos=qos)


PROGRAM = """
import sys
from edgeexit.transport.address import BrokerAddress
from edgeexit.transport.mqtt import ConnectionConfig, ConnectionEvents, MqttConnection, Will
config = ConnectionConfig(BrokerAddress("127.0.0.1", int(sys.argv[1])), "doomed", will=Will("will", b"lost"))
with MqttConnection(config, ConnectionEvents(lambda message: None)) as connection:
    assert connection.wait_up(60.0)
    print("up", flush=True)
    sys.stdin.read()
"""


@pytest.mark.process
def test_a_killed_program_leaves_its_will(broker: Broker, wait: Wait) -> None:
    with Peer(broker.address, "b", "will") as watcher:
        program = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PROGRAM), str(broker.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert program.stdout is not None
        assert program.stdout.readline() == b"up\n"
        os.kill(program.pid, signal.SIGKILL)
        program.communicate()
        wait(lambda: [message.payload for message in watcher.got] == [b"lost"])


def test_a_stalled_broker_is_back_pressure_and_not_memory(wait: Wait) -> None:
    with Broker(kind="mosquitto") as broker, Peer(broker.address, "a", backlog_cap_bytes=2_000_000) as peer:
        process = broker._process
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        try:
            with pytest.raises(NoCredit) as caught:
                _publish_many(peer.connection, bytes(500_000), qos=0)
            assert 0 < caught.value.in_flight_bytes <= 2_000_000
            assert peer.connection.backlog_bytes > 1_000_000
            with pytest.raises(NoCredit):
                _publish_many(peer.connection, b"x", qos=1)
        finally:
            os.kill(process.pid, signal.SIGCONT)
        wait(lambda: peer.connection.backlog_bytes < 100)
        peer.connection.publish("t", bytes(500_000))
        assert peer.connection.connects == 1


def test_what_a_stalled_broker_took_half_of_arrives_whole(wait: Wait) -> None:
    with (
        Broker(kind="mosquitto") as broker,
        Peer(broker.address, "b", "t/+", qos=0) as receiver,
        Peer(broker.address, "a") as sender,
    ):
        process = broker._process
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        try:
            # The kernel takes a part of the first; two threads and both ways of sending queue behind it.
            with ThreadPoolExecutor(2) as pool:
                for number in range(6):
                    payload = bytes([number]) * 300_000
                    pool.submit(sender.connection.publish, f"t/{number}", payload, qos=number % 2).result()
        finally:
            os.kill(process.pid, signal.SIGCONT)
        wait(lambda: len(receiver.got) == 6)
        assert [message.topic for message in receiver.got] == [f"t/{number}" for number in range(6)]
        assert all(
            message.payload == bytes([number]) * 300_000 for number, message in enumerate(receiver.got)
        )


@pytest.mark.parametrize("qos", [0, 1])
def test_a_message_over_the_brokers_limit_is_refused_before_it_is_sent(qos: int, wait: Wait) -> None:
    with Broker(kind="mosquitto", packet_cap_bytes=10_000) as broker, Peer(broker.address, "a", "t") as peer:
        limit_bytes = peer.connection.largest_payload_bytes
        assert limit_bytes == 10_000 - 1024
        with pytest.raises(WireError):
            peer.connection.publish("t", bytes(limit_bytes + 1), qos=qos)
        peer.connection.publish("t", bytes(limit_bytes), qos=qos)
        wait(lambda: len(peer.got) == 1)
        assert peer.connection.connects == 1


def test_closing_while_no_broker_answers_ends_soon(wait: Wait) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = BrokerAddress("127.0.0.1", silent.getsockname()[1])
        connection = MqttConnection(
            ConnectionConfig(address, "a", connect_timeout_s=0.3, backoff_s=QUICK),
            ConnectionEvents(lambda message: None, tick_s=0.05),
        )
        connection.open()
        wait(lambda: connection.error is not None)
        error = connection.error
        assert error is not None
        assert error.why == "the broker does not answer"
        connection.close()
        wait(lambda: not any(thread.name == "mqtt-a" for thread in threading.enumerate()))


def test_a_peer_that_is_no_broker_is_survived(wait: Wait) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        connection = MqttConnection(
            ConnectionConfig(
                BrokerAddress("127.0.0.1", server.getsockname()[1]),
                "a",
                backoff_s=QUICK,
                connect_timeout_s=1.0,
            ),
            ConnectionEvents(lambda message: None, tick_s=0.05),
        )
        connection.open()
        for answer in (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"\x20\xff\xff\xff\xff\xff",
            b"\x30\x02\x00\x09",
            b"",
        ):
            client, _ = server.accept()
            client.sendall(answer)
            client.close()
        wait(lambda: connection.error is not None)
        assert not connection.is_up
        connection.close()


def test_the_brokers_own_reason_is_told(wait: Wait) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        connection = MqttConnection(
            ConnectionConfig(BrokerAddress("127.0.0.1", server.getsockname()[1]), "a", backoff_s=QUICK),
            ConnectionEvents(lambda message: None, tick_s=0.05),
        )
        connection.open()
        client, _ = server.accept()
        with client:
            # CONNACK, then DISCONNECT with reason 0x8E and a reason string.
            client.sendall(bytes([0x20, 3, 0, 0, 0, 0xE0, 7, 0x8E, 5, 0x1F, 0, 2]) + b"no")
            wait(lambda: connection.error is not None)
        error = connection.error
        assert error is not None
        assert error.why == "Session taken over"
        connection.close()


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(bytes([0x30, 0xFF, 0xFF, 0xFF, 0x7F, 0]), id="the beginning of 256 MB"),
        pytest.param(bytes([0x30, 0xA0, 0x8D, 0x06, 0, 1, 0x74]) + bytes(99_997), id="100 kB in one piece"),
    ],
)
def test_a_packet_over_our_cap_is_not_read(packet: bytes) -> None:
    got: list[Publication] = []
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        connection = MqttConnection(
            ConnectionConfig(
                BrokerAddress("127.0.0.1", server.getsockname()[1]),
                "a",
                backoff_s=QUICK,
                payload_cap_bytes=10_000,
            ),
            ConnectionEvents(got.append, tick_s=0.05),
        )
        connection.open()
        client, _ = server.accept()
        with client:
            client.settimeout(60.0)
            client.sendall(bytes([0x20, 3, 0, 0, 0]) + packet)  # CONNACK, then a PUBLISH
            with contextlib.suppress(ConnectionResetError):
                while client.recv(4096):
                    pass
        connection.close()
    assert not got


def test_what_cannot_be_a_topic_is_refused(mosquitto: Broker) -> None:
    with Peer(mosquitto.address, "a") as peer:
        with pytest.raises(WireError):
            peer.connection.publish("a/+/b", b"x")
        peer.connection.publish("fine", b"x", qos=1)
        assert peer.connection.is_up


def test_missing_certificates_are_told_at_opening(tmp_path_factory: pytest.TempPathFactory) -> None:
    missing = tmp_path_factory.mktemp("tls") / "ca.crt"
    config = ConnectionConfig(
        BrokerAddress("127.0.0.1", 8883, tls=True), "a", credentials=Credentials(ca_file=missing)
    )
    with pytest.raises(ConfigError) as caught:
        MqttConnection(config, ConnectionEvents(lambda message: None)).open()
    assert caught.value.file == str(missing)


def test_a_connection_that_was_never_opened_may_be_closed() -> None:
    config = ConnectionConfig(BrokerAddress("127.0.0.1"), "a")
    connection = MqttConnection(config, ConnectionEvents(lambda message: None))
    connection.close()
    with pytest.raises(LinkDown):
        connection.publish("t", b"x")
    assert connection.backlog_bytes == 0
    assert connection.socket_option(socket.IPPROTO_TCP, socket.TCP_NODELAY) is None
