"""The reference transport: a gateway in this process, behind a link that can be made bad."""

from __future__ import annotations

import heapq
import itertools
import logging
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from random import Random
from time import monotonic

from edgeexit.errors import LinkDown
from edgeexit.transport import frames, wire
from edgeexit.transport.exchange import BOOT_ID_BYTES, Asked, Counters, Exchange, ServedBundle
from edgeexit.transport.pending import Window
from edgeexit.transport.protocol import Clock, LinkStatus, OffloadReply, OffloadRequest, Pong
from edgeexit.transport.status import Status
from edgeexit.transport.wire import Header, Kind

_log = logging.getLogger(__name__)

Serve = Callable[[bytes], bytes | None]
"""A gateway as a function: a request's frame to a reply's frame, or None for no reply."""

GATEWAY = "loopback"

# Late replies and time-outs are looked for this often.
_SWEEP_MS = 50.0


@dataclass(frozen=True, slots=True)
class LinkConditions:
    """How bad the link is; it can be changed while requests are under way.

    `loss` is the fraction of messages lost in each direction. Where `refuse` is given, every request is
    refused with it. `copies` is how often each reply is delivered.
    Units: up_ms and down_ms, delays.
    """

    up_ms: float = 0.0
    down_ms: float = 0.0
    loss: float = 0.0
    refuse: Status | None = None
    retry_after_ms: float | None = None
    copies: int = 1


class LoopbackTransport:
    """Transport to `serve`, which runs in the transport's one thread, one request at a time."""

    def __init__(
        self,
        serve: Serve,
        bundle: ServedBundle,
        *,
        window: Window | None = None,
        late_ms: float = 5000.0,
        conditions: LinkConditions | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        self._serve = serve
        self._clock = clock if clock is not None else _monotonic_ms
        self._random = random if random is not None else Random(0)
        self._conditions = conditions if conditions is not None else LinkConditions()
        self._exchange = Exchange(
            bundle,
            boot_id=secrets.token_bytes(BOOT_ID_BYTES),
            clock=self._clock,
            window=window if window is not None else Window(),
            late_ms=late_ms,
        )
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        # Ids of requests on their way or waiting for the one that is being served.
        self._waiting: set[bytes] = set()
        self._order = itertools.count()
        self._link_up = False
        self._closing = False
        self._thread: threading.Thread | None = None

    @property
    def conditions(self) -> LinkConditions:
        """How bad the link is now."""
        return self._conditions

    @conditions.setter
    def conditions(self, conditions: LinkConditions) -> None:
        self._conditions = conditions

    @property
    def counters(self) -> Counters:
        """What came in so far."""
        return self._exchange.counters

    def open(self) -> None:
        """Bring the link up."""
        if self._thread is None:
            self._closing = False
            self._thread = threading.Thread(target=self._run, name="loopback", daemon=True)
            self._thread.start()
        self._link_up = True

    def cut(self, why: str = "cut") -> None:
        """Take the link down: what is under way fails, what is on its way is lost."""
        with self._changed:
            self._link_up = False
            self._due.clear()
            self._waiting.clear()
        self._exchange.fail_all(lambda: LinkDown(why))

    def mend(self) -> None:
        """Bring the link up again."""
        self._link_up = True

    def status(self) -> LinkStatus:
        """How the link stands now."""
        requests, held_bytes = self._exchange.in_flight()
        return LinkStatus(
            up=self._link_up,
            gateways=1 if self._link_up else 0,
            in_flight=requests,
            in_flight_bytes=held_bytes,
            largest_payload_bytes=wire.FRAME_CAP_BYTES,
        )

    def submit(self, request: OffloadRequest) -> Future[OffloadReply]:
        """Send a request. Raises: LinkDown, NoCredit, WireError: nothing was sent."""
        self._require_link()
        return self._exchange.submit(
            request, gateway=GATEWAY, cap_bytes=wire.FRAME_CAP_BYTES, send=self._send
        )

    def withdraw(self, reply: Future[OffloadReply]) -> int:
        """Take a request back: it is not served any more, unless that has begun; what was sent in bytes."""
        return self._exchange.withdraw(reply, drop=lambda _: False, send=self._tell)

    def probe(self, payload_bytes: int) -> Future[Pong]:
        """Send a ping of about this size. Raises: LinkDown."""
        self._require_link()
        return self._exchange.ping(
            payload_bytes,
            gateway=GATEWAY,
            cap_bytes=wire.FRAME_CAP_BYTES,
            timeout_ms=5000.0,
            send=self._send,
        )

    def deliver(self, payload: bytes) -> None:
        """Let a message come in as if a gateway had sent it: for hostile and mistaken ones."""
        self._exchange.accept(payload)

    def close(self) -> None:
        """Fail what is pending with LinkDown and end the thread."""
        thread, self._thread = self._thread, None
        with self._changed:
            self._closing = True
            self._changed.notify()
        self.cut("closed")
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _require_link(self) -> None:
        if not self._link_up:
            raise LinkDown("the link is not open")

    def _send(self, payload: bytes, key: bytes) -> None:
        self._require_link()
        if not self._lost():
            self._waiting.add(key)
            self._later(self._conditions.up_ms, lambda: self._arrive(payload))

    def _tell(self, asked: Asked, payload: bytes) -> None:
        self._require_link()
        request = wire.decode(payload).header
        # Settled here, not a delay later: behind the request in the one thread it would find it served.
        if self._lost() or request.request_id not in self._waiting:
            return
        self._waiting.discard(request.request_id)
        if not self._lost():
            ended = frames.refusal_of(request, Status.CANCELLED, queue_ms=0.0, compute_ms=0.0)
            self._later(self._conditions.up_ms + self._conditions.down_ms, lambda: self.deliver(ended))

    def _arrive(self, payload: bytes) -> None:
        """Serve a frame, in the transport's thread."""
        conditions = self._conditions
        asked = wire.decode(payload).header
        if asked.request_id not in self._waiting:
            return  # taken back
        self._waiting.discard(asked.request_id)
        answer: bytes | None
        if asked.kind is Kind.PING:
            answer = frames.pong_to(asked)
        elif conditions.refuse is not None:
            answer = frames.refusal_of(asked, conditions.refuse, retry_after_ms=conditions.retry_after_ms)
        else:
            answer = self._answer(payload, asked)
        if answer is None or self._lost():
            return
        reply = answer
        for _ in range(conditions.copies):
            self._later(conditions.down_ms, lambda: self.deliver(reply))

    def _answer(self, payload: bytes, asked: Header) -> bytes | None:
        try:
            return self._serve(payload)
        except Exception:  # noqa: BLE001 (a gateway that fails must not end the transport's thread)
            _log.exception("the gateway function failed")
            return frames.refusal_of(asked, Status.FAILED)

    def _lost(self) -> bool:
        return self._conditions.loss > 0.0 and self._random.random() < self._conditions.loss

    def _later(self, delay_ms: float, action: Callable[[], None]) -> None:
        with self._changed:
            if self._link_up:
                heapq.heappush(self._due, (self._clock() + delay_ms, next(self._order), action))
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._closing:
                    return
                wait_ms = self._due[0][0] - self._clock() if self._due else _SWEEP_MS
                if wait_ms > 0.0:
                    self._changed.wait(min(wait_ms, _SWEEP_MS) / 1000.0)
                ready: Callable[[], None] | None = None
                if self._due and self._due[0][0] <= self._clock():
                    ready = heapq.heappop(self._due)[2]
            if ready is not None:
                ready()
            self._exchange.sweep()


def _monotonic_ms() -> float:
    return monotonic() * 1000.0
