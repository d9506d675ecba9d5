"""One MQTT session, from CONNECT to its end.

The library's own thread would write what other threads publish, which costs a hand-over of 0.2 ms each
way. Here whoever publishes writes to the socket itself, and the thread that made the session reads, and
writes what the socket would not take at once.
"""

from __future__ import annotations

import threading
from collections import deque

from edgeexit.errors import BrokerError, NoCredit
from edgeexit.transport.mqtt_client import Unsent
from edgeexit.transport.mqtt_config import ENVELOPE_BYTES, ConnectionConfig
from edgeexit.transport.mqtt_quick_client import open_client
from edgeexit.transport.publication import Publication
from edgeexit.transport.tcp import unacknowledged_bytes


class MqttSession:
    """One TCP connection to the broker; the next one begins with nothing of this one.

    Made, read and ended by one thread; `enqueue` and `flush` are for any.
    """

    def __init__(self, config: ConnectionConfig, *, clean_start: bool) -> None:
        self._config = config
        self._clean_start = clean_start
        self._client = open_client(config)
        self._writing = threading.Lock()
        self._unsent: deque[tuple[Unsent, int, bytes | None]] = deque()
        self._fileno = -1

    @property
    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._fileno

    @property
    def is_open(self) -> bool:
        """Whether there is a socket."""
        return self._client.socket() is not None

    @property
    def is_ready(self) -> bool:
        """Whether the broker has acknowledged the connection and all subscriptions."""
        return self._client.subscribed and self.is_open

    @property
    def wants_write(self) -> bool:
        """Whether packets wait for the socket."""
        return self._client.want_write()

    @property
    def largest_payload_bytes(self) -> int:
        """Our cap, or less where the broker announced less."""
        cap_bytes = self._config.payload_cap_bytes
        packet_cap_bytes = self._client.packet_cap_bytes
        if packet_cap_bytes is None:
            return cap_bytes
        return max(0, min(cap_bytes, packet_cap_bytes - ENVELOPE_BYTES))

    @property
    def backlog_bytes(self) -> int:
        """What waits here and in the kernel; callers take turns."""
        tcp = self._client.tcp
        kernel_bytes = 0 if tcp is None else unacknowledged_bytes(tcp)
        return self._queued_bytes() + kernel_bytes

    def connect(self) -> None:
        """Open the socket and queue CONNECT. Raises: BrokerError."""
        try:
            self._client.open(clean_start=self._clean_start)
        except (OSError, ValueError) as error:
            raise self.failure(str(error) or type(error).__name__) from error
        sock = self._client.socket()
        if sock is None:
            raise self.failure("the connection was closed at once")
        self._fileno = sock.fileno()

    def enqueue(
        self,
        topic: str,
        payload: bytes,
        qos: int,
        retain: bool,
        packed: bytes,
        correlation: bytes | None = None,
    ) -> None:
        """Send a PUBLISH with these packed properties, or queue it; callers take turns, and flush after it.

        `correlation` is how `drop` will call it.

        Raises: LinkDown, NoCredit, WireError: nothing was sent or queued.
        """
        waiting_bytes = self._queued_bytes()
        if waiting_bytes and waiting_bytes + len(payload) > self._config.backlog_cap_bytes:
            raise NoCredit(in_flight=len(self._unsent), in_flight_bytes=waiting_bytes)
        client = self._client
        # What another thread queues while this one writes comes after this packet.
        at_once = self._may_write_at_once()
        try:
            if qos == 0:
                unsent = client.send(topic, payload, packed, retain=retain, at_once=at_once)
                if unsent is not None:
                    self._unsent.append((unsent, len(payload), correlation))
            elif not client.send_surely(topic, payload, packed, retain=retain, at_once=at_once):
                raise NoCredit(in_flight=self._config.unacknowledged_cap, in_flight_bytes=waiting_bytes)
        finally:
            if at_once:
                self._writing.release()

    def drop(self, correlation: bytes) -> bool:
        """Take a message of QoS 0 out of the queue, if none of it is written; callers take turns."""
        entry = next((entry for entry in self._unsent if entry[2] == correlation), None)
        if entry is None or not self._writing.acquire(blocking=False):
            return False
        try:
            dropped = self._client.drop(entry[0])
        finally:
            self._writing.release()
        if dropped:
            self._unsent.remove(entry)
        return dropped

    def _may_write_at_once(self) -> bool:
        """Whether this thread alone may write to the socket now, past the queue; it then gives that back."""
        return not self._config.address.tls and self._writing.acquire(blocking=False)

    def flush(self) -> bool:
        """Write what the socket takes now; whether nothing is left. Never waits."""
        client = self._client
        if (self._config.address.tls or not client.any_thread_writes) and (
            threading.get_ident() != client.owner
        ):
            # One TLS object must not be read and written by two threads at a time.
            return False
        if client.want_write() and self._writing.acquire(blocking=False):
            try:
                self._client.loop_write()
            finally:
                self._writing.release()
        return not self._client.want_write()

    def read(self) -> list[Publication]:
        """Take what came; the messages in it."""
        self._client.read_in()
        return self._client.take_messages()

    def acknowledge(self) -> None:
        """Acknowledge what was read, once it is delivered: answers go before, and take TCP's part along."""
        client = self._client
        if client.owes:
            at_once = self._may_write_at_once()
            try:
                client.acknowledge(at_once=at_once)
            finally:
                if at_once:
                    self._writing.release()
        if client.want_write():
            self.flush()
        client.expect_more()

    def keep_alive(self) -> None:
        """Ping the broker, or close the socket, when it was silent for long."""
        self._client.loop_misc()

    def say_goodbye(self) -> None:
        """Queue DISCONNECT: the broker forgets the will, and the socket closes once it is written."""
        self._client.disconnect()

    def end(self) -> None:
        """Close the socket."""
        # A publishing thread may be inside send(): the descriptor is not closed under its hands.
        with self._writing:
            sock = self._client.socket()
            if sock is not None:
                sock.close()

    def failure(self, why: str) -> BrokerError:
        """What to raise: the broker's own reason where it gave one, else `why`."""
        address, reason = self._config.address, self._client.reason
        fix = "start a broker there, or give its address" if reason is None else None
        if self._client.refused:
            fix = "check user name, password and the broker's access rules"
        return BrokerError(reason or why, host=address.host, port=address.port, fix=fix)

    def socket_option(self, level: int, option: int) -> int | None:
        """An option of the socket; None without one."""
        try:
            tcp = self._client.tcp
            return None if tcp is None else tcp.getsockopt(level, option)
        except OSError:
            return None

    def _queued_bytes(self) -> int:
        if not self._unsent:
            return 0
        while self._unsent and self._unsent[0][0].is_published():
            self._unsent.popleft()
        return sum(size_bytes for _, size_bytes, _ in self._unsent)
