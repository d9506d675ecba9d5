"""The device's side of request and reply, the same over every transport."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum
from math import isfinite

from edgeexit.errors import (
    GatewayRefused,
    LinkDown,
    NoCredit,
    OffloadCancelled,
    OffloadError,
    WireError,
)
from edgeexit.transport import frames, wire
from edgeexit.transport.admission import time_for_gateway
from edgeexit.transport.codecs import codec_name, encode_tensors
from edgeexit.transport.pending import Pending, Ticket, Verdict, Window
from edgeexit.transport.protocol import Clock, OffloadReply, OffloadRequest, Pong
from edgeexit.transport.status import Status
from edgeexit.transport.wire import Frame, Header, Kind

BOOT_ID_BYTES = 8

# Pings are for the estimators and for half-open circuits; more at once would measure one another.
PING_WINDOW = Window(requests=8, size_bytes=8 << 20)


@dataclass(frozen=True, slots=True)
class ServedBundle:
    """What a transport must know of the bundle in use.

    Units: digest, the manifest's SHA-256 in hex; output_size, C of every exit, None to take any.
    """

    digest: str
    stage_count: int
    output_size: int | None = None


@dataclass(frozen=True, slots=True)
class Counters:
    """What came in, for reports; a snapshot.

    `late` replies came after their deadline and still completed their future; `cancelled` requests ended
    because they were taken back. The others completed nothing: `malformed` are no frames of ours, `corrupt`
    answer a request with something that is no output, `mismatched` speak of another bundle, `duplicate`
    answer twice, `expired` come after all waiting was over, `unknown` and `foreign` answer what was never
    asked, here or by this start.
    """

    sent: int = 0
    answered: int = 0
    late: int = 0
    refused: int = 0
    cancelled: int = 0
    malformed: int = 0
    corrupt: int = 0
    mismatched: int = 0
    duplicate: int = 0
    expired: int = 0
    unknown: int = 0
    foreign: int = 0


class Fate(Enum):
    """What became of a message that came to the reply topic."""

    ANSWERED = "answered"
    REFUSED = "refused"
    CORRUPT = "corrupt"
    PONG = "pong"


@dataclass(frozen=True, slots=True)
class Asked:
    """What is remembered of a request: whom it went to and what for."""

    gateway: str
    digest: bytes
    boundary: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """A message that ended a request or a ping.

    Units: elapsed_ms, round trip; network_ms, of it outside the gateway, None where it did not say;
    size_bytes, of what was sent.
    """

    fate: Fate
    gateway: str
    elapsed_ms: float
    size_bytes: int
    network_ms: float | None = None
    status: Status = Status.OK
    retry_after_ms: float | None = None


_Ended = tuple[Outcome, Callable[[], bool]]
"""What a message says, and how to end the future that waits for it."""


class Exchange:
    """Makes requests, knows which are under way, and judges what comes back. Safe from any thread."""

    def __init__(
        self,
        bundle: ServedBundle,
        *,
        boot_id: bytes,
        clock: Clock,
        window: Window,
        late_ms: float = 5000.0,
    ) -> None:
        self._bundle = bundle
        self._boot_id = boot_id
        self._clock = clock
        self._numbers = itertools.count()
        self._requests: Pending[Asked, OffloadReply] = Pending(clock=clock, window=window, late_ms=late_ms)
        self._pings: Pending[Asked, Pong] = Pending(clock=clock, window=PING_WINDOW, late_ms=0.0)
        self._lock = threading.Lock()
        self._counted: Counter[str] = Counter()

    @property
    def counters(self) -> Counters:
        """What came in so far."""
        with self._lock:
            counted = self._counted.copy()
        return Counters(
            sent=counted["sent"],
            answered=counted["answered"],
            late=counted["late"],
            refused=counted["refused"],
            cancelled=counted["cancelled"],
            malformed=counted["malformed"],
            corrupt=counted["corrupt"],
            mismatched=counted["mismatched"],
            duplicate=counted[Verdict.DUPLICATE.value],
            expired=counted[Verdict.EXPIRED.value],
            unknown=counted[Verdict.UNKNOWN.value],
            foreign=counted["foreign"],
        )

    def in_flight(self) -> tuple[int, int]:
        """Requests and bytes that hold a place in the window now."""
        return self._requests.in_flight()

    @property
    def waits(self) -> bool:
        """Whether a request has not ended yet, be it past its deadline."""
        return self._requests.waits

    def under_way(self) -> tuple[str, ...]:
        """The gateways of the requests that hold a place in the window now."""
        return tuple(asked.gateway for asked in self._requests.holders())

    def submit(
        self,
        request: OffloadRequest,
        *,
        gateway: str,
        cap_bytes: int,
        send: Callable[[bytes, bytes], None],
    ) -> Future[OffloadReply]:
        """Encode a request, take credit for it, and hand its frame and its id to `send`.

        Raises: NoCredit, WireError, and whatever `send` raises: then nothing is under way.
        """
        started_ms = self._clock()
        # Without credit there is no use in encoding.
        self._requests.require_credit(0)
        tensors = encode_tensors(request.tensors, codec_name(request.codec))
        key = self._key()
        left_ms = request.budget_left_ms - (self._clock() - started_ms)
        payload = frames.request(
            key,
            bundle_digest=request.bundle_digest,
            boundary=request.boundary,
            last_stage=self._bundle.stage_count - 1,
            frame=request.frame,
            budget_left_ms=time_for_gateway(left_ms, request.round_trip_ms) if isfinite(left_ms) else None,
            tensors=tensors,
            cap_bytes=cap_bytes,
        )
        asked = Asked(gateway, frames.digest_bytes(request.bundle_digest), request.boundary)
        future = self._requests.begin(
            key, size_bytes=len(payload), budget_ms=request.budget_left_ms, context=asked
        )
        try:
            send(payload, key)
        except BaseException:
            self._requests.forget(key)
            raise
        self._count("sent")
        return future

    def withdraw(
        self,
        reply: Future[OffloadReply],
        *,
        drop: Callable[[bytes], bool],
        send: Callable[[Asked, bytes], None],
    ) -> int:
        """Take a request back: unsent by `drop`, which is given its id, else by a cancel handed to `send`.

        The bytes of that cancel; 0 where none was sent. The window's place is free once the end is known.
        """
        ticket = self._requests.ticket_of(reply)
        if ticket is None:
            return 0
        if drop(ticket.key):
            self._count("cancelled")
            self._requests.fail(ticket.key, OffloadCancelled())
            return 0
        asked = ticket.context
        payload = frames.cancel(ticket.key, bundle_digest=asked.digest, boundary=asked.boundary)
        try:
            send(asked, payload)
        except OffloadError:
            return 0
        return len(payload)

    def ping(
        self,
        payload_bytes: int,
        *,
        gateway: str,
        cap_bytes: int,
        timeout_ms: float,
        send: Callable[[bytes, bytes], None],
    ) -> Future[Pong]:
        """Hand a ping and its id to `send`. Raises: LinkDown and whatever `send` raises."""
        key = self._key()
        # The description of the filling takes up to one header's worth of bytes beside it.
        payload = frames.ping(
            key, bundle_digest=self._bundle.digest, payload_bytes=min(payload_bytes, cap_bytes - 64)
        )
        asked = Asked(gateway, frames.digest_bytes(self._bundle.digest), 0)
        try:
            future = self._pings.begin(key, size_bytes=len(payload), budget_ms=timeout_ms, context=asked)
        except NoCredit as error:
            raise LinkDown("earlier pings have not been answered") from error
        try:
            send(payload, key)
        except BaseException:
            self._pings.forget(key)
            raise
        return future

    def accept(
        self,
        payload: bytes,
        *,
        correlation: bytes | None = None,
        judged: Callable[[Outcome], None] | None = None,
    ) -> Outcome | None:
        """Take a message from the reply topic; None when it ended nothing. Never raises.

        `judged` is told before the future ends: whoever waits on it finds all of it done.
        """
        try:
            frame = wire.decode(payload)
        except WireError:
            self._count("malformed")
            return None
        header = frame.header
        if header.kind not in (Kind.REPLY, Kind.PONG) or correlation not in (None, header.request_id):
            self._count("malformed")
            return None
        if header.request_id[:BOOT_ID_BYTES] != self._boot_id:
            self._count("foreign")
            return None
        ended = self._accept_pong(frame) if header.kind is Kind.PONG else self._accept_reply(frame)
        if ended is None:
            return None
        outcome, end = ended
        if judged is not None:
            judged(outcome)
        end()
        return outcome

    def fail_all(self, error: Callable[[], OffloadError], *, gateway: str | None = None) -> None:
        """Fail what is under way: all of it, or what went to one gateway."""
        where = None if gateway is None else (lambda asked: asked.gateway == gateway)
        self._requests.fail_all(error, where=where)
        self._pings.fail_all(error, where=where)

    def sweep(self) -> tuple[str, ...]:
        """Time out what nothing can be learnt from any more; the gateways that owe an answer anew."""
        requests = [ticket.context.gateway for ticket in self._requests.sweep()]
        pings = [ticket.context.gateway for ticket in self._pings.sweep()]
        return (*requests, *pings)

    def _key(self) -> bytes:
        return self._boot_id + next(self._numbers).to_bytes(wire.REQUEST_ID_BYTES - BOOT_ID_BYTES, "big")

    def _accept_reply(self, frame: Frame) -> _Ended | None:
        header = frame.header
        ticket = self._requests.find(header.request_id)
        if isinstance(ticket, Verdict):
            self._count(ticket.value)
            return None
        asked = ticket.context
        unread = header.status is not Status.OK and header.bundle_digest == frames.UNKNOWN_DIGEST
        if header.bundle_digest != asked.digest and not unread:
            self._count("mismatched")
            return None
        now_ms = self._clock()
        elapsed_ms = now_ms - ticket.sent_ms
        if header.status is not Status.OK:
            refusal = _refusal(header)
            self._count("cancelled" if header.status is Status.CANCELLED else "refused")
            outcome = Outcome(
                Fate.REFUSED,
                asked.gateway,
                elapsed_ms,
                ticket.size_bytes,
                status=header.status,
                retry_after_ms=header.retry_after_ms,
            )
            return outcome, lambda: self._requests.fail(ticket.key, refusal)
        try:
            reply = self._reply(frame, ticket, elapsed_ms)
        except WireError as error:
            self._count("corrupt")
            corrupt = error
            outcome = Outcome(Fate.CORRUPT, asked.gateway, elapsed_ms, ticket.size_bytes)
            return outcome, lambda: self._requests.fail(ticket.key, corrupt)
        self._count("answered")
        if now_ms > ticket.deadline_ms:
            self._count("late")
        network_ms = max(0.0, elapsed_ms - reply.queue_ms - reply.compute_ms)
        outcome = Outcome(Fate.ANSWERED, asked.gateway, elapsed_ms, ticket.size_bytes, network_ms)
        return outcome, lambda: self._requests.complete(ticket.key, reply)

    def _reply(self, frame: Frame, ticket: Ticket[Asked, OffloadReply], elapsed_ms: float) -> OffloadReply:
        header, asked = frame.header, ticket.context
        output = frames.output_of(frame)
        expected = self._bundle.output_size
        if expected is not None and output.shape != (expected,):
            raise WireError(f"an output of {output.size} values, expected {expected}")
        if not asked.boundary <= header.stage_out < self._bundle.stage_count:
            raise WireError(f"an answer of exit {header.stage_out} to boundary {asked.boundary}")
        if header.queue_ms is None or header.compute_ms is None:
            raise WireError("a reply without its durations")
        return OffloadReply(
            gateway=asked.gateway,
            exit=header.stage_out,
            output=output,
            elapsed_ms=elapsed_ms,
            queue_ms=header.queue_ms,
            compute_ms=header.compute_ms,
            uplink_bytes=ticket.size_bytes,
            downlink_bytes=frame.size_bytes,
        )

    def _accept_pong(self, frame: Frame) -> _Ended | None:
        ticket = self._pings.find(frame.header.request_id)
        if isinstance(ticket, Verdict):
            self._count(ticket.value)
            return None
        elapsed_ms = self._clock() - ticket.sent_ms
        gateway = ticket.context.gateway
        pong = Pong(gateway, elapsed_ms, ticket.size_bytes)
        outcome = Outcome(Fate.PONG, gateway, elapsed_ms, ticket.size_bytes, elapsed_ms)
        return outcome, lambda: self._pings.complete(ticket.key, pong)

    def _count(self, name: str) -> None:
        with self._lock:
            self._counted[name] += 1


def _refusal(header: Header) -> OffloadError:
    """What a reply without an output says, as an error."""
    queue_ms, compute_ms = header.queue_ms, header.compute_ms
    if header.status is Status.CANCELLED:
        return OffloadCancelled(queue_ms=queue_ms or 0.0, compute_ms=compute_ms or 0.0)
    reason = header.status.reason
    return GatewayRefused(
        reason="refused" if reason is None else reason.value,
        retry_after_ms=header.retry_after_ms,
        queue_ms=queue_ms,
        compute_ms=compute_ms,
    )
