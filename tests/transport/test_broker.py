"""Brokers as child processes, and the broker configuration that is shipped."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeexit.errors import BrokerError, ConfigError, MissingProgram
from edgeexit.transport import broker as broker_module
from edgeexit.transport import topics
from edgeexit.transport.address import BrokerAddress, Credentials
from edgeexit.transport.broker import Broker, BrokerKind
from edgeexit.transport.mqtt import (
    ConnectionConfig,
    ConnectionEvents,
    MqttConnection,
    Publication,
    Subscription,
)

Wait = Callable[[Callable[[], bool]], None]

SHIPPED = Path(__file__).parents[2] / "devices" / "broker"


def _answers(address: BrokerAddress) -> bool:
    connection = MqttConnection(
        ConnectionConfig(address, "probe"), ConnectionEvents(message=lambda message: None)
    )
    with connection:
        return connection.wait_up(60.0)


@pytest.mark.broker
def test_a_broker_lives_as_long_as_its_context(broker: Broker) -> None:
    assert _answers(broker.address)
    broker.stop()
    assert not broker.is_running
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", broker.port), timeout=60.0)


@pytest.mark.broker
def test_a_killed_broker_comes_back_on_its_port(broker: Broker) -> None:
    port = broker.port
    broker.restart()
    assert broker.port == port
    assert _answers(broker.address)


@pytest.mark.broker
@pytest.mark.parametrize("kind", ["mosquitto", "iotcore"])
def test_a_taken_port_is_one_clear_error(kind: BrokerKind) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        # Bound and not listening: nobody can connect, and the broker cannot bind.
        broker = Broker(kind=kind, port=taken.getsockname()[1])
        with pytest.raises(BrokerError) as caught:
            broker.start()
        assert caught.value.port == taken.getsockname()[1]
        assert not broker.is_running
        broker.stop()


@pytest.mark.broker
def test_a_configured_broker_keeps_the_memory_of_messages_as_the_shipped_unit_says() -> None:
    lines = (SHIPPED / "mosquitto-memory.conf").read_text(encoding="utf-8").splitlines()
    shipped = dict(line.split("=", 2)[1:] for line in lines if line.startswith("Environment="))
    assert shipped == broker_module.KEPT_MEMORY
    with Broker(kind="mosquitto") as configured, Broker(kind="mosquitto", nodelay=False) as plain:
        assert shipped.items() <= _environment(configured).items()
        assert not shipped.keys() & _environment(plain).keys()


def _environment(broker: Broker) -> dict[str, str]:
    """What the broker's process was started with."""
    process = broker._process
    assert process is not None
    entries = Path(f"/proc/{process.pid}/environ").read_bytes().decode().split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def test_a_broker_without_passwords_stays_on_this_machine() -> None:
    with pytest.raises(ConfigError) as caught:
        Broker(host="0.0.0.0").start()
    assert caught.value.fix is not None


def test_without_any_broker_the_error_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "_mosquitto", lambda: None)
    assert broker_module.installed_kind() == "iotcore"
    monkeypatch.setattr(broker_module, "find_spec", lambda name: None)
    with pytest.raises(MissingProgram) as caught:
        Broker().start()
    assert caught.value.fix == "sudo apt-get install mosquitto"


class ShippedBroker:
    """mosquitto with the shipped configuration, its paths and ports moved to a folder of the test."""

    def __init__(self, folder: Path, hold_port: Callable[[], int]) -> None:
        self.folder = folder
        self.tls = BrokerAddress("127.0.0.1", hold_port(), tls=True)
        self.local = BrokerAddress("127.0.0.1", hold_port())
        config = (SHIPPED / "mosquitto.conf").read_text(encoding="utf-8")
        for old, new in (
            ("/etc/mosquitto/edgeexit", str(folder)),
            ("/var/lib/mosquitto/", f"{folder}/"),
            ("listener 8883", f"listener {self.tls.port} 127.0.0.1"),
            ("listener 1883", f"listener {self.local.port}"),
            ("log_dest syslog", "log_dest stderr"),
        ):
            assert old in config
            config = config.replace(old, new)
        # Started by root, mosquitto would become a user who cannot read the test's folder.
        config += "user root\n"
        (folder / "mosquitto.conf").write_text(config, encoding="utf-8")
        shutil.copyfile(SHIPPED / "acl", folder / "acl")
        _make_certificates(folder)
        for name in ("porch-1", "porch-2", "gw-1", "ops"):
            create = [] if (folder / "passwords").exists() else ["-c"]
            _run("mosquitto_passwd", "-b", *create, str(folder / "passwords"), name, f"secret of {name}")
            (folder / f"{name}.password").write_text(f"secret of {name}\n", encoding="utf-8")
        (folder / "acl").chmod(0o600)
        self._process = subprocess.Popen(
            [_program("mosquitto"), "-c", str(folder / "mosquitto.conf")], stderr=subprocess.PIPE
        )

    def credentials(self, name: str, *, tls: bool = False) -> Credentials:
        return Credentials(name, self.folder / f"{name}.password", self.folder / "ca.crt" if tls else None)

    def await_ready(self) -> None:
        until_s = time.monotonic() + 60.0
        while not (_listens(self.tls) and _listens(self.local)):
            if self._process.poll() is not None or time.monotonic() > until_s:
                self.stop()
                pytest.fail("mosquitto does not start with the shipped configuration")
            time.sleep(0.02)

    def stop(self) -> None:
        self._process.terminate()
        self._process.communicate(timeout=60.0)


@pytest.fixture(scope="module")
def shipped(
    tmp_path_factory: pytest.TempPathFactory, hold_port: Callable[[], int]
) -> Iterator[ShippedBroker]:
    running = ShippedBroker(tmp_path_factory.mktemp("shipped"), hold_port)
    running.await_ready()
    yield running
    running.stop()


class Inbox:
    """A user's connection, and what was delivered to it: topic and who wrote."""

    def __init__(self, shipped: ShippedBroker, user: str, topic_filter: str) -> None:
        self.delivered: list[tuple[str, str]] = []
        self.came = threading.Condition()
        config = ConnectionConfig(
            shipped.local,
            f"{user}-inbox",
            credentials=shipped.credentials(user),
            subscriptions=(Subscription(topic_filter, 1),),
        )
        self.connection = MqttConnection(config, ConnectionEvents(self._take))

    def _take(self, message: Publication) -> None:
        with self.came:
            self.delivered.append((message.topic, message.payload.decode()))
            self.came.notify_all()

    def await_message(self, topic: str, writer: str) -> None:
        with self.came:
            assert self.came.wait_for(lambda: (topic, writer) in self.delivered, timeout=60.0)


PERMISSIONS = [
    # Who writes, to which topic, who may read it there, and who may not write it.
    ("porch-1", topics.device_status("porch-1"), "ops", "porch-2"),
    ("porch-1", topics.device_result("porch-1"), "ops", "gw-1"),
    ("porch-1", topics.gateway_infer("gw-1", "a" * 12, 2), "gw-1", None),
    ("porch-1", topics.pool_infer("a" * 12, 2), "gw-1", None),
    ("gw-1", topics.gateway_status("gw-1"), "porch-1", "porch-2"),
    ("gw-1", topics.device_reply("porch-1"), "porch-1", "porch-2"),
    ("ops", topics.device_budget("porch-1"), "porch-1", "porch-2"),
    ("ops", topics.device_desired("porch-1"), "porch-1", "gw-1"),
    ("ops", topics.device_command("porch-1", "restart"), "porch-1", "porch-2"),
    ("porch-1", topics.operator_reply("ops"), "ops", None),
]


@pytest.mark.broker
@pytest.mark.parametrize(("writer", "topic", "reader", "stranger"), PERMISSIONS)
def test_the_shipped_rules_deliver_what_they_should_and_nothing_else(
    shipped: ShippedBroker, writer: str, topic: str, reader: str, stranger: str | None
) -> None:
    inbox = Inbox(shipped, reader, topic)
    with inbox.connection:
        assert inbox.connection.wait_up(60.0), inbox.connection.error
        if stranger is not None:
            _publish_as(shipped, stranger, topic)
        _publish_as(shipped, writer, topic)
        inbox.await_message(topic, writer)
        assert inbox.delivered == [(topic, writer)]


@pytest.mark.broker
def test_a_device_cannot_read_the_tensors_of_others(shipped: ShippedBroker) -> None:
    inbox = Inbox(shipped, "porch-2", f"{topics.PREFIX}/#")
    with inbox.connection:
        assert inbox.connection.wait_up(60.0)
        _publish_as(shipped, "porch-1", topics.gateway_infer("gw-1", "a" * 12, 2))
        _publish_as(shipped, "gw-1", topics.device_reply("porch-1"))
        _publish_as(shipped, "gw-1", topics.gateway_status("gw-1"))
        inbox.await_message(topics.gateway_status("gw-1"), "gw-1")
        assert inbox.delivered == [(topics.gateway_status("gw-1"), "gw-1")]


@pytest.mark.broker
def test_tls_with_a_password_connects_and_without_the_authority_does_not(
    shipped: ShippedBroker, wait: Wait
) -> None:
    nothing = ConnectionEvents(lambda message: None)
    trusted = ConnectionConfig(shipped.tls, "tls-1", credentials=shipped.credentials("porch-1", tls=True))
    with MqttConnection(trusted, nothing) as connection:
        assert connection.wait_up(60.0), connection.error
        connection.publish(topics.device_status("porch-1"), bytes(500_000), qos=1)
        wait(lambda: connection.backlog_bytes < 1000)
        assert connection.is_up
    untrusted = ConnectionConfig(shipped.tls, "tls-2", credentials=shipped.credentials("porch-1"))
    with MqttConnection(untrusted, nothing) as connection:
        wait(lambda: connection.error is not None)
        assert not connection.is_up
        assert "certificate" in str(connection.error)


@pytest.mark.broker
def test_a_wrong_password_is_named_with_its_remedy(
    shipped: ShippedBroker, wait: Wait, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("guess\n", encoding="utf-8")
    config = ConnectionConfig(shipped.local, "porch-1-d", credentials=Credentials("porch-1", wrong))
    with MqttConnection(config, ConnectionEvents(lambda message: None)) as connection:
        wait(lambda: connection.error is not None)
        error = connection.error
        assert error is not None
        assert error.why == "Not authorized"
        assert error.fix is not None
        assert "password" in error.fix


def _publish_as(shipped: ShippedBroker, user: str, topic: str) -> None:
    """Publish in this user's name; the broker has read it before it accepts a later connection."""
    config = ConnectionConfig(shipped.local, f"{user}-writer", credentials=shipped.credentials(user))
    with MqttConnection(config, ConnectionEvents(lambda message: None)) as connection:
        assert connection.wait_up(60.0), connection.error
        connection.publish(topic, user.encode(), qos=1)


def _make_certificates(folder: Path) -> None:
    key, authority, server = folder / "ca.key", folder / "ca.crt", folder / "server"
    new = ("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj")
    _run(*new, "/CN=test authority", "-x509", "-days", "2", "-keyout", str(key), "-out", str(authority))
    _run(*new, "/CN=127.0.0.1", "-keyout", f"{server}.key", "-out", f"{server}.csr")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n", encoding="utf-8")
    _run(
        *("openssl", "x509", "-req", "-in", f"{server}.csr", "-CA", str(authority), "-CAkey", str(key)),
        *("-CAcreateserial", "-days", "2", "-extfile", str(folder / "names"), "-out", f"{server}.crt"),
    )


def _program(name: str) -> str:
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    assert found is not None, f"{name} is not installed"
    return found


def _run(program: str, *arguments: str) -> None:
    subprocess.run([_program(program), *arguments], check=True, capture_output=True, timeout=60.0)


def _listens(address: BrokerAddress) -> bool:
    try:
        socket.create_connection((address.host, address.port), timeout=60.0).close()
    except OSError:
        return False
    return True
