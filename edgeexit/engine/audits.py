"""Audits: a few frames that left early are finished by a gateway, after their answer was given.

All but the end of a request runs in the loop's own thread, between frames: what waits is sent in a moment
without a frame, and what has landed is judged when the loop next looks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass

import numpy as np

from edgeexit.bundle.manifest import Boundary, Manifest
from edgeexit.decide.answer import Answer, OffloadOutcome, OffloadRecord
from edgeexit.decide.decision import OffloadOption
from edgeexit.decide.drift import CERTIFIED, AuditTerms
from edgeexit.decide.learner import Audited, Observation
from edgeexit.decide.link import LinkEstimator
from edgeexit.errors import EdgeExitError, GatewayRefused, OffloadError
from edgeexit.runner.protocol import Tensor, Tensors
from edgeexit.transport.codecs import abilities_for
from edgeexit.transport.protocol import Clock, OffloadReply, OffloadRequest, Transport

# A gateway gets this long for an audit: nobody waits for it, but a place in the credit window does.
PATIENCE_MS = 2000.0
# Weight of the newest interval between frames: a source changes its rate seldom.
INTERVAL_WEIGHT = 0.2


@dataclass(slots=True)
class _Waiting:
    """A frame of the sample that was answered; `payload` is None where it did not leave early.

    Units: bytes_left, what the frame's budget still pays for, None where it sets no limit.
    """

    answer: Answer
    option: OffloadOption
    payload: dict[str, Tensor] | None
    bytes_left: int | None


@dataclass(slots=True)
class _Sent:
    """An audit on its way. Units: sent_ms and landed_ms on the device's clock."""

    token: int
    answer: Answer
    option: OffloadOption
    sent_ms: float
    landed_ms: float = 0.0
    reply: OffloadReply | None = None
    failure: str = ""
    refusal: GatewayRefused | None = None


class Audits:
    """Sends the frames that the terms pick, one at a time, when it costs nobody anything.

    That is in a moment without a frame, over a link that is up, carries nothing else, and will have
    carried the payload before the next frame is due. A frame that finds no such moment before the next
    one of the sample is `skipped`. Frames that did not leave early agree with the last exit by
    themselves; they wait for such a moment too, so that neither kind is counted more readily.
    """

    __slots__ = (
        "_captured_ms",
        "_clock",
        "_digest",
        "_emit",
        "_interval_ms",
        "_landed",
        "_last_exit",
        "_link",
        "_options",
        "_output_size",
        "_sent",
        "_tell",
        "_tokens",
        "_transport",
        "_waiting",
        "skipped",
        "terms",
    )

    def __init__(
        self,
        *,
        manifest: Manifest,
        digest: str,
        transport: Transport,
        link: LinkEstimator,
        clock: Clock,
        emit: Callable[[OffloadRecord], None],
        tell: Callable[[Observation, float], None],
        terms: AuditTerms | None,
    ) -> None:
        self.terms = terms
        self.skipped = 0
        self._digest = digest
        self._transport = transport
        self._link = link
        self._clock = clock
        self._emit = emit
        self._tell = tell
        self._options = audit_options(manifest.boundaries)
        self._last_exit = manifest.stage_count - 1
        self._output_size = manifest.exits[-1].output.size
        self._captured_ms: float | None = None
        self._interval_ms: float | None = None
        self._waiting: _Waiting | None = None
        self._sent: _Sent | None = None
        self._tokens = 0
        self._landed: deque[_Sent] = deque()

    def picks(self, answer: Answer) -> bool:
        """Whether an answered frame belongs to the sample; to be asked about every one."""
        terms = self.terms
        if terms is None:
            return False
        self._pace(answer.captured_ms)
        return terms.picks(answer.frame)

    def keep(self, answer: Answer, boundaries: Mapping[int, Tensors], bytes_left: int | None) -> None:
        """Keep a frame of the sample until a moment comes; `boundaries` could be sent of it."""
        possible = [self._options[index] for index in boundaries if index < len(self._options)]
        option = min(possible, key=_payload_bytes)
        payload: dict[str, Tensor] | None = None
        if answer.reason == CERTIFIED and answer.exit < self._last_exit:
            # Whose buffers they are once the frame is over is for others to say.
            payload = {name: tensor.copy() for name, tensor in boundaries[option.boundary].items()}
        if self._waiting is not None:
            self.skipped += 1
        self._waiting = _Waiting(answer, option, payload, bytes_left)

    def look(self) -> None:
        """Judge what has landed."""
        while self._landed:
            self._judge(self._landed.popleft())

    def spend_moment(self) -> None:
        """Use a moment without a frame for the audit that waits, if it costs nobody anything now."""
        self.look()
        waiting = self._waiting
        if waiting is None or self._sent is not None:
            return
        now_ms = self._clock()
        if not self._affordable(waiting, now_ms):
            return
        self._waiting = None
        if waiting.payload is None:
            self._tell(Audited(waiting.answer.frame, agreed=True), now_ms)
        else:
            self._send(waiting, waiting.payload, now_ms)

    def _pace(self, captured_ms: float) -> None:
        """Follow the interval between frames."""
        before_ms, self._captured_ms = self._captured_ms, captured_ms
        if before_ms is None or captured_ms <= before_ms:
            return
        taken_ms, known_ms = captured_ms - before_ms, self._interval_ms
        self._interval_ms = (
            taken_ms if known_ms is None else known_ms + INTERVAL_WEIGHT * (taken_ms - known_ms)
        )

    def _affordable(self, waiting: _Waiting, now_ms: float) -> bool:
        status, size_bytes = self._transport.status(), waiting.option.payload_bytes
        paid = waiting.bytes_left is None or size_bytes <= waiting.bytes_left
        fits = paid and size_bytes <= status.largest_payload_bytes
        if not fits or not status.up or status.in_flight > 0 or not self._link.forecast(now_ms).up:
            return False
        return self._in_the_gap(size_bytes, now_ms)

    def _in_the_gap(self, size_bytes: int, now_ms: float) -> bool:
        """Whether the link is free again before the next frame may want it."""
        captured_ms, interval_ms = self._captured_ms, self._interval_ms
        if captured_ms is None or interval_ms is None:
            return True
        due_ms = captured_ms + interval_ms
        if now_ms >= due_ms + interval_ms:
            return True  # the source pauses: nobody knows when the next frame comes
        goodput_bps = self._link.goodput_bps
        transfer_ms = 0.0 if goodput_bps is None else 8000.0 * size_bytes / goodput_bps
        return now_ms + transfer_ms < due_ms

    def _send(self, waiting: _Waiting, payload: Mapping[str, Tensor], now_ms: float) -> None:
        answer, option = waiting.answer, waiting.option
        request = OffloadRequest(
            frame=answer.frame,
            bundle_digest=self._digest,
            boundary=option.boundary,
            codec=option.codec,
            tensors=payload,
            budget_left_ms=PATIENCE_MS,
        )
        # Below 0, where they never meet the tokens of the frames' own offloads.
        self._tokens -= 1
        sent = _Sent(self._tokens, answer, option, now_ms)
        try:
            future = self._transport.submit(request)
        except OffloadError:
            self.skipped += 1
            return
        self._sent = sent
        self._link.sent(sent.token, option, now_ms)
        future.add_done_callback(lambda done: self._land(sent, done))

    def _land(self, sent: _Sent, done: Future[OffloadReply]) -> None:
        """On the transport's thread: note the end, no more."""
        sent.landed_ms = self._clock()
        try:
            sent.reply = done.result()
        except (OffloadError, CancelledError) as error:
            sent.failure = (error.why or error.what) if isinstance(error, EdgeExitError) else "cancelled"
            sent.refusal = error if isinstance(error, GatewayRefused) else None
        self._landed.append(sent)

    def _judge(self, sent: _Sent) -> None:
        self._sent = None
        reply, now_ms = sent.reply, sent.landed_ms
        if reply is None:
            told = sent.refusal
            queue_ms, compute_ms = (None, None) if told is None else (told.queue_ms, told.compute_ms)
            self._link.failed(sent.token, sent.failure, now_ms, queue_ms=queue_ms, compute_ms=compute_ms)
            self._emit(_record(sent, OffloadOutcome.FAILED, f"audit: {sent.failure}"))
            return
        self._link.replied(
            sent.token,
            elapsed_ms=reply.elapsed_ms,
            queue_ms=reply.queue_ms,
            compute_ms=reply.compute_ms,
            downlink_bytes=reply.downlink_bytes,
            now_ms=now_ms,
            whole=reply.exit == self._last_exit,
        )
        self._emit(_record(sent, OffloadOutcome.UNUSED, "audit"))
        output = np.asarray(reply.output, dtype=np.float32).reshape(-1)
        sound = output.size == self._output_size and bool(np.isfinite(output).all())
        # An answer of an earlier exit says nothing of the last one; a new configuration may have no terms.
        if self.terms is not None and sound and reply.exit == self._last_exit:
            agreed = self.terms.agree(sent.answer.output, output.tolist())
            self._tell(Audited(sent.answer.frame, agreed), now_ms)


def audit_options(boundaries: Sequence[Boundary]) -> tuple[OffloadOption, ...]:
    """How each boundary is sent for an audit: the smallest codec that changes no answer.

    A codec that does would be taken for drift; where every one does, the least harmful is used. Only codecs
    that every gateway knows: an audit must not fail for want of a library there.
    """
    options: list[OffloadOption] = []
    for index, boundary in enumerate(boundaries):
        whole = [each for each in boundary.codecs if boundary.packer(each.codec) is None]
        known = [each for each in whole if not abilities_for(each.codec, index)]
        codec = min(known or whole, key=lambda each: (max(0.0, each.quality_cost), each.payload_bytes))
        options.append(
            OffloadOption(index, codec.codec, codec.payload_bytes, quality_cost=codec.quality_cost)
        )
    return tuple(options)


def _payload_bytes(option: OffloadOption) -> tuple[bool, int]:
    """Order: what changes no answer first, then by size."""
    return option.quality_cost > 0.0, option.payload_bytes


def _record(sent: _Sent, outcome: OffloadOutcome, reason: str) -> OffloadRecord:
    reply = sent.reply
    return OffloadRecord(
        frame=sent.answer.frame,
        boundary=sent.option.boundary,
        codec=sent.option.codec,
        uplink_bytes=sent.option.payload_bytes if reply is None else reply.uplink_bytes,
        outcome=outcome,
        reason=reason,
        elapsed_ms=sent.landed_ms - sent.sent_ms,
        queue_ms=None if reply is None else reply.queue_ms,
        compute_ms=None if reply is None else reply.compute_ms,
        gateway=None if reply is None else reply.gateway,
    )
