"""One frame on its way: decide; then answer, offload, wait, or run the next stage; then decide again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from edgeexit.decide.answer import Answer
from edgeexit.decide.budget import BudgetSource
from edgeexit.decide.decision import Action, Decision, OffloadOption, Policy, Situation, Stretch
from edgeexit.decide.latency import LatencyModel
from edgeexit.decide.learner import FrameClosed, StageDone
from edgeexit.decide.spending import Spending
from edgeexit.engine.frame import OpenFrame, Spent
from edgeexit.engine.judging import Judge
from edgeexit.engine.offloads import Flight, Offloads, Tell, in_flight
from edgeexit.errors import RunnerError
from edgeexit.runner.protocol import Runner, Tensors
from edgeexit.transport.protocol import Clock

# A policy that waits without saying how long is asked again after this, in case a budget has shrunk.
WAIT_MS = 10.0
# To look for a member in its enumeration takes ten times as long as a name does.
_EXIT, _OFFLOAD, _WAIT = Action.EXIT, Action.OFFLOAD, Action.WAIT
# Two failed sends say that a third within the same frame would hardly be in time.
OFFLOADS_PER_FRAME = 2


@dataclass(frozen=True, slots=True)
class Parts:
    """What the journey of every frame uses."""

    runner: Runner
    stage_count: int
    policy: Policy
    latency: LatencyModel
    budgets: BudgetSource
    clock: Clock
    judge: Judge
    offloads: Offloads | None
    spending: Spending
    tell: Tell | None


class Journey:
    """One frame's way through the stages: what has been done for it, and what comes next."""

    __slots__ = (
        "_boundary",
        "_decided_ms",
        "_failed",
        "_flight",
        "_frame",
        "_input",
        "_may_send",
        "_parts",
        "_stages_done",
    )

    def __init__(self, parts: Parts, frame: OpenFrame, tensors: Tensors) -> None:
        self._parts = parts
        self._frame = frame
        self._input = tensors
        self._boundary = tensors
        self._stages_done = 0
        self._decided_ms = 0.0
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
        now_ms = parts.clock()
        if parts.offloads is not None:
            parts.offloads.look(now_ms)
        if frame.answer is not None:
            return None
        flight = self._flight
        flying = None if flight is None else in_flight(flight, now_ms)
        if self._failed is not None:
            return self._without_runner(now_ms, flying is not None)
        best = frame.best
        compute, spending = parts.latency.forecast(now_ms), parts.spending
        stage_energy_mj: tuple[float, ...] = ()
        if spending.prices_energy:
            stages = range(parts.stage_count)
            stage_energy_mj = spending.stage_energy_mj([compute.median_ms(each, each + 1) for each in stages])
        offloads, link = parts.offloads, None
        options: tuple[OffloadOption, ...] = ()
        later_options: tuple[OffloadOption, ...] = ()
        if offloads is not None:
            link = offloads.forecast(now_ms)
            if flying is None and self._may_send and frame.spent.offloads < OFFLOADS_PER_FRAME:
                options, later_options = offloads.options(self._stages_done, self.bytes_left(now_ms))
        # In the order of its fields: as many keywords cost half as much as the decision itself.
        decision = parts.policy.decide(
            Situation(
                frame.remaining_ms(now_ms),
                now_ms - frame.frame.captured_ms,
                self._stages_done,
                parts.stage_count,
                None if best is None else best.evidence,
                parts.judge.prior_quality,
                compute,
                link,
                options,
                flying,
                frame.spent.offloads,
                spending.byte_price(now_ms),
                later_options,
                spending.energy_price(now_ms),
                stage_energy_mj,
            )
        )
        self._decided_ms = decided_ms = parts.clock()
        frame.spent.decision_us.append((decided_ms - now_ms) * 1000.0)
        frame.spent.route.append(decision)
        return decision

    def bytes_left(self, now_ms: float) -> int | None:
        """What the frame's budget still pays for; None where it sets no limit."""
        parts = self._parts
        return parts.spending.bytes_left(parts.budgets.budget(now_ms), self._frame.spent.uplink_bytes)

    def take_back(self) -> None:
        """Once the frame is answered: no gateway need go on with it, if telling it so is worth the bytes."""
        parts, flight = self._parts, self._flight
        if parts.offloads is None or flight is None or flight.landed:
            return
        now_ms, spending = parts.clock(), parts.spending
        bytes_left = self.bytes_left(now_ms)
        spending.sent(parts.offloads.take_back(flight, now_ms, spending.byte_price(now_ms), bytes_left))

    def boundaries(self) -> dict[int, Tensors]:
        """What could be sent of this frame: its input, and the boundary of the last stage that ran."""
        return {0: self._input, self._stages_done: self._boundary}

    def _act(self, decision: Decision) -> None:
        """Do what was decided; whatever a policy says, a frame without an answer gets stage 0."""
        frame = self._frame
        action = decision.action
        if action is _OFFLOAD and decision.option is not None:
            self._send(decision.option)
        elif action is _WAIT and self._flight is not None:
            self._wait(decision.wait_ms)
        elif action is _EXIT and frame.best is not None:
            frame.close(decision.reason)
        elif self._stages_done < self._parts.stage_count:
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
        # That they are to run was the last thing decided.
        began_ms = self._decided_ms
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
            frame.hold(stage, done.output, ended_ms)
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
        if stage + 1 == parts.stage_count:
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
        ask_from = stretch.ask_from
        if ask_from[stage] != inf and not parts.judge.surely_below(stage, output, ask_from):
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
        frame.spent.begin_network(began_ms, in_hand=frame.in_hand)
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
        if not frame.in_hand:
            frame.spent.begin_network(began_ms, in_hand=False)
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
