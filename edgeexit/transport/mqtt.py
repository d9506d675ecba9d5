"""One MQTT 5 connection that opens at once, heals by itself and never blocks its caller."""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from time import monotonic

from edgeexit.errors import BrokerError, LinkDown, WireError
from edgeexit.transport.blocks import keep_freed_blocks
from edgeexit.transport.mqtt_config import ConnectionConfig, Subscription, Will, tls_context
from edgeexit.transport.mqtt_session import MqttSession
from edgeexit.transport.publication import Publication, pack_properties
from edgeexit.transport.status import Status

__all__ = ["ConnectionConfig", "ConnectionEvents", "MqttConnection", "Publication", "Subscription", "Will"]

_log = logging.getLogger(__name__)

# How often keep-alive and time-outs are looked at: a fraction of the shortest of them.
_HOUSEKEEPING_S = 0.5

# A session that lived this long was a real one: the next back-off starts small again.
_STABLE_S = 5.0


@dataclass(frozen=True, slots=True)
class ConnectionEvents:
    """What to call, always in the connection's own thread; none of them may block.

    `up` after each (re)connect, once every subscription is acknowledged: the place to publish a birth.
    `down` once for each `up`, with the reason. `tick` about every `tick_s` while the connection is
    open, up or down. An exception in any of them is logged and goes no further.
    """

    message: Callable[[Publication], None]
    up: Callable[[], None] | None = None
    down: Callable[[str], None] | None = None
    tick: Callable[[], None] | None = None
    tick_s: float = 0.25


class MqttConnection:
    """A connection to one broker, used by devices and gateways alike; opened and closed once.

    Safe to publish on from any thread, callbacks included.
    """

    def __init__(
        self, config: ConnectionConfig, events: ConnectionEvents, *, random: Random | None = None
    ) -> None:
        self._config = config
        self._events = events
        self._random = random if random is not None else Random()
        self._gate = threading.Lock()
        self._up = threading.Event()
        self._closing = threading.Event()
        self._session: MqttSession | None = None
        self._thread: threading.Thread | None = None
        self._wake_read: socket.socket | None = None
        self._wake_write: socket.socket | None = None
        self._largest_payload_bytes = config.payload_cap_bytes
        self._error: BrokerError | None = None
        self._connects = 0

    @property
    def is_up(self) -> bool:
        """Whether the broker has acknowledged the connection and every subscription."""
        return self._up.is_set()

    @property
    def error(self) -> BrokerError | None:
        """Why the last attempt failed or the last session ended; None before and while all is well."""
        return self._error

    @property
    def connects(self) -> int:
        """How many times the connection came up."""
        return self._connects

    @property
    def largest_payload_bytes(self) -> int:
        """What fits in one message: our cap, or less where the broker announced less."""
        return self._largest_payload_bytes

    @property
    def backlog_bytes(self) -> int:
        """What was published and waits here, or has not been acknowledged by the broker's machine."""
        with self._gate:
            return 0 if self._session is None else self._session.backlog_bytes

    def socket_option(self, level: int, option: int) -> int | None:
        """An option of the socket in use, for checks; None while there is none."""
        session = self._session
        return None if session is None else session.socket_option(level, option)

    def open(self) -> None:
        """Start connecting; returns at once, also where no broker answers.

        Raises: ConfigError when credentials or certificates cannot be read.
        """
        if self._thread is not None:
            return
        tls_context(self._config)
        self._config.credentials.password()
        keep_freed_blocks()
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._thread = threading.Thread(target=self._run, name=f"mqtt-{self._config.client_id}", daemon=True)
        self._thread.start()

    def __enter__(self) -> MqttConnection:
        self.open()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def wait_up(self, timeout_s: float) -> bool:
        """Wait until the connection is up: for a program's start, never for a frame."""
        return self._up.wait(timeout_s)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 0,
        retain: bool = False,
        response_topic: str | None = None,
        correlation: bytes | None = None,
        content_type: str | None = None,
        expiry_s: int | None = None,
    ) -> None:
        """Send a message; returns as soon as it is written or queued, never waits for the network.

        Raises: LinkDown; WireError when it is larger than the broker takes; NoCredit when too much
        waits to be sent already. In each case nothing was sent.
        """
        if len(payload) > self._largest_payload_bytes:
            raise WireError(
                f"{len(payload)} bytes, at most {self._largest_payload_bytes} are taken",
                status=Status.TOO_LARGE,
            )
        packed = pack_properties(
            response_topic=response_topic,
            correlation=correlation,
            content_type=content_type,
            expiry_s=expiry_s,
        )
        with self._gate:
            session = self._session
            if session is None or not self._up.is_set():
                raise LinkDown("not connected to the broker")
            session.enqueue(topic, payload, qos, retain, packed, correlation)
        # Most messages are written by now.
        if session.wants_write and not session.flush():
            self._wake()

    def drop(self, correlation: bytes) -> bool:
        """Take a message of QoS 0 out of what waits to be sent; False where some of it has left already."""
        with self._gate:
            return self._session is not None and self._session.drop(correlation)

    def close(self) -> None:
        """Send what is queued, disconnect without the will, and end the thread."""
        thread = self._thread
        self._closing.set()
        self._wake()
        if thread is not None and threading.current_thread() is not thread:
            # An attempt to connect ends by its own time-out; the thread is a daemon, so that a slower
            # name server cannot keep the process.
            thread.join(self._config.connect_timeout_s + 2 * self._config.goodbye_s)

    def _wake(self) -> None:
        if self._wake_write is not None:
            with contextlib.suppress(OSError):
                self._wake_write.send(b"\0")

    def _run(self) -> None:
        attempt = 0
        while not self._closing.is_set():
            started_s = monotonic()
            connects = self._connects
            try:
                self._live_one_session()
            except BrokerError as error:
                self._lost(error)
            except Exception as error:  # noqa: BLE001 (outermost loop of this thread: it must go on)
                _log.exception("the connection failed in an unforeseen way")
                address = self._config.address
                self._lost(BrokerError(str(error), host=address.host, port=address.port))
            if self._connects != connects and monotonic() - started_s > _STABLE_S:
                attempt = 0
            self._back_off(attempt)
            attempt += 1
        for end in (self._wake_read, self._wake_write):
            if end is not None:
                end.close()

    def _back_off(self, attempt: int) -> None:
        low_s, high_s = self._config.backoff_s
        # Full jitter keeps a fleet from returning all at once after its broker was away.
        ceiling_s = min(high_s, low_s * 2.0 ** min(attempt, 16))
        until_s = monotonic() + self._random.uniform(0.1 * low_s, ceiling_s)
        while not self._closing.is_set() and (left_s := until_s - monotonic()) > 0:
            self._closing.wait(min(left_s, self._events.tick_s))
            _guarded(self._events.tick)

    def _live_one_session(self) -> None:
        keeps = self._config.session_expiry_s > 0 and self._connects > 0
        session = MqttSession(self._config, clean_start=not keeps)
        try:
            session.connect()
            self._session = session
            self._loop(session)
        finally:
            session.end()
        if not self._closing.is_set():
            raise session.failure("the broker closed the connection")
        self._lost(None)

    def _loop(self, session: MqttSession) -> None:
        assert self._wake_read is not None
        wake, wake_fileno = self._wake_read, self._wake_read.fileno()
        poller = select.poll()
        poller.register(wake, select.POLLIN)
        poller.register(session.fileno, select.POLLIN)
        wanted = select.POLLIN
        wait_ms = min(_HOUSEKEEPING_S, self._events.tick_s) * 1000.0
        give_up_s = monotonic() + self._config.connect_timeout_s
        housekeeping_s = tick_s = 0.0
        goodbye_s: float | None = None
        while session.is_open:
            interest = select.POLLIN | (select.POLLOUT if session.wants_write else 0)
            if interest != wanted:
                poller.modify(session.fileno, interest)
                wanted = interest
            messages: list[Publication] = []
            for fileno, event in poller.poll(wait_ms):
                if fileno == wake_fileno:
                    with contextlib.suppress(BlockingIOError):
                        wake.recv(4096)
                elif event & ~select.POLLOUT:
                    messages = session.read()
            if not self._up.is_set() and goodbye_s is None and session.is_ready:
                self._came_up(session)
            # Whoever waits for a message runs only when this thread rests: nothing long comes after it.
            for message in messages:
                self._deliver(message)
            session.acknowledge()
            now_s = monotonic()
            if now_s >= housekeeping_s:
                session.keep_alive()
                housekeeping_s = now_s + _HOUSEKEEPING_S
            if now_s >= tick_s:
                _guarded(self._events.tick)
                tick_s = now_s + self._events.tick_s
            if self._closing.is_set():
                if goodbye_s is None:
                    goodbye_s = now_s + self._config.goodbye_s
                    self._lost(None)
                    session.say_goodbye()
                elif now_s > goodbye_s:
                    return
            elif now_s > give_up_s and not self._up.is_set():
                raise session.failure("the broker does not answer")

    def _came_up(self, session: MqttSession) -> None:
        self._largest_payload_bytes = session.largest_payload_bytes
        self._error = None
        self._connects += 1
        self._up.set()
        _log.info("connected to %s", self._config.address)
        _guarded(self._events.up)

    def _lost(self, error: BrokerError | None) -> None:
        with self._gate:
            was_up = self._up.is_set()
            self._up.clear()
            self._session = None
        self._error = error
        why = "closed" if error is None else error.why or error.what
        if error is not None:
            _log.info("%s: %s", self._config.address, why)
        down = self._events.down
        if was_up and down is not None:
            _guarded(lambda: down(why))

    def _deliver(self, message: Publication) -> None:
        try:
            self._events.message(message)
        except Exception:  # noqa: BLE001 (code that is not ours runs in this thread)
            _log.exception("a callback failed")


def _guarded(call: Callable[[], None] | None) -> None:
    """Call it; whatever it raises is logged, because an exception here would end the connection."""
    if call is None:
        return
    try:
        call()
    except Exception:  # noqa: BLE001 (code that is not ours runs in this thread)
        _log.exception("a callback failed")
