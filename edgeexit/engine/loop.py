"""The inference loop: decide; then answer, offload, wait, or run the next stage; then decide again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from threading import Event
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import TensorSpec
from edgeexit.bundle.store import Bundle
from edgeexit.decide.answer import Answer, Record
from edgeexit.decide.budget import BudgetSource
from edgeexit.decide.decision import Action, Decision, OffloadOption, Policy, Situation, Stretch
from edgeexit.decide.drift import AuditTerms
from edgeexit.decide.latency import LatencyModel
from edgeexit.decide.learner import FrameClosed, Learner, Observation, StageDone
from edgeexit.decide.link import LinkEstimator
from edgeexit.decide.spending import Spending
from edgeexit.engine.audits import Audits
from edgeexit.engine.deadline import DeadlineTimer
from edgeexit.engine.frame import Frame, OpenFrame, Spent
from edgeexit.engine.judging import Judge
from edgeexit.engine.offloads import Flight, Offloads, Tell, in_flight
from edgeexit.errors import RunnerError
from edgeexit.runner.packing import Packers
from edgeexit.runner.preprocess import input_tensors
from edgeexit.runner.protocol import Runner, Tensors
from edgeexit.transport.protocol import Clock, Transport

# A policy that waits without saying how long is asked again after this, in case a budget has shrunk.
WAIT_MS = 10.0
# Two failed sends say that a third within the same frame would hardly be in time.
OFFLOADS_PER_FRAME = 2


def _untold(observation: Observation, now_ms: float) -> None:
    """For policies that do not learn."""


@dataclass(frozen=True, slots=True)
class _Parts:
    """What every frame's journey uses."""

    runner: Runner
    policy: Policy
    latency: LatencyModel
    budgets: BudgetSource
    clock: Clock
    judge: Judge
    offloads: Offloads | None
    spending: Spending
    tell: Tell | None


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
        self._parts = _Parts(
            runner=runner,
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
        self._timer = DeadlineTimer(clock)
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
        open_frame = OpenFrame(
            frame,
            budgets=parts.budgets,
            clock=parts.clock,
            emit=self._emit,
            judge=parts.judge.judge,
            link_up=self._link_up,
            wake=self._wake,
        )
        tensors = input_tensors(frame.image, self._preprocessing, self._input)
        self._timer.watch(open_frame)
        journey = _Journey(parts, open_frame, tensors)
        answer = journey.finish()
        if self._audits is not None and self._audits.picks(answer):
            self._audits.keep(answer, journey.boundaries(), journey.bytes_left(parts.clock()))
        self._catch_up()
        return answer

    def _link_up(self) -> bool | None:
        offloads = self._parts.offloads
        return None if offloads is None else offloads.up


class _Journey:
    """One frame's way through the stages: what has been done for it, and what comes next."""

    __slots__ = ("_boundary", "_failed", "_flight", "_frame", "_input", "_may_send", "_parts", "_stages_done")

    def __init__(self, parts: _Parts, frame: OpenFrame, tensors: Tensors) -> None:
        self._parts = parts
        self._frame = frame
        self._input = tensors
        self._boundary = tensors
        self._stages_done = 0
        self._flight: Flight | None = None
        self._may_send = True
        self._failed: RunnerError | None = None

    def finish(self) -> Answer:
        """Decide and act until there is an answer."""
        frame = self._frame
        while frame.answer is None:
            decision = self._decide()
            if decision is None:
                break
            self._act(decision)
        answer = frame.answer
        if answer is None:  # nothing here could run, and nobody else answered
            raise self._failed or RunnerError("no stage could run")
        if self._parts.tell is not None:
            self._parts.tell(_closed(answer, frame.spent), answer.captured_ms + answer.latency_ms)
        return answer

    def _decide(self) -> Decision | None:
        """Ask the policy; None when a reply has closed the frame, or nothing can be done any more."""
        parts, frame = self._parts, self._frame
        began_s = perf_counter()
        now_ms = parts.clock()
        if parts.offloads is not None:
            parts.offloads.look(now_ms)
        if frame.answer is not None:
            return None
        flying = in_flight(self._flight, now_ms)
        if self._failed is not None:
            return self._without_runner(now_ms, flying is not None)
        best = frame.best
        compute, spending = parts.latency.forecast(now_ms), parts.spending
        stage_energy_mj: tuple[float, ...] = ()
        if spending.prices_energy:
            stages = range(parts.runner.stage_count)
            stage_energy_mj = spending.stage_energy_mj([compute.median_ms(each, each + 1) for each in stages])
        options, later_options = ((), ()) if flying is not None else self._options(now_ms)
        decision = parts.policy.decide(
            Situation(
                remaining_ms=frame.remaining_ms(now_ms),
                elapsed_ms=now_ms - frame.frame.captured_ms,
                stages_done=self._stages_done,
                stage_count=parts.runner.stage_count,
                evidence=None if best is None else best.evidence,
                prior_quality=parts.judge.prior_quality,
                compute=compute,
                link=None if parts.offloads is None else parts.offloads.forecast(now_ms),
                options=options,
                later_options=later_options,
                in_flight=flying,
                offloads=frame.spent.offloads,
                byte_price=spending.byte_price(now_ms),
                energy_price=spending.energy_price(now_ms),
                stage_energy_mj=stage_energy_mj,
            )
        )
        frame.spent.decision_us.append((perf_counter() - began_s) * 1e6)
        frame.spent.route.append(decision)
        return decision

    def _options(self, now_ms: float) -> tuple[tuple[OffloadOption, ...], tuple[OffloadOption, ...]]:
        parts, spent = self._parts, self._frame.spent
        if parts.offloads is None or not self._may_send or spent.offloads >= OFFLOADS_PER_FRAME:
            return (), ()
        return parts.offloads.options(self._stages_done, self.bytes_left(now_ms))

    def bytes_left(self, now_ms: float) -> int | None:
        """What the frame's budget still pays for; None where it sets no limit."""
        budget_bytes = self._parts.budgets.budget(now_ms).uplink_bytes
        return None if budget_bytes is None else budget_bytes - self._frame.spent.uplink_bytes

    def boundaries(self) -> dict[int, Tensors]:
        """What could be sent of this frame: its input, and the boundary of the last stage that ran."""
        return {0: self._input, self._stages_done: self._boundary}

    def _act(self, decision: Decision) -> None:
        """Do what was decided; whatever a policy says, a frame without an answer gets stage 0."""
        frame = self._frame
        if decision.action is Action.OFFLOAD and decision.option is not None:
            self._send(decision.option)
        elif decision.action is Action.WAIT and self._flight is not None:
            self._wait(decision.wait_ms)
        elif decision.action is Action.EXIT and frame.best is not None:
            frame.close(decision.reason)
        elif self._stages_done < self._parts.runner.stage_count:
            self._run_stages(decision.stretch)
        else:
            frame.close(decision.reason)

    def _run_stages(self, stretch: Stretch | None) -> None:
        """Run the next stage, and those after it for as long as a stretch of decisions holds.

        After a stage all that the interpreter touches comes from memory again: within a stretch as little
        as can be is done, and what exits said and how long stages took is looked at when it is over.
        """
        parts, frame = self._parts, self._frame
        ran: list[tuple[int, float, float]] = []
        began_ms = parts.clock()
        going = True
        while going:
            stage = self._stages_done
            try:
                done = parts.runner.run(stage, self._boundary)
            except RunnerError as error:
                self._failed = error
                break
            ended_ms = parts.clock()
            took_ms, began_ms = ended_ms - began_ms, ended_ms
            ran.append((stage, took_ms, ended_ms))
            self._boundary = done.boundary
            self._stages_done = stage + 1
            frame.hold(stage, done.output)
            going = stretch is not None and self._goes_on(stretch, took_ms, ended_ms, done.output)
        self._learn(ran)
        if frame.answer is None:
            # Here, so that judging is not counted as part of the decision that asks for it.
            frame.judge_held()

    def _goes_on(self, stretch: Stretch, took_ms: float, now_ms: float, output: NDArray[np.float32]) -> bool:
        """Whether the stretch holds after the stage that has ended; at its end the frame is answered."""
        parts, frame, stage = self._parts, self._frame, self._stages_done - 1
        remaining_ms = frame.remaining_ms(now_ms)
        if frame.answer is not None:
            return False
        if stage + 1 == parts.runner.stage_count:
            if remaining_ms > 0.0:
                frame.spent.route.append(stretch.last)
                frame.close(stretch.last.reason)
            return False
        if stage + 1 >= stretch.stop or took_ms > stretch.slowest_ms[stage]:
            return False
        if remaining_ms < stretch.least_ms[stage]:
            return False
        if parts.offloads is not None:
            parts.offloads.look(now_ms)
            if parts.offloads.up:
                return False
        ask_from = stretch.ask_from[stage]
        if ask_from != inf and not parts.judge.surely_below(stage, output, ask_from):
            return False
        frame.spent.route.append(stretch.then)
        return True

    def _learn(self, ran: Sequence[tuple[int, float, float]]) -> None:
        """Learn how long stages took. Shapes: ran, one of (stage, its time, when it ended) a stage."""
        parts, number = self._parts, self._frame.frame.number
        for stage, took_ms, ended_ms in ran:
            parts.latency.observe(stage, took_ms, ended_ms)
            parts.spending.ran(took_ms)
            if parts.tell is not None:
                parts.tell(StageDone(number, stage, took_ms), ended_ms)

    def _send(self, option: OffloadOption) -> None:
        parts, frame = self._parts, self._frame
        if parts.offloads is None:
            return
        tensors = self._input if option.boundary == 0 else self._boundary
        began_ms = parts.clock()
        frame.spent.begin_network(began_ms)
        self._flight = parts.offloads.send(frame, option, tensors, frame.remaining_ms(began_ms))
        frame.spent.end_network(parts.clock())
        # Refused by our own side (no credit, too large, link just lost): asking again would loop.
        self._may_send = self._flight is not None
        if self._may_send:
            parts.spending.sent(option.payload_bytes)

    def _wait(self, wait_ms: float | None) -> None:
        frame, began_ms = self._frame, self._parts.clock()
        remaining_ms = frame.remaining_ms(began_ms)
        pause_ms = min(wait_ms if wait_ms is not None else WAIT_MS, WAIT_MS, max(remaining_ms, 0.0))
        frame.spent.begin_network(began_ms)
        if frame.wake.wait(pause_ms / 1000.0):
            frame.wake.clear()
        frame.spent.end_network(self._parts.clock())

    def _without_runner(self, now_ms: float, flying: bool) -> Decision | None:
        """A stage has failed: what is in hand is the answer, else what is in flight, else nothing."""
        if self._frame.best is not None:
            return Decision(Action.EXIT, "stage-failed")
        if flying and self._frame.remaining_ms(now_ms) > 0.0:
            return Decision(Action.WAIT, "stage-failed")
        return None


def _closed(answer: Answer, spent: Spent) -> FrameClosed:
    return FrameClosed(
        answer.frame,
        answer.latency_ms,
        answer.deadline_ms,
        answer.exit,
        spent.stages_run,
        spent.offloads,
    )
