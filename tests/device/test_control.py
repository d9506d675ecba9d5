from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import msgspec
import pytest

from edgeexit.decide.budget import Budget
from edgeexit.device.control import Control, InfoMessage, ResultMessage, budget_topic, result_topic
from edgeexit.transport import topics
from edgeexit.transport.address import BrokerAddress, Credentials
from edgeexit.transport.broker import Broker
from edgeexit.transport.mqtt import ConnectionConfig, ConnectionEvents, MqttConnection, Subscription
from edgeexit.transport.publication import Publication

pytestmark = pytest.mark.broker

RESULT = ResultMessage(
    frame=3,
    source="a.png",
    label=1,
    name="cat",
    score=0.9,
    quality=0.9,
    exit=2,
    place="device",
    latency_ms=10.0,
    deadline_ms=50.0,
    reason="last-exit",
)
INFO = InfoMessage(
    boot_id="0011223344556677",
    version="1",
    board="generic-linux",
    bundle="ab" * 6,
    bundle_name="vit",
    variants=("f32",),
)


class Listener:
    """A second client that writes down all that it hears of one device."""

    def __init__(self, address: BrokerAddress) -> None:
        self._changed = threading.Condition()
        self._heard: list[Publication] = []
        self.connection = MqttConnection(
            ConnectionConfig(
                address=address,
                client_id="listener",
                subscriptions=(Subscription(f"{topics.PREFIX}/d/pi-1/#", qos=1),),
            ),
            ConnectionEvents(message=self._hear),
        )

    def _hear(self, message: Publication) -> None:
        with self._changed:
            self._heard.append(message)
            self._changed.notify_all()

    def wait_for(self, topic: str, wanted: Callable[[dict[str, object]], bool]) -> dict[str, object]:
        """The first message on the topic that is wanted."""

        def found() -> dict[str, object] | None:
            for message in self._heard:
                if message.topic == topic:
                    content = msgspec.json.decode(message.payload, type=dict[str, object])
                    if wanted(content):
                        return content
            return None

        with self._changed:
            assert self._changed.wait_for(lambda: found() is not None, 60.0), self._heard
            content = found()
        assert content is not None
        return content


@pytest.fixture(scope="module")
def broker() -> Iterator[BrokerAddress]:
    with Broker() as running:
        yield running.address


@pytest.fixture
def listener(broker: BrokerAddress) -> Iterator[Listener]:
    listening = Listener(broker)
    with listening.connection as connection:
        assert connection.wait_up(60.0)
        yield listening


def make_control(address: BrokerAddress, budgets: list[Budget]) -> Control:
    return Control(
        "pi-1",
        boot_id="0011223344556677",
        address=address,
        credentials=Credentials(),
        on_budget=budgets.append,
    )


def test_a_device_says_what_and_how_it_is_and_says_goodbye(broker: BrokerAddress, listener: Listener) -> None:
    control = make_control(broker, [])
    control.open()
    control.introduce(INFO)
    control.tell("ready")
    status = topics.device_status("pi-1")
    assert listener.wait_for(status, lambda said: said["state"] == "ready")["bundle"] == "ab" * 6
    assert listener.wait_for(topics.device_info("pi-1"), lambda said: True)["board"] == "generic-linux"
    control.tell("degraded", "the camera is gone")
    assert listener.wait_for(status, lambda said: said["state"] == "degraded")["why"] == "the camera is gone"
    control.close()
    listener.wait_for(status, lambda said: said["state"] == "disconnected")


def test_results_and_metrics_are_heard(broker: BrokerAddress, listener: Listener) -> None:
    control = make_control(broker, [])
    control.open()
    listener.wait_for(topics.device_status("pi-1"), lambda said: said["state"] == "init")
    control.publish_result(RESULT)
    heard = listener.wait_for(result_topic("pi-1"), lambda said: True)
    assert heard == msgspec.to_builtins(RESULT)
    control.publish_metrics(INFO)
    listener.wait_for(topics.device_metrics("pi-1"), lambda said: True)
    control.close()


def test_a_budget_told_over_mqtt_is_taken_and_nonsense_is_not(
    broker: BrokerAddress, listener: Listener
) -> None:
    came = threading.Event()
    budgets: list[Budget] = []

    def take(budget: Budget) -> None:
        budgets.append(budget)
        came.set()

    control = Control("pi-1", boot_id="00" * 8, address=broker, credentials=Credentials(), on_budget=take)
    control.open()
    listener.wait_for(topics.device_status("pi-1"), lambda said: said["boot_id"] == "00" * 8)
    say = listener.connection.publish
    for nonsense in (b"", b"fast", b'{"latency_ms":-1}', b"[" * 1000, b"x" * 100_000, b'{"latency":5}'):
        say(budget_topic("pi-1"), nonsense, qos=1)
    say(budget_topic("pi-1"), b'{"latency_ms": 42.0, "uplink_bytes": 100}', qos=1)
    assert came.wait(60.0)
    assert budgets == [Budget(42.0, uplink_bytes=100)]
    control.close()


def test_without_a_broker_nothing_blocks_and_nothing_is_raised() -> None:
    control = make_control(BrokerAddress("127.0.0.1", 1), [])
    control.open()
    control.introduce(INFO)
    control.tell("ready")
    control.publish_result(RESULT)
    assert not control.is_up
    control.close()
