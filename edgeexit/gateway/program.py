"""The gateway as a program: a core behind a broker, adverts once a second, an orderly end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from edgeexit.errors import ConfigError, OffloadError, WireError
from edgeexit.gateway.adverts import Advertiser
from edgeexit.gateway.config import GatewayConfig
from edgeexit.gateway.core import DRAIN_S, GatewayCore, monotonic_ms
from edgeexit.gateway.log import EventLog, close_log, open_log
from edgeexit.gateway.request import Reply
from edgeexit.transport import frames, topics, wire
from edgeexit.transport.address import parse_broker
from edgeexit.transport.adverts import GatewayState, encode_advert, lost
from edgeexit.transport.mqtt import (
    ConnectionConfig,
    ConnectionEvents,
    MqttConnection,
    Subscription,
    Will,
)
from edgeexit.transport.publication import Publication

# Devices believe an advert for three seconds: two may be lost.
ADVERT_EVERY_S = 1.0


class GatewayProgram:
    """One gateway on one broker, which may be away at the start and at any time later.

    The pool has a connection of its own, so that a gateway can leave it, while it still answers what it
    took, and the broker hands those requests to others from then on.
    """

    def __init__(self, config: GatewayConfig, core: GatewayCore, log: EventLog) -> None:
        self._config = config
        self._core = core
        self._log = log
        self._advertiser = Advertiser()
        self._status_topic = topics.gateway_status(config.id)
        self._telling = threading.Lock()  # adverts leave in the order of their numbers
        self._stopping = threading.Event()
        self._told_why: str | None = None
        self._connection = MqttConnection(
            ConnectionConfig(
                address=parse_broker(config.broker),
                # No id has a dot in it: this client is never taken for a device's.
                client_id=f"{config.id}.gateway",
                credentials=config.credentials,
                will=Will(self._status_topic, encode_advert(lost(self._advertiser.boot_id))),
                subscriptions=(Subscription(topics.gateway_infer_filter(config.id)),),
            ),
            ConnectionEvents(message=self._take_in, up=self._came_up, down=self._went_down),
        )
        self._pool: MqttConnection | None = None
        if config.pool:
            self._pool = MqttConnection(
                ConnectionConfig(
                    address=parse_broker(config.broker),
                    client_id=f"{config.id}.pool",
                    credentials=config.credentials,
                    subscriptions=(Subscription(topics.POOL_FILTER),),
                ),
                ConnectionEvents(message=self._take_in, up=self._advertise),
            )

    def __enter__(self) -> GatewayProgram:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def core(self) -> GatewayCore:
        """What is behind the broker."""
        return self._core

    def open(self) -> None:
        """Load the store, then connect and go on trying to; returns without waiting for a broker.

        Raises: ConfigError, MissingExtra.
        """
        self._core.open()
        try:
            self._connection.open()
            if self._pool is not None:
                self._pool.open()
        except ConfigError:
            self._connection.close()
            self._core.close(0.0)
            raise

    def run(self) -> None:
        """Advertise until `stop` is called."""
        while not self._stopping.wait(ADVERT_EVERY_S):
            self._tell_trouble()
            self._advertise()

    def stop(self) -> None:
        """Make `run` return; may be called by a signal handler."""
        self._stopping.set()

    def close(self) -> None:
        """Leave: no more from the pool, refuse, finish, say goodbye."""
        leaving = None
        if self._pool is not None:
            # Aside, because it waits for the network where the broker is out of reach.
            leaving = threading.Thread(target=self._pool.close, name="gateway-leaving", daemon=True)
            leaving.start()
        self._advertise("draining", qos=1)
        self._core.close(DRAIN_S)
        self._advertise("disconnected", qos=1)
        self._connection.close()
        if leaving is not None:
            leaving.join()
        self._log.info("stopped", dict(self._core.service.counts))

    def _state(self) -> GatewayState:
        """Ready for all that it is configured to do; degraded, it still serves what it can."""
        pooled = self._pool is None or self._pool.is_up
        return "ready" if pooled and self._core.bundles else "degraded"

    def _advertise(self, state: GatewayState | None = None, *, qos: int = 0) -> None:
        """Publish how the gateway is, if there is anybody to tell."""
        if not self._connection.is_up:
            return
        with self._telling:
            advert = self._advertiser.advert(state or self._state(), self._core.service.load())
            try:
                self._connection.publish(self._status_topic, advert, qos=qos, retain=True)
            except OffloadError as error:
                self._log.info("advert_unsent", {"why": error.why})

    def _came_up(self) -> None:
        self._log.info("connected", {"broker": self._config.broker})
        self._advertise(qos=1)

    def _went_down(self, why: str) -> None:
        self._log.warning("disconnected", {"broker": self._config.broker, "why": why})

    def _tell_trouble(self) -> None:
        """Say why there is no broker, once for each reason: who mistyped its name waits for nothing."""
        error = None if self._connection.is_up else self._connection.error
        why = None if error is None else error.why
        if why is not None and why != self._told_why:
            self._log.warning("broker_unreachable", {"broker": self._config.broker, "why": why})
        self._told_why = why

    def _take_in(self, message: Publication) -> None:
        """On a connection's thread: hand one request to the service."""
        topic = topics.parse_infer(message.topic)
        if topic is None or message.retained:
            self._log.warning("foreign_message", {"topic": message.topic[:80]})
            return
        reply_topic = _reply_topic(message)
        if reply_topic is None:
            # Anywhere else would let a device publish with the gateway's rights.
            self._log.warning("no_way_back", {"response_topic": (message.response_topic or "")[:80]})
            return
        self._core.service.handle(
            message.payload,
            topic,
            self._way_back(reply_topic, message.correlation),
            asker=reply_topic,
            correlation=message.correlation,
        )

    def _way_back(self, reply_topic: str, correlation: bytes | None) -> Reply:
        def reply(data: bytes | None, use_s: int) -> None:
            if data is None:
                return
            try:
                self._connection.publish(
                    reply_topic,
                    data,
                    correlation=correlation,
                    content_type=frames.CONTENT_TYPE,
                    expiry_s=use_s,
                )
            except OffloadError as error:
                self._log.warning("reply_unsent", {"why": error.why})

        return reply


def run_gateway(config: GatewayConfig) -> int:
    """Run until SIGTERM or SIGINT; the exit code. A second signal ends the process at once.

    Raises: ConfigError, MissingExtra: before anything was served.
    """
    log, handler = open_log(config.log_file, monotonic_ms)
    try:
        program = GatewayProgram(config, GatewayCore(config, log), log)
        with _stopped_by_signals(program), program:
            log.info("ready", {"gateway": config.id, "bundles": len(program.core.bundles)})
            program.run()
        return 0
    finally:
        close_log(handler)


@contextmanager
def _stopped_by_signals(program: GatewayProgram) -> Iterator[None]:
    """Let the first SIGTERM or SIGINT end the program in order, and the next one at once."""

    def on_signal(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        program.stop()

    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers signals to the main thread only: who started this one stops it
        return
    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _reply_topic(message: Publication) -> str | None:
    """Where a reply may go: the Response Topic, or the header's on brokers without one."""
    named = message.response_topic
    if named is None:
        try:
            named = wire.decode(message.payload).header.reply_topic
        except WireError:
            return None
    return named if topics.is_reply(named) else None
