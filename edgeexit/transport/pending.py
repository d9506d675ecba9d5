"""What was sent and has not been answered: credit, deadlines, late replies. Pure but for its lock."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from edgeexit.errors import NoCredit, OffloadError, OffloadTimeout
from edgeexit.transport.protocol import Clock

ContextT = TypeVar("ContextT")
ResultT = TypeVar("ResultT")

# Ended ids kept to tell a duplicate from a stranger: the broker repeats within seconds, if at all.
_ENDED_CAP = 256

# Requests past their deadline still waited for; at 30 frames a second and the usual late window some
# 150. Beyond it the oldest is given up early.
_WAITING_CAP = 1024


@dataclass(frozen=True, slots=True)
class Window:
    """How much may be in flight at once; what is over it is refused, never queued.

    Two requests let one be encoded while the other is under way; one more only waits behind them.
    Units: size_bytes, all frames in flight together.
    """

    requests: int = 2
    size_bytes: int = 1 << 20


class Verdict(Enum):
    """Why a reply finds nothing to complete."""

    DUPLICATE = "duplicate"
    EXPIRED = "expired"
    """It was given up: the reply came after the late window, or after a disconnect."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Ticket(Generic[ContextT, ResultT]):
    """One request under way. Units: sent_ms and deadline_ms on the injected clock."""

    key: bytes
    size_bytes: int
    sent_ms: float
    deadline_ms: float
    context: ContextT
    future: Future[ResultT]


class Pending(Generic[ContextT, ResultT]):
    """Table of the requests under way; safe from any thread.

    A place in the window is free again at the reply, at the deadline, or at a disconnect. The future
    lives longer: a late reply completes it until `late_ms` after the deadline, then OffloadTimeout
    does. A request is overdue, once, when it has neither met its deadline nor come within `overdue_ms`.
    Futures are completed outside the lock, so that their callbacks may come back here.
    """

    def __init__(
        self, *, clock: Clock, window: Window, late_ms: float = 5000.0, overdue_ms: float = 1000.0
    ) -> None:
        self._clock = clock
        self._window = window
        self._late_ms = late_ms
        self._overdue_ms = overdue_ms
        self._lock = threading.Lock()
        self._waiting: OrderedDict[bytes, Ticket[ContextT, ResultT]] = OrderedDict()
        self._holding: dict[bytes, Ticket[ContextT, ResultT]] = {}
        self._overdue: set[bytes] = set()
        self._ended: OrderedDict[bytes, Verdict] = OrderedDict()

    @property
    def waits(self) -> bool:
        """Whether any request has not ended yet, be it past its deadline."""
        return bool(self._waiting)

    def in_flight(self) -> tuple[int, int]:
        """Requests and bytes that hold a place in the window now."""
        with self._lock:
            return self._held()

    def holders(self) -> tuple[ContextT, ...]:
        """The contexts of the requests that hold a place in the window now."""
        with self._lock:
            self._held()
            return tuple(ticket.context for ticket in self._holding.values())

    def require_credit(self, size_bytes: int) -> None:
        """Raises: NoCredit when a request of this size could not begin now."""
        with self._lock:
            self._require_credit(size_bytes)

    def begin(self, key: bytes, *, size_bytes: int, budget_ms: float, context: ContextT) -> Future[ResultT]:
        """Take a place in the window for a request about to be sent.

        Raises: NoCredit; nothing was changed.
        """
        future: Future[ResultT] = Future()
        # What is sent cannot be called back: cancel() on it has no effect.
        future.set_running_or_notify_cancel()
        oldest: Ticket[ContextT, ResultT] | None = None
        with self._lock:
            self._require_credit(size_bytes)
            now_ms = self._clock()
            ticket = Ticket(key, size_bytes, now_ms, now_ms + max(0.0, budget_ms), context, future)
            self._waiting[key] = ticket
            self._holding[key] = ticket
            if len(self._waiting) > _WAITING_CAP:
                oldest = self._waiting[next(iter(self._waiting))]
                self._end(oldest.key, Verdict.EXPIRED)
        if oldest is not None:
            oldest.future.set_exception(_timeout(oldest, now_ms))
        return future

    def forget(self, key: bytes) -> None:
        """Forget a request that was not sent after all; its future is never completed."""
        with self._lock:
            self._waiting.pop(key, None)
            self._holding.pop(key, None)

    def find(self, key: bytes) -> Ticket[ContextT, ResultT] | Verdict:
        """The request of this id, or why there is none."""
        with self._lock:
            ticket = self._waiting.get(key)
            return ticket if ticket is not None else self._ended.get(key, Verdict.UNKNOWN)

    def ticket_of(self, future: Future[ResultT]) -> Ticket[ContextT, ResultT] | None:
        """The request whose end this is; None where it has ended."""
        with self._lock:
            return next((ticket for ticket in self._waiting.values() if ticket.future is future), None)

    def complete(self, key: bytes, result: ResultT) -> bool:
        """Complete a request; whether it was still waited for."""
        ticket = self._take(key)
        if ticket is not None:
            ticket.future.set_result(result)
        return ticket is not None

    def fail(self, key: bytes, error: OffloadError) -> bool:
        """Fail a request; whether it was still waited for."""
        ticket = self._take(key)
        if ticket is not None:
            ticket.future.set_exception(error)
        return ticket is not None

    def fail_all(
        self, error: Callable[[], OffloadError], *, where: Callable[[ContextT], bool] | None = None
    ) -> int:
        """Fail every request, or those whose context is meant; how many."""
        with self._lock:
            gone = [t for t in self._waiting.values() if where is None or where(t.context)]
            for ticket in gone:
                self._end(ticket.key, Verdict.EXPIRED)
        for ticket in gone:
            ticket.future.set_exception(error())
        return len(gone)

    def sweep(self) -> tuple[Ticket[ContextT, ResultT], ...]:
        """Time out what is past its late window; what has become overdue since the last sweep."""
        with self._lock:
            now_ms = self._clock()
            gone = [t for t in self._waiting.values() if now_ms > t.deadline_ms + self._late_ms]
            overdue = tuple(
                ticket
                for ticket in self._waiting.values()
                if ticket.key not in self._overdue
                and now_ms > max(ticket.deadline_ms, ticket.sent_ms + self._overdue_ms)
            )
            self._overdue.update(ticket.key for ticket in overdue)
            for ticket in gone:
                self._end(ticket.key, Verdict.EXPIRED)
        for ticket in gone:
            ticket.future.set_exception(_timeout(ticket, now_ms))
        return overdue

    def _take(self, key: bytes) -> Ticket[ContextT, ResultT] | None:
        with self._lock:
            ticket = self._waiting.get(key)
            if ticket is not None:
                self._end(key, Verdict.DUPLICATE)
            return ticket

    def _end(self, key: bytes, verdict: Verdict) -> None:
        self._waiting.pop(key, None)
        self._holding.pop(key, None)
        self._overdue.discard(key)
        self._ended[key] = verdict
        if len(self._ended) > _ENDED_CAP:
            self._ended.popitem(last=False)

    def _held(self) -> tuple[int, int]:
        if not self._holding:
            return 0, 0
        now_ms = self._clock()
        for ticket in list(self._holding.values()):
            if now_ms >= ticket.deadline_ms:
                del self._holding[ticket.key]
        return len(self._holding), sum(ticket.size_bytes for ticket in self._holding.values())

    def _require_credit(self, size_bytes: int) -> None:
        requests, held_bytes = self._held()
        if requests >= self._window.requests or held_bytes + size_bytes > self._window.size_bytes:
            raise NoCredit(in_flight=requests, in_flight_bytes=held_bytes)


def _timeout(ticket: Ticket[ContextT, ResultT], now_ms: float) -> OffloadTimeout:
    return OffloadTimeout(deadline_ms=ticket.deadline_ms - ticket.sent_ms, waited_ms=now_ms - ticket.sent_ms)
