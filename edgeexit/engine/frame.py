"""One frame on its way to its one answer, shared by the loop, the deadline timer and the transport."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from threading import Event, Lock

import numpy as np
from numpy.typing import NDArray

from edgeexit.decide.answer import Answer, Output, Place
from edgeexit.decide.budget import BudgetSource, Expiry
from edgeexit.decide.decision import Decision, Evidence
from edgeexit.decide.evidence import best
from edgeexit.decide.guard import Guard, due_after_ms
from edgeexit.nouns import quickly_made

# To look for a member in its enumeration takes ten times as long as a name does.
_DEVICE = Place.DEVICE


@quickly_made
@dataclass(frozen=True, slots=True)
class Frame:
    """One image to answer.

    Units: captured_ms, the device's monotonic clock. Shapes: image (H, W) or (H, W, C), 8 bit.
    """

    number: int
    source: str
    captured_ms: float
    image: NDArray[np.uint8]


@quickly_made
@dataclass(frozen=True, slots=True)
class Finding:
    """What one exit said, here or at a gateway. Shapes: output (C,) logits."""

    evidence: Evidence
    output: NDArray[np.float32]
    place: Place


@dataclass(slots=True)
class Spent:
    """What the loop has spent on a frame so far; written by the loop's thread only."""

    stages_run: int = 0
    offloads: int = 0
    uplink_bytes: int = 0
    network_ms: float = 0.0
    """What sending and waiting for replies took while nothing was in hand, those in progress left out,"""
    network_since_ms: float | None = None
    """since when one is in progress,"""
    network_in_hand: bool = False
    """and whether there was something in hand then."""
    decision_us: list[float] = field(default_factory=list)
    route: list[Decision] = field(default_factory=list)

    def begin_network(self, now_ms: float, *, in_hand: bool) -> None:
        """Begin to send, or to wait for a reply; `in_hand` says that there is something to answer with."""
        self.network_in_hand = in_hand
        self.network_since_ms = now_ms

    def end_network(self, now_ms: float) -> None:
        """End it."""
        since_ms, self.network_since_ms = self.network_since_ms, None
        if since_ms is not None and not self.network_in_hand:
            self.network_ms += now_ms - since_ms

    def held_up_ms(self, now_ms: float, *, first_ms: float, due_ms: float) -> float:
        """How long the network can have held up an answer that is given now.

        With something in hand the timer answers at the deadline, whatever was and is sent or awaited: only a
        sending that goes on past it can keep the timer from running.
        Units: first_ms, when something came in hand; due_ms, when it was to be emitted.
        """
        since_ms = self.network_since_ms
        if since_ms is not None and self.network_in_hand:
            return max(0.0, now_ms - max(since_ms, due_ms))
        if first_ms <= due_ms:
            return 0.0
        return self.network_ms + (0.0 if since_ms is None else now_ms - since_ms)


class OpenFrame:
    """A frame without an answer yet; `close` succeeds once, whoever calls it first.

    What exits said here may be held without being judged: `judge` is asked once their evidence matters.
    `answer` is None until there is one.
    """

    __slots__ = (
        "_best",
        "_budgets",
        "_change_ms",
        "_clock",
        "_emit",
        "_expiry",
        "_first_due_ms",
        "_first_latency_ms",
        "_first_ms",
        "_guard",
        "_guard_ms",
        "_judge",
        "_latency_ms",
        "_link_up",
        "_lock",
        "_overdue",
        "_unjudged",
        "answer",
        "frame",
        "spent",
        "wake",
    )

    def __init__(
        self,
        frame: Frame,
        budgets: BudgetSource,
        clock: Callable[[], float],
        emit: Callable[[Answer], None],
        judge: Callable[[int, NDArray[np.float32]], Evidence],
        link_up: Callable[[], bool | None],
        wake: Event,
        guard: Guard,
    ) -> None:
        self.frame = frame
        # No property: it is asked for all along, and after a stage a call takes microseconds.
        self.answer: Answer | None = None
        self.spent = Spent()
        self.wake = wake
        self._budgets = budgets
        self._clock = clock
        self._emit = emit
        self._judge = judge
        self._link_up = link_up
        self._lock = Lock()
        self._best: Finding | None = None
        self._unjudged: list[tuple[int, NDArray[np.float32]]] = []
        captured_ms = frame.captured_ms
        self._guard = guard
        self._guard_ms = guard.ms(captured_ms)
        self._latency_ms = self._first_latency_ms = budgets.budget(captured_ms).latency_ms
        # Kept, because the budget of most frames never changes.
        self._first_due_ms = self._due_ms(self._latency_ms)
        self._change_ms = budgets.next_change_ms(captured_ms)
        self._expiry: Expiry | None = None
        self._overdue = False
        self._first_ms = inf

    @property
    def best(self) -> Finding | None:
        """The best finding in hand."""
        if self._unjudged:
            self.judge_held()
        return self._best

    @property
    def in_hand(self) -> bool:
        """Whether there is anything to answer with, judged or not."""
        return self._best is not None or bool(self._unjudged)

    def remaining_ms(self, now_ms: float) -> float:
        """Time left until the answer must be emitted, by the budget in force now, less the guard."""
        latency_ms = self._budgets.budget(now_ms).latency_ms
        if latency_ms == self._first_latency_ms:
            return self._first_due_ms - now_ms
        return self._due_ms(latency_ms) - now_ms

    def _due_ms(self, latency_ms: float) -> float:
        return self.frame.captured_ms + due_after_ms(latency_ms, self._guard_ms)

    def look(self, now_ms: float) -> float:
        """Answer if the deadline has come; when to look again, at the deadline or at a change of budget.

        Past the deadline with nothing in hand, the first that comes in hand is the answer.
        """
        with self._lock:
            self._follow(now_ms)
            due_ms = self._due_ms(self._latency_ms)
            self._overdue = due_ms <= now_ms
        # Where a change of the budget made it due, no timer was set for that moment.
        set_for = self._first_ms <= due_ms and self._latency_ms == self._first_latency_ms
        if self._overdue and self.close("deadline") and set_for:
            self._guard.woke(now_ms - due_ms, now_ms)
        if self.answer is not None:
            return inf
        return self._change_ms if self._overdue else min(due_ms, self._change_ms)

    def budget_changed(self, at_ms: float) -> None:
        """Note when the budget was changed, for the next look; safe in a signal handler."""
        if at_ms < self._change_ms:
            self._change_ms = at_ms

    def _follow(self, now_ms: float) -> None:
        """Follow the budget through its changes until now, the lock being held."""
        budgets = self._budgets
        while self._change_ms <= now_ms:
            at_ms = self._change_ms
            self._change_ms = budgets.next_change_ms(at_ms)
            self._becomes(at_ms, budgets.budget(at_ms).latency_ms)
        latency_ms = budgets.budget(now_ms).latency_ms
        if latency_ms != self._latency_ms:
            self._becomes(now_ms, latency_ms)

    def _becomes(self, at_ms: float, latency_ms: float) -> None:
        if self._expiry is None:
            # Made late: the budget of most frames never changes.
            self._expiry = Expiry(self.frame.captured_ms, self._latency_ms)
        self._latency_ms = latency_ms
        self._expiry.change(at_ms, latency_ms)

    def hold(self, exit_index: int, output: NDArray[np.float32], now_ms: float) -> None:
        """Count a stage that has ended here and keep what its exit said, judged when asked for.

        For the loop's thread, which alone adds to what is held: it needs no lock for that.
        Shapes: output (C,).
        """
        self.spent.stages_run += 1
        if self._best is None and not self._unjudged:
            self._first_ms = now_ms
        self._unjudged.append((exit_index, output))
        if self._overdue:
            self.close("deadline")

    def judge_held(self) -> None:
        """Judge what is held."""
        if self._unjudged:
            with self._lock:
                self._weigh_held()

    def offer(self, finding: Finding) -> None:
        """Weigh a finding against the one in hand; the better of the two stays in hand."""
        with self._lock:
            if not self.in_hand:
                self._first_ms = self._clock()
            self._weigh_held()
            self._weigh(finding)
        if self._overdue:
            self.close("deadline")

    def _weigh_held(self) -> None:
        """Weigh what is held, the lock being held too; what is added meanwhile stays held."""
        held, weighed = self._unjudged, []
        place = count = len(held)
        while place:
            place -= 1
            exit_index, output = held[place]
            finding = Finding(self._judge(exit_index, output), output, _DEVICE)
            weighed.append(finding)
            if finding.evidence.score > 0.0:
                # It replaces all that was said before it: nobody needs to know what that was.
                break
        while weighed:
            self._weigh(weighed.pop())
        del held[:count]

    def _weigh(self, finding: Finding) -> None:
        held = self._best
        if held is None:
            self._best = finding
            return
        evidence = best(held.evidence, finding.evidence)
        if evidence is finding.evidence:
            self._best = finding
        elif evidence is not held.evidence:
            # The deeper of the two said nothing: it tells only how doubtful the other one is.
            said = held if held.evidence.exit <= finding.evidence.exit else finding
            self._best = Finding(evidence, said.output, said.place)

    def close(self, reason: str) -> bool:
        """Emit the best finding as the answer; False when there is none, or it was emitted before."""
        with self._lock:
            if self.answer is not None:
                return False
            self._weigh_held()
            if self._best is None:
                return False
            answer = self.answer = self._compose(self._best, reason)
        self._emit(answer)
        if self.spent.offloads:
            # Of a frame of which nothing was sent nobody waits for a reply.
            self.wake.set()
        return True

    def _compose(self, finding: Finding, reason: str) -> Answer:
        now_ms = self._clock()
        self._follow(now_ms)
        deadline_ms, expiry = self._latency_ms, self._expiry
        if expiry is not None and expiry.over:
            # Missed before, it stays so.
            deadline_ms = min(deadline_ms, expiry.at_ms - self.frame.captured_ms)
        frame, evidence, spent = self.frame, finding.evidence, self.spent
        due_ms = self._due_ms(deadline_ms)
        # In the order of its fields: as many keywords cost as much again as making it does.
        return Answer(
            frame.number,
            frame.source,
            evidence.label,
            evidence.score,
            evidence.quality,
            Output(finding.output),
            evidence.exit,
            finding.place,
            frame.captured_ms,
            now_ms - frame.captured_ms,
            deadline_ms,
            reason,
            spent.stages_run,
            spent.offloads,
            spent.uplink_bytes,
            self._link_up(),
            tuple(spent.decision_us),
            tuple([f"{each.action._value_}:{each.reason}" for each in spent.route]),
            spent.held_up_ms(now_ms, first_ms=self._first_ms, due_ms=due_ms),
            expiry is not None and expiry.cut,
        )
