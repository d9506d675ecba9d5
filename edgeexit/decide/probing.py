"""When to probe the link: after losses and alarms at once, while nothing is sent now and then."""

from __future__ import annotations

# Bytes of a probe of the round trip.
PING_BYTES = 64
# Bytes of a probe of the goodput: 30 ms at 1 Mbit/s, told from a round trip with ease; where it is too
# short to be measured the link is quick, and the first payload will tell how quick.
PAYLOAD_PROBE_BYTES = 4096
# Without a payload for this long a pair of probes is due, and again after twice as long each time up to
# the last interval. A device that stops sending after a slow exchange would believe in it until then: on
# the development traces a second loses a third less to that than five do, and half of one wins no more.
# A link that nobody uses is watched for two thousandths of a megabit a second.
FIRST_INTERVAL_MS = 1000.0
LAST_INTERVAL_MS = 20_000.0
# While the link is closed a ping goes out so often, twice as long after each that fails.
FIRST_BACKOFF_MS = 1000.0
LAST_BACKOFF_MS = 10_000.0
# A probe whose end was never told is forgotten after this long, so that it cannot stop all others.
PATIENCE_MS = 15_000.0


class ProbeSchedule:
    """State machine of probes: a ping, then a payload-sized one, then a pause.

    Source: without forced probes a device that decides against offloading never learns that the link
    has recovered; Zhang, Chen, Xu, Autodidactic Neurosurgeon, WWW 2021.
    """

    __slots__ = ("_asked_ms", "_backoff_ms", "_due_ms", "_interval_ms", "_payload_next")

    def __init__(self) -> None:
        self._asked_ms: float | None = None
        self._due_ms: float | None = None
        self._payload_next = False
        self._interval_ms = FIRST_INTERVAL_MS
        self._backoff_ms = FIRST_BACKOFF_MS

    def at_once(self, now_ms: float) -> None:
        """Begin anew: after a connection, a loss, or an alarm nothing is known for certain."""
        self._asked_ms = None
        self._due_ms = now_ms
        self._payload_next = False
        self._interval_ms = FIRST_INTERVAL_MS
        self._backoff_ms = FIRST_BACKOFF_MS

    def payload_used(self, now_ms: float) -> None:
        """A payload was exchanged, which tells more than a probe."""
        self._due_ms = now_ms + FIRST_INTERVAL_MS
        self._payload_next = False
        self._interval_ms = FIRST_INTERVAL_MS

    def returned(self, uplink_bytes: int, now_ms: float) -> None:
        """A probe came back."""
        self._asked_ms = None
        self._backoff_ms = FIRST_BACKOFF_MS
        if uplink_bytes <= PING_BYTES * 4:
            self._payload_next = True
            self._due_ms = now_ms
        else:
            self._payload_next = False
            self._due_ms = now_ms + self._interval_ms
            self._interval_ms = min(2.0 * self._interval_ms, LAST_INTERVAL_MS)

    def failed(self, now_ms: float) -> None:
        """A probe did not come back."""
        self._asked_ms = None
        self._payload_next = False
        self._due_ms = now_ms + self._backoff_ms
        self._backoff_ms = min(2.0 * self._backoff_ms, LAST_BACKOFF_MS)

    def ask(self, now_ms: float, *, closed: bool) -> int | None:
        """Bytes of the probe that is due now, None where none is; asking counts as sending it."""
        if self._asked_ms is not None and now_ms - self._asked_ms < PATIENCE_MS:
            return None
        if self._due_ms is None or now_ms < self._due_ms:
            return None
        self._asked_ms = now_ms
        # A closed link has to answer a ping before it is trusted with more.
        return PAYLOAD_PROBE_BYTES if self._payload_next and not closed else PING_BYTES
