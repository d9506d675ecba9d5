"""The threads that serve requests, and the line in which requests wait for them.

Requests are served one at a time on each worker. Bundles are lowered for one image (a batch of 1), so that
there is nothing to batch; several workers, and several gateways, are how more of them are served. Between
two stages a worker looks whether somebody who waits is in more of a hurry, and whether the request is still
wanted: exits are where it can be put aside.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from edgeexit.errors import RunnerError, WireError
from edgeexit.gateway.ends import Ends
from edgeexit.gateway.log import EventLog
from edgeexit.gateway.request import Request
from edgeexit.gateway.serve import Served, run_in_time
from edgeexit.transport.admission import Admission, Lapsed, Refusal, Ticket, Turn, Verdict
from edgeexit.transport.codecs import decode_tensors
from edgeexit.transport.service_times import ServiceTimes
from edgeexit.transport.status import Status

Clock = Callable[[], float]


class _BundleGone(Exception):
    """A bundle was unloaded while a request for it waited."""


class Line:
    """Admission, shared by the threads that bring requests and those that serve them."""

    def __init__(self, *, queue_limit: int, workers: int, clock: Clock) -> None:
        self._admission = Admission[Request](queue_limit=queue_limit, workers=workers)
        self._clock = clock
        self._changed = threading.Condition()
        self._closed = False

    def lengths(self) -> tuple[int, int]:
        """How many requests wait, and how many are being served."""
        with self._changed:
            return self._admission.queued, self._admission.running

    def offer(self, ticket: Ticket[Request]) -> Verdict:
        """Let a request stand in line, if it may."""
        with self._changed:
            verdict = self._admission.offer(ticket, self._clock())
            if verdict.admitted:
                self._changed.notify()
            return verdict

    def next_turn(self) -> Turn[Request] | None:
        """Wait for a request, or for some found lapsed; None when the line is closed and empty."""
        with self._changed:
            turn = self._admission.take(self._clock())
            while turn.ticket is None and not turn.lapsed:
                if self._closed:
                    return None
                self._changed.wait()
                turn = self._admission.take(self._clock())
            return turn

    def overtaken(self, ticket: Ticket[Request]) -> bool:
        """Whether somebody who waits is in more of a hurry."""
        with self._changed:
            return self._admission.overtaken(ticket)

    def done(self, ticket: Ticket[Request], rest: Ticket[Request] | None = None) -> bool:
        """A request has been served, or stands in line again with the rest of it; whether it does."""
        with self._changed:
            stands = False
            if rest is None:
                self._admission.done(ticket)
            else:
                stands = self._admission.put_back(rest)
            self._changed.notify_all()
            return stands

    def withdraw(self, key: bytes) -> Ticket[Request] | None:
        """Take a request back; what waited and does no longer. What is being served stops by itself."""
        with self._changed:
            ticket = self._admission.withdraw(key)
            self._changed.notify_all()
            return ticket

    def drain(self, limit_s: float) -> tuple[Lapsed[Request], ...]:
        """Let nobody else in and wait until all are served; who still waits after that long is given back."""
        with self._changed:
            self._admission.drain()
            self._changed.wait_for(self._is_empty, limit_s)
            return self._admission.clear()

    def close(self) -> None:
        """Let the workers go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _is_empty(self) -> bool:
        return not self._admission.queued and not self._admission.running


class Worker:
    """Serves one request after the other in a thread of its own, until the line is closed."""

    def __init__(
        self, index: int, line: Line, *, ends: Ends, times: ServiceTimes, clock: Clock, log: EventLog
    ) -> None:
        self._line = line
        self._ends = ends
        self._times = times
        self._clock = clock
        self._log = log
        self._thread = threading.Thread(target=self._work, name=f"gateway-worker-{index}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self, limit_s: float) -> None:
        """Wait for its end."""
        self._thread.join(limit_s)

    def _work(self) -> None:
        while (turn := self._line.next_turn()) is not None:
            self._ends.turn_away(turn.lapsed)
            if turn.ticket is not None:
                self._serve_unharmed(turn.ticket)

    def _serve_unharmed(self, ticket: Ticket[Request]) -> None:
        rest: Ticket[Request] | None = None
        try:
            rest = self._serve(ticket)
        except Exception as error:  # noqa: BLE001 - a worker must outlive the request that broke it
            self._log.error("worker", {"error": repr(error)})
            self._ends.refuse(ticket.work.frame, Refusal(Status.FAILED), ticket.work.reply)
        finally:
            stands = self._line.done(ticket, rest)
            if rest is not None and not stands:
                self._ends.withdrawn(rest)

    def _serve(self, ticket: Ticket[Request]) -> Ticket[Request] | None:
        """Run one request and reply; what is left of it where it makes way for another."""
        request = ticket.work
        loaded = request.loaded
        started_ms = self._clock()
        try:
            served = self._run(ticket)
        except _BundleGone:
            if not self._ends.answer(ticket):
                self._ends.refuse(request.frame, Refusal(Status.UNKNOWN_BUNDLE), request.reply)
            return None
        except WireError as error:
            self._log.warning("malformed", {"why": error.why})
            self._ends.refuse(request.frame, Refusal(Status.MALFORMED), request.reply)
            return None
        except RunnerError as error:
            self._log.error("stage_failed", {"bundle": loaded.bundle.short_digest, "why": str(error)})
            self._ends.refuse(request.frame, Refusal(Status.FAILED), request.reply)
            return None
        now_ms = self._clock()
        compute_ms = request.compute_ms + now_ms - started_ms
        reached = replace(ticket, work=replace(request, served=served, compute_ms=compute_ms))
        if served.paused:
            return self._rest(reached, served.stage, now_ms)
        if not self._ends.answer(reached):
            self._ends.turn_away((Lapsed(ticket, Refusal(Status.TOO_LATE)),))
        return None

    def _rest(self, ticket: Ticket[Request], stage: int, now_ms: float) -> Ticket[Request]:
        """The same request from a stage on."""
        request = ticket.work
        digest = request.loaded.bundle.digest
        left_ms = max(0.0, ticket.deadline_ms - now_ms)
        first_ms, all_ms = self._times.request_ms(digest, stage, request.stop, left_ms, now_ms)
        return replace(ticket, first_exit_ms=first_ms, service_ms=all_ms)

    def _run(self, ticket: Ticket[Request]) -> Served:
        """The deepest answer in time, or what was reached before a pause.

        Raises: WireError for tensors that do not fit, RunnerError; _BundleGone.
        """
        request = ticket.work
        header, loaded = request.frame.header, request.loaded
        packer = None
        begun = request.served
        if begun is None:
            names = frozenset(tensor.name for tensor in request.frame.tensors)
            packer = loaded.packer(header.stage_in, names)
            specs = loaded.boundary(header.stage_in).tensors if packer is None else packer.tensors
            begun = Served(header.stage_in, decode_tensors(request.frame.tensors, specs))
        runner = loaded.borrow()
        if runner is None:
            raise _BundleGone
        try:
            if packer is not None:
                begun = replace(begun, tensors=loaded.unpack(header.stage_in, packer, begun.tensors))
            return run_in_time(
                runner,
                loaded.bundle.digest,
                begun,
                request.stop,
                deadline_ms=ticket.deadline_ms,
                times=self._times,
                clock=self._clock,
                overtaken=lambda: self._line.overtaken(ticket),
            )
        finally:
            loaded.give_back(runner)
