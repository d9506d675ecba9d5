"""The device's control connection: how it is, what it answered, its figures, and the budget it is told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import msgspec

from edgeexit.decide.answer import Answer
from edgeexit.decide.budget import Budget
from edgeexit.device.budgets import parse_json_budget
from edgeexit.device.records import LogRecord
from edgeexit.errors import ConfigError, OffloadError
from edgeexit.transport import topics
from edgeexit.transport.address import BrokerAddress, Credentials
from edgeexit.transport.mqtt import ConnectionConfig, ConnectionEvents, MqttConnection, Subscription, Will
from edgeexit.transport.publication import Publication

_log = logging.getLogger(__name__)

# A Wi-Fi blip is not a lost device: the will waits this long, inside the life of the broker's session.
WILL_DELAY_S = 8
SESSION_EXPIRY_S = 30

# Results are for those who look at them now: while the link is slow, those that wait are worth little.
BACKLOG_CAP_BYTES = 64 << 10

State = Literal["init", "ready", "degraded", "draining", "disconnected", "lost"]

_JSON = "application/json"
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class StatusMessage:
    """Retained on the status topic. `boot_id` tells a late will from a fresh birth."""

    state: State
    boot_id: str
    bundle: str
    why: str | None = None


@dataclass(frozen=True, slots=True)
class InfoMessage:
    """Retained on the info topic: what this device is."""

    boot_id: str
    version: str
    board: str
    bundle: str
    bundle_name: str
    variants: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ResultMessage:
    """An answer as it is told over MQTT: what was seen, how sure, where and when. Units: as in Answer."""

    frame: int
    source: str
    label: int | None
    name: str | None
    score: float
    quality: float
    exit: int
    place: str
    latency_ms: float
    deadline_ms: float
    reason: str


def result_topic(device: str) -> str:
    """Where answers go, QoS 0."""
    return f"{topics.PREFIX}/d/{device}/result"


def budget_topic(device: str) -> str:
    """Where the budget is told, as JSON: `{"latency_ms": 80}`; retained if it is to last."""
    return f"{topics.PREFIX}/d/{device}/budget"


class Control:
    """Heals by itself and never blocks; without a broker everything said is dropped."""

    def __init__(
        self,
        device: str,
        *,
        boot_id: str,
        address: BrokerAddress,
        credentials: Credentials,
        on_budget: Callable[[Budget], None],
    ) -> None:
        self._device = device
        self._boot_id = boot_id
        self._on_budget = on_budget
        self._bundle = ""
        self._info: InfoMessage | None = None
        self._state: State = "init"
        self._why: str | None = None
        self._connection = MqttConnection(
            ConnectionConfig(
                address=address,
                client_id=f"{device}-c",
                credentials=credentials,
                will=Will(topics.device_status(device), self._status("lost"), WILL_DELAY_S),
                subscriptions=(Subscription(budget_topic(device), qos=1),),
                session_expiry_s=SESSION_EXPIRY_S,
                backlog_cap_bytes=BACKLOG_CAP_BYTES,
            ),
            ConnectionEvents(message=self._message, up=self._birth),
        )

    @property
    def is_up(self) -> bool:
        """Whether there is a connection to the broker now."""
        return self._connection.is_up

    def open(self) -> None:
        """Start connecting; returns at once. Raises: ConfigError when credentials cannot be read."""
        self._connection.open()

    def close(self) -> None:
        """Say `disconnected` and end the connection."""
        self.tell("disconnected")
        self._connection.close()

    def introduce(self, info: InfoMessage) -> None:
        """Say what this device is, now and at every birth."""
        self._info = info
        self._bundle = info.bundle
        self._publish_info()

    def tell(self, state: State, why: str | None = None) -> None:
        """Say how this device is, now and at every birth."""
        if (state, why) != (self._state, self._why) or state == "init":
            self._state, self._why = state, why
            self._publish_status()

    def publish_metrics(self, metrics: object) -> None:
        """Publish a snapshot, QoS 0; dropped while there is no connection."""
        self._publish(topics.device_metrics(self._device), _encoder.encode(metrics))

    def publish_result(self, result: ResultMessage) -> None:
        """Publish an answer, QoS 0; dropped while there is no connection."""
        self._publish(result_topic(self._device), _encoder.encode(result))

    def _birth(self) -> None:
        self._publish_info()
        self._publish_status()

    def _publish_info(self) -> None:
        if self._info is not None:
            topic = topics.device_info(self._device)
            self._publish(topic, _encoder.encode(self._info), qos=1, retain=True)

    def _publish_status(self) -> None:
        topic = topics.device_status(self._device)
        self._publish(topic, self._status(self._state, self._why), qos=1, retain=True)

    def _status(self, state: State, why: str | None = None) -> bytes:
        return _encoder.encode(StatusMessage(state, self._boot_id, self._bundle, why))

    def _publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> None:
        # No link, no room: figures are dropped, states are said again at the next birth.
        with suppress(OffloadError):
            self._connection.publish(topic, payload, qos=qos, retain=retain, content_type=_JSON)

    def _message(self, message: Publication) -> None:
        if message.topic != budget_topic(self._device):
            return
        try:
            budget = parse_json_budget(message.payload, file=message.topic)
        except ConfigError as error:
            _log.warning("%s; the budget before stays in force", error)
            return
        self._on_budget(budget)


class ResultPublisher:
    """A sink that publishes answers; other records are for the results file."""

    def __init__(self, control: Control, labels: Sequence[str]) -> None:
        self._control = control
        self._labels = tuple(labels)

    def write(self, records: Sequence[LogRecord]) -> None:
        """Publish the answers among the records."""
        for record in records:
            if isinstance(record, Answer):
                self._control.publish_result(self._result(record))

    def close(self) -> None:
        """Nothing is open here: the connection is the daemon's."""

    def _result(self, answer: Answer) -> ResultMessage:
        known = answer.label is not None and answer.label < len(self._labels)
        return ResultMessage(
            frame=answer.frame,
            source=answer.source,
            label=answer.label,
            name=self._labels[answer.label] if answer.label is not None and known else None,
            score=answer.score,
            quality=answer.quality,
            exit=answer.exit,
            place=answer.place.value,
            latency_ms=answer.latency_ms,
            deadline_ms=answer.deadline_ms,
            reason=answer.reason,
        )
