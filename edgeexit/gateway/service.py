"""The gateway without its broker: frames in, replies out, the work done by a few threads in between.

Requests are served one at a time on each worker. Bundles are lowered for one image (a batch of 1), so that
there is nothing to batch; several workers, and several gateways, are how more of them are served.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgeexit.errors import RunnerError, WireError
from edgeexit.gateway.admission import Admission, Lapsed, Refusal, Ticket, expiry_s
from edgeexit.gateway.ends import Ends, Reply
from edgeexit.gateway.loaded import LoadedBundle, LoadedBundles
from edgeexit.gateway.log import EventLog
from edgeexit.gateway.serve import Served, run_in_time
from edgeexit.gateway.service_times import ServiceTimes
from edgeexit.transport import frames, topics, wire
from edgeexit.transport.adverts import BundleAdvert
from edgeexit.transport.codecs import decode_tensors
from edgeexit.transport.status import Status
from edgeexit.transport.topics import InferTopic
from edgeexit.transport.wire import Frame, Kind

# A request without a limit, or with an absurd one, still ends: a minute is longer than any answer about an
# image is waited for, and bounds how long its id is remembered.
LONGEST_BUDGET_MS = 60_000.0
# A worker ends after the request it is in, which has had its time to finish by then; one that does not is
# left behind, so that a stage that hangs cannot keep the program from ending.
WORKER_END_S = 1.0

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class _Request:
    """An admitted request: its frame, the bundle it is for, and the way back."""

    frame: Frame
    loaded: LoadedBundle
    reply: Reply

    @property
    def stop(self) -> int:
        """One past the last stage asked for."""
        return min(self.frame.header.stage_out + 1, self.loaded.stage_count)


@dataclass(frozen=True, slots=True)
class Load:
    """How busy the gateway is, for adverts."""

    queue_depth: int
    free_slots: int
    bundles: tuple[BundleAdvert, ...]


class GatewayService:
    """Runs stages for devices, behind any transport that can hand it a frame and a way back.

    `handle` may be called from any thread and returns at once. Whatever it is given, it raises nothing,
    and `reply` is called exactly once, from that thread or a worker's.
    """

    def __init__(
        self,
        bundles: LoadedBundles,
        times: ServiceTimes,
        *,
        workers: int,
        queue_limit: int,
        clock: Clock,
        log: EventLog,
        cap_bytes: int = wire.FRAME_CAP_BYTES,
    ) -> None:
        self._bundles = bundles
        self._times = times
        self._workers = workers
        self._clock = clock
        self._log = log
        self._cap_bytes = cap_bytes
        self._admission = Admission[_Request](queue_limit=queue_limit, workers=workers)
        self._changed = threading.Condition()  # guards admission and the flag
        self._ends = Ends(log)
        self._closing = False
        self._threads: list[threading.Thread] = []

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each end was met: `answered`, `ping`, a refusal's reason, or why there was no reply."""
        return self._ends.counts

    def open(self) -> None:
        """Start the workers."""
        for index in range(self._workers):
            thread = threading.Thread(target=self._work, name=f"gateway-worker-{index}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def load(self) -> Load:
        """How busy the gateway is now, and with what it could be asked."""
        with self._changed:
            queued, running = self._admission.queued, self._admission.running
        bundles = tuple(self._bundle_advert(loaded) for loaded in self._bundles.all)
        return Load(queued, max(0, self._workers - running - queued), bundles)

    def handle(
        self,
        data: bytes,
        topic: InferTopic,
        reply: Reply,
        *,
        asker: str = "",
        correlation: bytes | None = None,
    ) -> None:
        """Take in one message.

        `asker` tells devices apart, so that none can pass for another's duplicate; `correlation` names the
        request where its frame cannot be read.
        """
        arrived_ms = self._clock()
        try:
            frame = wire.decode(data, cap_bytes=self._cap_bytes)
        except WireError as error:
            self._ends.refuse_unread(error, correlation, reply)
            return
        if frame.header.kind is Kind.PING:
            self._ends.end("ping", reply, frames.pong_to(frame.header))
            return
        if frame.header.kind is not Kind.REQUEST:
            self._ends.end("no_request", reply, None)
            return
        found = self._find(frame, topic)
        if isinstance(found, Refusal):
            self._ends.refuse(frame, found, reply)
            return
        self._admit(_Request(frame, found, reply), asker, arrived_ms)

    def drain(self, limit_s: float) -> bool:
        """Refuse new requests, and finish those taken within `limit_s`; False when some were not."""
        with self._changed:
            self._admission.drain()
            finished = self._changed.wait_for(
                lambda: not self._admission.queued and not self._admission.running, limit_s
            )
            left = self._admission.clear()
        self._turn_away(left)
        return finished

    def close(self) -> None:
        """End the workers; what still waits is refused. The bundles stay loaded."""
        self.drain(0.0)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        end_s = time.monotonic() + WORKER_END_S
        for thread in self._threads:
            thread.join(max(0.0, end_s - time.monotonic()))
        self._threads.clear()

    def _find(self, frame: Frame, topic: InferTopic) -> LoadedBundle | Refusal:
        """The bundle that a request is for, when topic, header and bundle agree."""
        header = frame.header
        digest = header.bundle_digest.hex()
        if not digest.startswith(topic.digest12) or header.stage_in != topic.stage:
            return Refusal(Status.DIGEST_MISMATCH)
        loaded = self._bundles.find(topic.digest12)
        if loaded is None:
            return Refusal(Status.UNKNOWN_BUNDLE)
        if not loaded.bundle.digest.startswith(digest):
            return Refusal(Status.DIGEST_MISMATCH)
        if not header.stage_in < loaded.stage_count or header.stage_out < header.stage_in:
            return Refusal(Status.UNKNOWN_BUNDLE)
        return loaded

    def _admit(self, request: _Request, asker: str, arrived_ms: float) -> None:
        """Queue a request, or refuse it."""
        header, digest = request.frame.header, request.loaded.bundle.digest
        budget_ms = LONGEST_BUDGET_MS if header.budget_left_ms is None else header.budget_left_ms
        now_ms = self._clock()
        first, stop = header.stage_in, request.stop
        ticket = Ticket(
            key=header.request_id + asker.encode(),
            asker=asker,
            arrived_ms=arrived_ms,
            deadline_ms=arrived_ms + min(budget_ms, LONGEST_BUDGET_MS),
            first_exit_ms=self._times.expected_ms(digest, first, first + 1, now_ms) or 0.0,
            service_ms=self._times.expected_ms(digest, first, stop, now_ms) or 0.0,
            work=request,
        )
        with self._changed:
            verdict = self._admission.offer(ticket, now_ms)
            if verdict.admitted:
                self._changed.notify()
        if verdict.refusal is not None:
            self._ends.refuse(request.frame, verdict.refusal, request.reply)
        elif not verdict.admitted:
            self._ends.end(verdict.reason, request.reply, None)

    def _work(self) -> None:
        """A worker's life: wait, serve, again."""
        while True:
            with self._changed:
                turn = self._admission.take(self._clock())
                while turn.ticket is None and not turn.lapsed:
                    if self._closing:
                        return
                    self._changed.wait()
                    turn = self._admission.take(self._clock())
            self._turn_away(turn.lapsed)
            if turn.ticket is None:
                continue
            try:
                self._serve(turn.ticket)
            except Exception as error:  # noqa: BLE001 - a worker must outlive the request that broke it
                self._log.error("worker", {"error": repr(error)})
                self._ends.refuse(turn.ticket.work.frame, Refusal(Status.FAILED), turn.ticket.work.reply)
            finally:
                with self._changed:
                    self._admission.done(turn.ticket)
                    self._changed.notify_all()

    def _serve(self, ticket: Ticket[_Request]) -> None:
        """Run one request and reply."""
        request = ticket.work
        header, loaded = request.frame.header, request.loaded
        started_ms = self._clock()
        try:
            served = self._run(ticket)
        except WireError as error:
            self._log.warning("malformed", {"why": error.why})
            self._ends.refuse(request.frame, Refusal(Status.MALFORMED), request.reply)
            return
        except RunnerError as error:
            self._log.error("stage_failed", {"bundle": loaded.bundle.short_digest, "why": str(error)})
            self._ends.refuse(request.frame, Refusal(Status.FAILED), request.reply)
            return
        now_ms = self._clock()
        if served is None:
            refusal = Refusal(Status.TOO_LATE) if now_ms < ticket.deadline_ms else None
            self._turn_away((Lapsed(ticket, refusal),))
            return
        answer = frames.reply_to(
            header,
            served.output.reshape(-1),  # (1, C) or (C,) → (C,)
            exit_index=served.exit,
            queue_ms=started_ms - ticket.arrived_ms,
            compute_ms=now_ms - started_ms,
        )
        self._ends.end("answered", request.reply, answer, expiry_s(ticket.deadline_ms - now_ms))

    def _run(self, ticket: Ticket[_Request]) -> Served | None:
        """The deepest answer in time. Raises: WireError for tensors that do not fit, RunnerError."""
        request = ticket.work
        header, loaded = request.frame.header, request.loaded
        tensors = decode_tensors(request.frame.tensors, loaded.boundary(header.stage_in).tensors)
        runner = loaded.borrow()
        if runner is None:
            raise RunnerError("bundle was unloaded while a request for it waited")
        try:
            return run_in_time(
                runner,
                loaded.bundle.digest,
                header.stage_in,
                request.stop,
                tensors,
                deadline_ms=ticket.deadline_ms,
                times=self._times,
                clock=self._clock,
            )
        finally:
            loaded.give_back(runner)

    def _turn_away(self, lapsed: tuple[Lapsed[_Request], ...]) -> None:
        """Refuse requests whose time ran out, where the device can still use the word."""
        for entry in lapsed:
            request = entry.ticket.work
            if entry.refusal is None:
                self._ends.end("expired", request.reply, None)
            else:
                self._ends.refuse(request.frame, entry.refusal, request.reply)

    def _bundle_advert(self, loaded: LoadedBundle) -> BundleAdvert:
        digest = loaded.bundle.digest
        stages = range(loaded.stage_count)
        return BundleAdvert(
            digest12=topics.digest12(digest),
            name=loaded.bundle.manifest.name,
            stages=tuple(stages),
            service_ms=tuple(self._rounded_ms(digest, stage) for stage in stages),
        )

    def _rounded_ms(self, digest: str, stage: int) -> float | None:
        """A stage's time in microseconds' precision: adverts have a cap, and nobody measures finer."""
        mean_ms = self._times.mean_ms(digest, stage)
        return None if mean_ms is None else round(mean_ms, 3)
