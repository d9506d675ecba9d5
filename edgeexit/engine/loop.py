"""The inference loop: one frame after the other, and what is learnt and sent between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Event

from edgeexit.bundle.manifest import TensorSpec
from edgeexit.bundle.store import Bundle
from edgeexit.decide.answer import Answer, Record
from edgeexit.decide.budget import BudgetSource
from edgeexit.decide.decision import Policy
from edgeexit.decide.drift import AuditTerms
from edgeexit.decide.guard import Guard
from edgeexit.decide.latency import LatencyModel
from edgeexit.decide.learner import Learner, Observation
from edgeexit.decide.link import LinkEstimator
from edgeexit.decide.spending import Spending
from edgeexit.engine.audits import Audits
from edgeexit.engine.deadline import DeadlineTimer
from edgeexit.engine.frame import Frame, OpenFrame
from edgeexit.engine.journey import Journey, Parts
from edgeexit.engine.judging import Judge
from edgeexit.engine.offloads import Offloads
from edgeexit.runner.packing import Packers
from edgeexit.runner.preprocess import input_tensors
from edgeexit.runner.protocol import Runner
from edgeexit.transport.protocol import Clock, Transport


def _untold(observation: Observation, now_ms: float) -> None:
    """For policies that do not learn."""


class Engine:
    """Answers frames one at a time, in the calling thread.

    `emit` receives each Answer once, and each OffloadRecord when its end is known. It is called from
    the loop's, the timer's or the transport's thread: it must be safe for that, and quick.
    `packing` makes what those codecs send that have a packer, `encode_ms` says what encoding took here, by
    boundary and codec; what it does not say is learnt.
    With `audits`, gateways finish a sample of the frames that left early, in moments without a frame.
    """

    def __init__(
        self,
        bundle: Bundle,
        runner: Runner,
        *,
        policy: Policy,
        latency: LatencyModel,
        budgets: BudgetSource,
        clock: Clock,
        emit: Callable[[Record], None],
        transport: Transport | None = None,
        link: LinkEstimator | None = None,
        spending: Spending | None = None,
        audits: AuditTerms | None = None,
        packing: Packers | None = None,
        encode_ms: Mapping[tuple[int, str], float] | None = None,
    ) -> None:
        manifest = bundle.manifest
        judge = Judge(manifest, [runner.variant(stage) for stage in range(runner.stage_count)])
        tell = policy.learn if isinstance(policy, Learner) else None
        offloads = None
        if transport is not None:
            link = LinkEstimator() if link is None else link
            offloads = Offloads(
                manifest=manifest,
                digest=bundle.digest,
                transport=transport,
                link=link,
                judge=judge.judge,
                clock=clock,
                emit=emit,
                tell=tell if tell is not None else _untold,
                packing=packing,
                encode_ms=encode_ms,
            )
        self._parts = Parts(
            runner=runner,
            stage_count=runner.stage_count,
            policy=policy,
            latency=latency,
            budgets=budgets,
            clock=clock,
            judge=judge,
            offloads=offloads,
            spending=Spending() if spending is None else spending,
            tell=tell,
        )
        self._emit = emit
        self._audits: Audits | None = None
        if transport is not None and link is not None:
            self._audits = Audits(
                manifest=manifest,
                digest=bundle.digest,
                transport=transport,
                link=link,
                clock=clock,
                emit=emit,
                tell=policy.learn if isinstance(policy, Learner) else _untold,
                terms=audits,
            )
        self._transport = transport
        self._preprocessing = manifest.preprocessing
        self._input: TensorSpec = manifest.boundaries[0].tensors[0]
        self._timer = DeadlineTimer(clock, budgets)
        self._guard = Guard()
        # One for all frames: making one costs more than a decision does. A frame that is over may wake
        # the next one's wait, which then only decides once more.
        self._wake = Event()

    def __enter__(self) -> Engine:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Start the deadline timer and the transport."""
        self._timer.open()
        if self._transport is not None:
            self._transport.open()

    def close(self) -> None:
        """Stop both; every offload still in flight is recorded as failed."""
        if self._parts.offloads is not None:
            self._parts.offloads.close()
        if self._audits is not None:
            self._audits.look()
        self._timer.close()

    def audit_by(self, terms: AuditTerms | None) -> None:
        """Audit by other terms from now on, or not at all."""
        if self._audits is not None:
            self._audits.terms = terms

    def idle(self) -> None:
        """Use a moment without a frame: learn, probe a link that was not used, send an audit that waits."""
        self._catch_up()
        self.spend_moment()

    def spend_moment(self) -> None:
        """Use a moment without a frame for the audit that waits, if one does; next to nothing if not."""
        if self._audits is not None:
            self._audits.spend_moment()

    @property
    def audits_skipped(self) -> int:
        """How many frames of the audit sample found no free moment or link."""
        return 0 if self._audits is None else self._audits.skipped

    def _catch_up(self) -> None:
        """Learn from what has landed since, and probe."""
        offloads = self._parts.offloads
        if offloads is not None:
            now_ms = self._parts.clock()
            offloads.look(now_ms)
            offloads.probe_if_due(now_ms)
        if self._audits is not None:
            self._audits.look()

    def answer(self, frame: Frame) -> Answer:
        """Answer one frame by the deadline in force, with the best there is.

        Raises: RunnerError when no stage could run and no reply came either; DataError for an image
        that does not fit the bundle's input.
        """
        parts = self._parts
        # Keywords for a class cost as much again as making it does.
        open_frame = OpenFrame(
            frame,
            parts.budgets,
            parts.clock,
            self._emit,
            parts.judge.judge,
            self._link_up,
            self._wake,
            self._guard,
        )
        tensors = input_tensors(frame.image, self._preprocessing, self._input)
        self._timer.watch(open_frame)
        journey = Journey(parts, open_frame, tensors)
        answer = journey.finish()
        self._timer.let_go()
        if self._transport is not None:
            if self._audits is not None and self._audits.picks(answer):
                self._audits.keep(answer, journey.boundaries(), journey.bytes_left(parts.clock()))
            self._catch_up()
            journey.take_back()
        return answer

    def _link_up(self) -> bool | None:
        offloads = self._parts.offloads
        return None if offloads is None else offloads.up
