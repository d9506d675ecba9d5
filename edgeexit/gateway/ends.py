"""The one end of every message: counted, logged, and told to whoever sent it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from edgeexit.errors import WireError
from edgeexit.gateway.log import EventLog
from edgeexit.gateway.request import Reply, Request
from edgeexit.transport import frames
from edgeexit.transport.admission import Lapsed, Refusal, Ticket, expiry_s
from edgeexit.transport.status import Status
from edgeexit.transport.wire import Frame

# A refusal or pong that a broker could not deliver within a second is of no use to anybody.
SHORT_USE_S = 1


class Ends:
    """Sends replies and keeps count; safe from any thread."""

    def __init__(self, log: EventLog, clock: Callable[[], float]) -> None:
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each end was met: `answered`, `ping`, a refusal's reason, or why there was no reply."""
        with self._lock:
            return dict(self._counts)

    def end(self, end: str, reply: Reply, data: bytes | None, use_s: int = SHORT_USE_S) -> None:
        """End a message with this reply, or with none."""
        with self._lock:
            self._counts[end] += 1
        try:
            reply(data, use_s)
        except Exception as error:  # noqa: BLE001 - a way back that breaks must not take the gateway along
            self._log.error("way_back", {"error": repr(error)})

    def refuse(
        self,
        frame: Frame,
        refusal: Refusal,
        reply: Reply,
        *,
        queue_ms: float | None = None,
        compute_ms: float | None = None,
    ) -> None:
        """Answer a request with a status."""
        self._log.info(f"refused_{refusal.reason}", {"frame": frame.header.frame})
        data = frames.refusal_of(
            frame.header,
            refusal.status,
            retry_after_ms=refusal.retry_after_ms,
            queue_ms=queue_ms,
            compute_ms=compute_ms,
        )
        self.end(refusal.reason, reply, data)

    def refuse_taken(self, ticket: Ticket[Request], refusal: Refusal) -> None:
        """Answer a request that was let in before, and say what it has cost since."""
        request = ticket.work
        queue_ms = max(0.0, self._clock() - ticket.arrived_ms - request.compute_ms)
        self.refuse(request.frame, refusal, request.reply, queue_ms=queue_ms, compute_ms=request.compute_ms)

    def withdrawn(self, ticket: Ticket[Request]) -> None:
        """End a request that its device has taken back."""
        self.refuse_taken(ticket, Refusal(Status.CANCELLED))

    def answer(self, ticket: Ticket[Request]) -> bool:
        """Answer a request with the deepest exit that it has reached; whether it has reached any."""
        request = ticket.work
        served = request.served
        if served is None or served.exit is None or served.output is None:
            return False
        now_ms = self._clock()
        data = frames.reply_to(
            request.frame.header,
            served.output.reshape(-1),  # (1, C) or (C,) → (C,)
            exit_index=served.exit,
            queue_ms=max(0.0, now_ms - ticket.arrived_ms - request.compute_ms),
            compute_ms=request.compute_ms,
        )
        self.end("answered", request.reply, data, expiry_s(ticket.deadline_ms - now_ms))
        return True

    def turn_away(self, lapsed: Iterable[Lapsed[Request]]) -> None:
        """End requests whose time ran out: by what they have reached, else by the word for it."""
        for entry in lapsed:
            if not self.answer(entry.ticket):
                self.refuse_taken(entry.ticket, entry.refusal)

    def refuse_unread(self, error: WireError, correlation: bytes | None, reply: Reply) -> None:
        """Answer something that is no frame, if it says what it is about."""
        refusal = Refusal(_status_of(error))
        self._log.warning("unread", {"reason": refusal.reason, "why": error.why})
        self.end(refusal.reason, reply, frames.refusal_of_unread(correlation, refusal.status))


def _status_of(error: WireError) -> Status:
    try:
        return Status(error.status)
    except ValueError:
        return Status.MALFORMED
