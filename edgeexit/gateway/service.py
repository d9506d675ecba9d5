"""The gateway without its broker: frames in, replies out, the work done by a few threads in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgeexit.errors import WireError
from edgeexit.gateway.ends import Ends
from edgeexit.gateway.loaded import LoadedBundle, LoadedBundles
from edgeexit.gateway.log import EventLog
from edgeexit.gateway.request import Reply, Request
from edgeexit.gateway.worker import Line, Worker
from edgeexit.transport import frames, topics, wire
from edgeexit.transport.admission import Refusal, Ticket
from edgeexit.transport.adverts import BundleAdvert
from edgeexit.transport.codecs import packer_ability
from edgeexit.transport.service_times import ServiceTimes
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
        self._line = Line(queue_limit=queue_limit, workers=workers, clock=clock)
        self._ends = Ends(log, clock)
        self._at_work: list[Worker] = []

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each end was met: `answered`, `ping`, a refusal's reason, or why there was no reply.

        `cancel` counts messages that take a request back, `cancelled` requests that ended by one.
        """
        return self._ends.counts

    def open(self) -> None:
        """Start the workers."""
        for index in range(self._workers):
            worker = Worker(
                index, self._line, ends=self._ends, times=self._times, clock=self._clock, log=self._log
            )
            self._at_work.append(worker)
            worker.start()

    def load(self) -> Load:
        """How busy the gateway is now, and with what it could be asked."""
        queued, running = self._line.lengths()
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
        if frame.header.kind is Kind.CANCEL:
            self._withdraw(frame, asker)
            self._ends.end("cancel", reply, None)
            return
        if frame.header.kind is not Kind.REQUEST:
            self._ends.end("no_request", reply, None)
            return
        found = self._find(frame, topic)
        if isinstance(found, Refusal):
            self._ends.refuse(frame, found, reply)
            return
        self._admit(Request(frame, found, reply), asker, arrived_ms)

    def drain(self, limit_s: float) -> None:
        """Refuse new requests, and finish those taken; what still waits after `limit_s` is refused too."""
        self._ends.turn_away(self._line.drain(limit_s))

    def close(self) -> None:
        """End the workers; what still waits is refused. The bundles stay loaded."""
        self.drain(0.0)
        self._line.close()
        end_s = time.monotonic() + WORKER_END_S
        for worker in self._at_work:
            worker.join(max(0.0, end_s - time.monotonic()))
        self._at_work.clear()

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

    def _admit(self, request: Request, asker: str, arrived_ms: float) -> None:
        """Queue a request, or refuse it."""
        header, digest = request.frame.header, request.loaded.bundle.digest
        asked_ms = LONGEST_BUDGET_MS if header.budget_left_ms is None else header.budget_left_ms
        budget_ms = min(asked_ms, LONGEST_BUDGET_MS)
        now_ms = self._clock()
        first_ms, all_ms = self._times.request_ms(digest, header.stage_in, request.stop, budget_ms, now_ms)
        ticket = Ticket(
            key=header.request_id + asker.encode(),
            asker=asker,
            arrived_ms=arrived_ms,
            deadline_ms=arrived_ms + budget_ms,
            first_exit_ms=first_ms,
            service_ms=all_ms,
            work=request,
        )
        verdict = self._line.offer(ticket)
        if verdict.refusal is not None:
            self._ends.refuse(request.frame, verdict.refusal, request.reply)
        elif not verdict.admitted:
            self._ends.end(verdict.reason, request.reply, None)

    def _withdraw(self, frame: Frame, asker: str) -> None:
        """Let go of a request that nobody waits for any more; of an `asker`'s own, and of nobody else's."""
        ticket = self._line.withdraw(frame.header.request_id + asker.encode())
        if ticket is not None:
            self._ends.withdrawn(ticket)

    def _bundle_advert(self, loaded: LoadedBundle) -> BundleAdvert:
        digest = loaded.bundle.digest
        stages = range(loaded.stage_count)
        return BundleAdvert(
            digest12=topics.digest12(digest),
            name=loaded.bundle.manifest.name,
            stages=tuple(stages),
            service_ms=tuple(self._rounded_ms(digest, stage) for stage in stages),
            unpacks=tuple(sorted(packer_ability(*each) for each in loaded.unpacks)),
        )

    def _rounded_ms(self, digest: str, stage: int) -> float | None:
        """A stage's time in microseconds' precision: adverts have a cap, and nobody measures finer."""
        mean_ms = self._times.mean_ms(digest, stage)
        return None if mean_ms is None else round(mean_ms, 3)
