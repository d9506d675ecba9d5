"""Offloads of the engine: what could be sent, what is in flight, and what every reply teaches.

Replies arrive on the transport's thread. There they may close a frame, no more; the estimators learn
from them on the loop's own thread, so that they need no locks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import Manifest, Packer
from edgeexit.decide.answer import OffloadOutcome, OffloadRecord, Place
from edgeexit.decide.decision import Evidence, InFlight, LinkForecast, OffloadOption
from edgeexit.decide.learner import Failed, Observation, Pinged, Replied, Sent
from edgeexit.decide.link import LinkEstimator
from edgeexit.engine.frame import Finding, OpenFrame
from edgeexit.errors import EdgeExitError, GatewayRefused, OffloadCancelled, OffloadError, RunnerError
from edgeexit.runner.packing import Packers
from edgeexit.runner.protocol import Tensor
from edgeexit.transport.codecs import abilities_for, packer_ability
from edgeexit.transport.frames import CANCEL_BYTES
from edgeexit.transport.protocol import Clock, LinkStatus, OffloadReply, OffloadRequest, Pong, Transport
from edgeexit.transport.storage import abilities

Tell = Callable[[Observation, float], None]
"""Where a policy that learns is told what was observed, and when (ms)."""

NowAndLater = tuple[tuple[OffloadOption, ...], tuple[OffloadOption, ...]]
"""What could be sent now, and after further stages."""

# How a request ends that was taken back.
CANCELLED = "cancelled"
# Weight of the newest encode time; encoding is a copy, so its time hardly moves.
ENCODE_WEIGHT = 0.2
# Answers to "what could be sent" that are kept: budgets of bytes may give every frame a cap of its own.
OFFERED_CAP = 64


@dataclass(slots=True)
class Flight:
    """One payload on its way, and what was sent to take it back.

    Units: sent_ms and landed_ms on the device's clock; queue_ms and compute_ms, of a gateway that gave no
    reply, None where it did not say.
    """

    token: int
    frame: OpenFrame
    option: OffloadOption
    sent_ms: float
    landed_ms: float | None = None
    reply: OffloadReply | None = None
    failure: str | None = None
    end: Future[OffloadReply] | None = None
    cancel_bytes: int = 0
    queue_ms: float | None = None
    compute_ms: float | None = None

    @property
    def landed(self) -> bool:
        """Whether its end is known."""
        return self.landed_ms is not None


@dataclass(frozen=True, slots=True)
class _ProbeEnd:
    landed_ms: float
    pong: Pong | None


class Offloads:
    """Sends boundaries through a transport and keeps the link estimator informed."""

    def __init__(
        self,
        *,
        manifest: Manifest,
        digest: str,
        transport: Transport,
        link: LinkEstimator,
        judge: Callable[[int, NDArray[np.float32]], Evidence],
        clock: Clock,
        emit: Callable[[OffloadRecord], None],
        tell: Tell,
        packing: Packers | None = None,
        encode_ms: Mapping[tuple[int, str], float] | None = None,
    ) -> None:
        self._digest = digest
        self._transport = transport
        self._link = link
        self._judge = judge
        self._clock = clock
        self._emit = emit
        self._tell = tell
        self._exits = manifest.exits
        measured = {} if encode_ms is None else encode_ms
        self._options = [
            [
                OffloadOption(
                    boundary=index,
                    codec=codec.codec,
                    payload_bytes=codec.payload_bytes,
                    encode_ms=measured.get((index, codec.codec), 0.0),
                    quality_cost=codec.quality_cost,
                )
                for codec in boundary.codecs
            ]
            for index, boundary in enumerate(manifest.boundaries)
        ]
        self._encoded = set(measured)
        self._packing = packing
        self._packers: dict[tuple[int, str], Packer | None] = {
            (index, codec.codec): boundary.packer(codec.codec)
            for index, boundary in enumerate(manifest.boundaries)
            for codec in boundary.codecs
        }
        packable = frozenset() if packing is None else packing.codecs
        here = abilities() | {packer_ability(*each) for each in packable}
        self._needed: dict[tuple[int, str], frozenset[str]] = {
            (index, codec.codec): abilities_for(codec.codec, index)
            for index, boundary in enumerate(manifest.boundaries)
            for codec in boundary.codecs
        }
        # What this device cannot pack is no option, whoever is at the other end.
        self._unsendable = {each for each, needed in self._needed.items() if not needed <= here}
        # What could be sent after so many stages, under a cap, to gateways that can unpack so much: asked for
        # before every decision. Emptied when an option becomes another one.
        self._offered: dict[tuple[int, int, frozenset[str] | None], NowAndLater] = {}
        self._tokens = 0
        self._landed: deque[Flight | _ProbeEnd] = deque()
        self._unsettled: list[Flight] = []
        self._status = transport.status()
        self._told_up: bool | None = None
        self._probing = False

    @property
    def up(self) -> bool:
        """Whether the link was up when it was last looked at."""
        return self._status.up

    def look(self, now_ms: float) -> None:
        """Learn from all that has landed, and see how the link stands."""
        while self._landed:
            end = self._landed.popleft()
            if isinstance(end, Flight):
                self._learn(end)
            else:
                self._learn_probe(end)
        self._settle()
        status: LinkStatus = self._transport.status()
        if status.up is not self._told_up:
            self._told_up = status.up
            self._link.connection(status.up, now_ms)
        self._status = status

    def forecast(self, now_ms: float) -> LinkForecast:
        """What is known of the link now."""
        return self._link.forecast(now_ms)

    def options(self, stages_done: int, bytes_left: int | None) -> NowAndLater:
        """What could be sent now (the input, the boundary of the last stage), and after further stages.

        Units: bytes_left, what the budget still pays for, None where it sets no limit.
        """
        stage_count = len(self._options)
        if not self._status.up or stages_done >= stage_count:
            return (), ()
        cap_bytes = self._status.largest_payload_bytes
        if bytes_left is not None:
            cap_bytes = min(cap_bytes, bytes_left)
        asked = (stages_done, cap_bytes, self._status.abilities)
        offered = self._offered.get(asked)
        if offered is None:
            if len(self._offered) >= OFFERED_CAP:
                self._offered.clear()
            now = (0,) if stages_done == 0 else (0, stages_done)
            later = range(stages_done + 1, stage_count)
            offered = self._within(cap_bytes, now), self._within(cap_bytes, later)
            self._offered[asked] = offered
        return offered

    def _within(self, cap_bytes: int, boundaries: Iterable[int]) -> tuple[OffloadOption, ...]:
        return tuple(
            option
            for boundary in boundaries
            for option in self._options[boundary]
            if option.payload_bytes <= cap_bytes and self._may_send(option.boundary, option.codec)
        )

    def _may_send(self, boundary: int, codec: str) -> bool:
        """Whether this device can pack it, and a gateway in reach unpack it."""
        there, key = self._status.abilities, (boundary, codec)
        return key not in self._unsendable and (there is None or self._needed[key] <= there)

    def send(
        self, frame: OpenFrame, option: OffloadOption, tensors: Mapping[str, Tensor], left_ms: float
    ) -> Flight | None:
        """Send a boundary; None when it could not even be sent."""
        self._tokens += 1
        sent_ms = self._clock()
        flight = Flight(self._tokens, frame, option, sent_ms)
        packer = self._packers.get((option.boundary, option.codec))
        if packer is not None and self._packing is not None:
            try:
                tensors = self._packing.run(option.boundary, packer, tensors)
            except RunnerError:
                # A packer that fails once is not tried again.
                self._unsendable.add((option.boundary, option.codec))
                self._offered.clear()
                return None
            left_ms -= self._clock() - sent_ms
        request = OffloadRequest(
            frame=frame.frame.number,
            bundle_digest=self._digest,
            boundary=option.boundary,
            codec=option.codec,
            tensors=tensors,
            budget_left_ms=left_ms,
            round_trip_ms=self._link.least_way_ms(option, sent_ms),
        )
        # Counted before it is sent: its reply may answer the frame before `submit` has returned.
        frame.spent.offloads += 1
        frame.spent.uplink_bytes += option.payload_bytes
        try:
            future = self._transport.submit(request)
        except OffloadError:
            # Nothing left this board: there is nothing to record and nothing to learn.
            frame.spent.offloads -= 1
            frame.spent.uplink_bytes -= option.payload_bytes
            return None
        self._link.sent(flight.token, option, sent_ms)
        number = frame.frame.number
        self._tell(Sent(number, option, sent_ms - frame.frame.captured_ms), sent_ms)
        self._remember_encode_ms(option, self._clock() - sent_ms)
        self._unsettled.append(flight)
        flight.end = future
        future.add_done_callback(lambda done: self._land(flight, done))
        return flight

    def take_back(self, flight: Flight, now_ms: float, byte_price: float, bytes_left: int | None) -> int:
        """Let a gateway know that a frame is answered, where that is worth its bytes; what was sent.

        Units: byte_price, quality that a byte must buy; bytes_left, what the frame's budget still pays for.
        """
        flying = in_flight(flight, now_ms)
        if flying is None or flight.end is None or (bytes_left is not None and bytes_left < CANCEL_BYTES):
            return 0
        if self._link.worth_cancelling(flying, now_ms, cancel_bytes=CANCEL_BYTES, byte_price=byte_price):
            flight.cancel_bytes = self._transport.withdraw(flight.end)
        return flight.cancel_bytes

    def probe_if_due(self, now_ms: float) -> None:
        """Send a probe when the estimator asks for one and none is under way."""
        if self._probing or not self._status.up:
            return
        payload_bytes = self._link.wants_probe(now_ms)
        if payload_bytes is None:
            return
        try:
            future = self._transport.probe(payload_bytes)
        except OffloadError:
            self._link.probe_failed(now_ms)
            return
        self._probing = True
        future.add_done_callback(self._land_probe)

    def close(self) -> None:
        """End the transport and record how every offload ended."""
        self._transport.close()
        self.look(self._clock())

    def _land(self, flight: Flight, done: Future[OffloadReply]) -> None:
        """On the transport's thread: note the end, and answer the frame if the reply is the best there is."""
        now_ms = self._clock()
        try:
            reply = done.result()
            finding = self._finding(reply)
        except (OffloadError, CancelledError) as error:
            flight.failure = error.why or error.what if isinstance(error, EdgeExitError) else "cancelled"
            if isinstance(error, (GatewayRefused, OffloadCancelled)):
                flight.queue_ms, flight.compute_ms = error.queue_ms, error.compute_ms
        else:
            flight.reply = reply
            flight.frame.offer(finding)
            if reply.exit == len(self._exits) - 1:
                flight.frame.close("gateway")
        flight.landed_ms = now_ms
        self._landed.append(flight)
        flight.frame.wake.set()

    def _finding(self, reply: OffloadReply) -> Finding:
        output = np.asarray(reply.output, dtype=np.float32).reshape(-1)
        if not 0 <= reply.exit < len(self._exits):
            raise OffloadError("reply is refused", why=f"exit {reply.exit} does not exist")
        if output.size != self._exits[reply.exit].output.size or not np.isfinite(output).all():
            raise OffloadError("reply is refused", why="output has the wrong size or is not finite")
        return Finding(self._judge(reply.exit, output), output, Place.GATEWAY)

    def _land_probe(self, done: Future[Pong]) -> None:
        try:
            pong = done.result()
        except (OffloadError, CancelledError):
            pong = None
        self._landed.append(_ProbeEnd(self._clock(), pong))

    def _learn(self, flight: Flight) -> None:
        landed_ms = flight.landed_ms if flight.landed_ms is not None else self._clock()
        number, option, reply = flight.frame.frame.number, flight.option, flight.reply
        if reply is None:
            reason = flight.failure or "unknown"
            queue_ms, compute_ms = flight.queue_ms, flight.compute_ms
            self._link.failed(flight.token, reason, landed_ms, queue_ms=queue_ms, compute_ms=compute_ms)
            waited_ms = landed_ms - flight.sent_ms
            self._tell(Failed(number, option, waited_ms, reason, queue_ms, compute_ms), landed_ms)
            return
        whole = reply.exit == len(self._exits) - 1
        self._link.replied(
            flight.token,
            elapsed_ms=reply.elapsed_ms,
            queue_ms=reply.queue_ms,
            compute_ms=reply.compute_ms,
            downlink_bytes=reply.downlink_bytes,
            now_ms=landed_ms,
            whole=whole,
        )
        replied = Replied(
            number, option, reply.elapsed_ms, reply.queue_ms, reply.compute_ms, reply.downlink_bytes, whole
        )
        self._tell(replied, landed_ms)

    def _learn_probe(self, end: _ProbeEnd) -> None:
        self._probing = False
        if end.pong is None:
            self._link.probe_failed(end.landed_ms)
        else:
            self._link.pinged(end.pong.uplink_bytes, end.pong.elapsed_ms, end.landed_ms)
            self._tell(Pinged(end.pong.uplink_bytes, end.pong.elapsed_ms), end.landed_ms)

    def _settle(self) -> None:
        """Record the flights whose end and whose frame's end are both known."""
        still_open: list[Flight] = []
        for flight in self._unsettled:
            record = _record(flight)
            if record is None:
                still_open.append(flight)
            else:
                self._emit(record)
        self._unsettled = still_open

    def _remember_encode_ms(self, option: OffloadOption, took_ms: float) -> None:
        options = self._options[option.boundary]
        for index, known in enumerate(options):
            if known.codec == option.codec:
                key = (option.boundary, option.codec)
                before_ms = known.encode_ms if key in self._encoded else took_ms
                self._encoded.add(key)
                self._offered.clear()
                encode_ms = before_ms + ENCODE_WEIGHT * (took_ms - before_ms)
                options[index] = OffloadOption(
                    boundary=known.boundary,
                    codec=known.codec,
                    payload_bytes=known.payload_bytes,
                    encode_ms=encode_ms,
                    quality_cost=known.quality_cost,
                )


def in_flight(flight: Flight, now_ms: float) -> InFlight | None:
    """How a policy sees a payload; None once it has landed."""
    if flight.landed:
        return None
    return InFlight(option=flight.option, waited_ms=now_ms - flight.sent_ms)


def _record(flight: Flight) -> OffloadRecord | None:
    answer, reply = flight.frame.answer, flight.reply
    if flight.landed_ms is None:
        return None
    payload_bytes = reply.uplink_bytes if reply is not None else flight.option.payload_bytes
    later_bytes = flight.cancel_bytes
    if reply is None and flight.failure == CANCELLED:
        outcome, reason = OffloadOutcome.CANCELLED, CANCELLED
        if flight.queue_ms is None:
            # It never left: what its frame's answer counted was not sent.
            later_bytes, payload_bytes = -payload_bytes, 0
    elif reply is None:
        outcome, reason = OffloadOutcome.FAILED, flight.failure or "unknown"
    elif answer is None:
        return None
    elif answer.place is Place.GATEWAY and answer.exit == reply.exit:
        outcome, reason = OffloadOutcome.USED, answer.reason
    elif flight.landed_ms > answer.captured_ms + min(answer.deadline_ms, answer.latency_ms):
        by_deadline = (
            answer.reason == "deadline" or flight.landed_ms > answer.captured_ms + answer.deadline_ms
        )
        outcome = OffloadOutcome.LATE if by_deadline else OffloadOutcome.UNUSED
        reason = "after-deadline" if by_deadline else "answered-before"
    else:
        outcome, reason = OffloadOutcome.UNUSED, "deeper-in-hand"
    return OffloadRecord(
        frame=flight.frame.frame.number,
        boundary=flight.option.boundary,
        codec=flight.option.codec,
        uplink_bytes=payload_bytes + flight.cancel_bytes,
        outcome=outcome,
        reason=reason,
        elapsed_ms=flight.landed_ms - flight.sent_ms,
        queue_ms=None if reply is None else reply.queue_ms,
        compute_ms=None if reply is None else reply.compute_ms,
        gateway=None if reply is None else reply.gateway,
        later_bytes=later_bytes,
    )
