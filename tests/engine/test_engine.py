"""The loop: always an answer, by the deadline, whatever the stages, the policy and the network do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Event, Timer

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeexit.bundle import Bundle
from edgeexit.decide.answer import Answer, Fate, OffloadOutcome, OffloadRecord, Place, Record
from edgeexit.decide.budget import Budget, BudgetSource, FixedBudget, LatestBudget
from edgeexit.decide.decision import Action, Decision, OffloadOption, Policy, Situation
from edgeexit.decide.latency import LatencyModel
from edgeexit.decide.learner import FrameClosed, Observation, Replied, Sent, StageDone
from edgeexit.decide.spending import Spending
from edgeexit.engine import Engine, Frame
from edgeexit.errors import GatewayRefused, LinkDown, NoCredit, OffloadCancelled, OffloadError, RunnerError
from edgeexit.runner.protocol import StageOutput, Tensors
from edgeexit.transport.frames import CANCEL_BYTES
from edgeexit.transport.protocol import LinkStatus, OffloadReply, OffloadRequest, Pong

# A budget that a test waits for the end of.
BUDGET_MS = 120.0
# A stage that takes this long ends after it: longer on a loaded machine, never sooner.
OVERRUN_S = 0.4
NO_HURRY = FixedBudget(Budget(60_000.0))
PATIENCE_S = 60.0
STAGES = 3


def clock_ms() -> float:
    return time.perf_counter() * 1000.0


@dataclass(slots=True)
class ScriptedRunner:
    """Answers class k at stage k; a stage may take long, fail, or end only after the frame's answer.

    `begun` is called at the beginning of the stage that waits for the answer.
    """

    seconds: Sequence[float] = (0.0, 0.0, 0.0)
    fails_at: int | None = None
    outlasts_at: int | None = None
    begun: Callable[[], None] | None = None
    answered: Event = field(default_factory=Event)
    overran: bool = False

    @property
    def stage_count(self) -> int:
        return STAGES

    def variant(self, stage: int) -> str:
        return "f32"

    def run(self, stage: int, tensors: Tensors) -> StageOutput:
        if stage == self.fails_at:
            raise RunnerError("no memory", stage=stage)
        time.sleep(self.seconds[stage])
        if stage == self.outlasts_at:
            if self.begun is not None:
                self.begun()
            self.overran = self.answered.wait(PATIENCE_S)
        output = np.zeros(3, np.float32)
        output[stage] = 4.0
        boundary = {} if stage == STAGES - 1 else {"tokens": np.zeros((1, 4, 8), np.float32)}
        return StageOutput(boundary, output)

    def close(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class ScriptedPolicy:
    """Chooses as the test says."""

    choose: Callable[[Situation], Decision]
    name: str = "scripted"
    anytime: bool = True

    def decide(self, situation: Situation) -> Decision:
        return self.choose(situation)


def deepest(situation: Situation) -> Decision:
    if situation.stages_done == situation.stage_count:
        return Decision(Action.EXIT, "last-exit")
    return Decision(Action.CONTINUE, "deeper")


def send_then_wait(situation: Situation) -> Decision:
    if situation.remaining_ms <= 0 and situation.evidence is not None:
        return Decision(Action.EXIT, "deadline")
    if situation.options and situation.offloads == 0:
        return Decision(Action.OFFLOAD, "send", option=situation.options[-1])
    if situation.stages_done == 0:
        return Decision(Action.CONTINUE, "floor")
    if situation.in_flight is not None:
        return Decision(Action.WAIT, "reply")
    return Decision(Action.EXIT, "nothing-left")


class HandTransport:
    """A transport whose replies the test sends by hand."""

    def __init__(self, on_submit: Callable[[Future[OffloadReply]], Timer | None] | OffloadError) -> None:
        self._on_submit = on_submit
        self._timers: list[Timer] = []
        self.requests: list[OffloadRequest] = []
        self.pending: list[Future[OffloadReply]] = []
        self.probes: list[Future[Pong]] = []
        self.withdrawn: list[Future[OffloadReply]] = []
        self.withdrawal: OffloadCancelled | None = None
        self.up = True

    def open(self) -> None:
        pass

    def status(self) -> LinkStatus:
        return LinkStatus(self.up, 1, len(self.pending), 0, 10_000)

    def submit(self, request: OffloadRequest) -> Future[OffloadReply]:
        if isinstance(self._on_submit, OffloadError):
            raise self._on_submit
        self.requests.append(request)
        future: Future[OffloadReply] = Future()
        self.pending.append(future)
        timer = self._on_submit(future)
        if timer is not None:
            self._timers.append(timer)
        return future

    def withdraw(self, reply: Future[OffloadReply]) -> int:
        self.withdrawn.append(reply)
        if self.withdrawal is not None:
            reply.set_exception(self.withdrawal)
        return 0 if self.withdrawal is not None and self.withdrawal.queue_ms is None else CANCEL_BYTES

    def probe(self, payload_bytes: int) -> Future[Pong]:
        future: Future[Pong] = Future()
        self.probes.append(future)
        return future

    def close(self) -> None:
        for timer in self._timers:  # as every transport does: no callback runs once it is closed
            timer.cancel()
            timer.join()
        for future in self.pending:
            if not future.done():
                future.set_exception(LinkDown("closed"))


def reply(output: Sequence[float] = (0.0, 9.0, 0.0), exit_index: int = STAGES - 1) -> OffloadReply:
    return OffloadReply(
        gateway="attic",
        exit=exit_index,
        output=np.array(output, np.float32),
        elapsed_ms=5.0,
        queue_ms=0.5,
        compute_ms=1.0,
        uplink_bytes=200,
        downlink_bytes=150,
    )


def after(seconds: float, reply_: OffloadReply) -> Callable[[Future[OffloadReply]], Timer]:
    def arrive(future: Future[OffloadReply]) -> None:
        if not future.done():
            future.set_result(reply_)

    def start(future: Future[OffloadReply]) -> Timer:
        timer = Timer(seconds, arrive, [future])
        timer.start()
        return timer

    return start


@dataclass(slots=True)
class Rig:
    """An engine and everything it emitted."""

    engine: Engine
    answered: Event
    records: list[Record] = field(default_factory=list)

    def take(self, record: Record) -> None:
        self.records.append(record)
        if isinstance(record, Answer):
            self.answered.set()

    def answers(self) -> list[Answer]:
        return [record for record in self.records if isinstance(record, Answer)]

    def offloads(self) -> list[OffloadRecord]:
        return [record for record in self.records if isinstance(record, OffloadRecord)]

    def answer(self) -> Answer:
        image = np.zeros((8, 8), np.uint8)
        return self.engine.answer(Frame(len(self.answers()), "still", clock_ms(), image))


@contextmanager
def rig(
    bundle: Bundle,
    choose: Callable[[Situation], Decision] = deepest,
    *,
    runner: ScriptedRunner | None = None,
    budgets: BudgetSource | None = None,
    transport: HandTransport | None = None,
    spending: Spending | None = None,
) -> Iterator[Rig]:
    made: list[Rig] = []
    policy: Policy = ScriptedPolicy(choose)
    runner = runner if runner is not None else ScriptedRunner()
    engine = Engine(
        bundle,
        runner,
        policy=policy,
        latency=LatencyModel([1.0] * STAGES),
        budgets=budgets if budgets is not None else NO_HURRY,
        clock=clock_ms,
        emit=lambda record: made[0].take(record),
        transport=transport,
        spending=spending,
    )
    made.append(Rig(engine, runner.answered))
    with engine:
        yield made[0]


def test_the_last_exit_answers_when_nothing_hurries(tiny_bundle: Bundle) -> None:
    with rig(tiny_bundle) as it:
        answer = it.answer()
    assert (answer.exit, answer.label, answer.place) == (2, 2, Place.DEVICE)
    assert answer.reason == "last-exit"
    assert it.answers() == [answer]
    assert [step.split(":")[0] for step in answer.route] == ["continue"] * 3 + ["exit"]


def test_an_exit_asked_for_before_any_evidence_runs_stage_0(tiny_bundle: Bundle) -> None:
    with rig(tiny_bundle, lambda _: Decision(Action.EXIT, "hurry")) as it:
        answer = it.answer()
    assert (answer.exit, answer.reason) == (0, "hurry")


def test_an_overrunning_stage_does_not_delay_the_answer(tiny_bundle: Bundle) -> None:
    runner = ScriptedRunner(outlasts_at=1)
    with rig(tiny_bundle, runner=runner, budgets=FixedBudget(Budget(BUDGET_MS))) as it:
        answer = it.answer()
    assert runner.overran
    assert (answer.exit, answer.reason) == (0, "deadline")
    assert it.answers() == [answer]


def test_a_budget_that_shrinks_while_a_stage_runs_is_kept(tiny_bundle: Bundle) -> None:
    budgets = LatestBudget(Budget(60_000.0))
    runner = ScriptedRunner(outlasts_at=1, begun=lambda: budgets.set(Budget(BUDGET_MS)))
    with rig(tiny_bundle, runner=runner, budgets=budgets) as it:
        answer = it.answer()
    assert runner.overran
    assert answer.reason == "deadline"
    assert answer.deadline_ms == BUDGET_MS


def test_a_budget_cut_to_less_than_has_passed_is_told(tiny_bundle: Bundle) -> None:
    budgets = LatestBudget(Budget(60_000.0))
    passed_s = 0.05
    runner = ScriptedRunner(
        (passed_s, 0.0, 0.0), outlasts_at=1, begun=lambda: budgets.set(Budget(passed_s * 500))
    )
    with rig(tiny_bundle, runner=runner, budgets=budgets) as it:
        answer = it.answer()
    assert runner.overran
    assert not answer.on_time
    assert answer.cut
    assert answer.fate is Fate.LATE_CUT


def test_a_budget_that_runs_out_by_itself_is_no_cut(tiny_bundle: Bundle) -> None:
    runner = ScriptedRunner(seconds=(OVERRUN_S, 0.0, 0.0))
    with rig(tiny_bundle, runner=runner, budgets=FixedBudget(Budget(OVERRUN_S * 500))) as it:
        answer = it.answer()
    assert not answer.cut
    assert answer.fate is Fate.LATE_COMPUTE


def test_time_spent_on_a_reply_that_never_comes_is_told_where_nothing_was_in_hand(
    tiny_bundle: Bundle,
) -> None:
    def wait_first(situation: Situation) -> Decision:
        if situation.in_flight is not None and situation.remaining_ms > 0:
            return Decision(Action.WAIT, "reply")
        if situation.evidence is not None:
            return Decision(Action.EXIT, "deadline")
        return send_then_wait(situation)

    transport = HandTransport(lambda _: None)
    budget = FixedBudget(Budget(OVERRUN_S * 250))
    with rig(tiny_bundle, wait_first, budgets=budget, transport=transport) as it:
        answer = it.answer()
    assert answer.network_ms is not None
    assert 0.0 < answer.network_ms <= answer.latency_ms


def test_spending_is_counted_and_priced_where_a_sensor_tells_the_power(tiny_bundle: Bundle) -> None:
    seen: list[Situation] = []

    def watch(situation: Situation) -> Decision:
        seen.append(situation)
        return deepest(situation)

    # A budget so small that the first look after a window finds it broken by far.
    spending = Spending(energy_mj_per_s=1e-3, bytes_per_s=1.0)
    spending.power(5.0)
    spending.energy_price(clock_ms() - 60_000.0)
    with rig(tiny_bundle, watch, runner=ScriptedRunner(seconds=(0.01, 0.0, 0.0)), spending=spending) as it:
        it.answer()
    assert len(seen[0].stage_energy_mj) == STAGES
    assert seen[0].energy_price == 0.0
    assert spending.energy_price(clock_ms() + 60_000.0) > 0.0


def test_a_budget_that_grows_lets_deeper_stages_run(tiny_bundle: Bundle) -> None:
    short_s = 1.0
    budgets = LatestBudget(Budget(short_s * 1000))

    def grow() -> None:
        budgets.set(Budget(60_000.0))
        assert not runner.answered.wait(short_s), "the first budget was in force"
        runner.answered.set()

    runner = ScriptedRunner(outlasts_at=1, begun=grow)
    with rig(tiny_bundle, runner=runner, budgets=budgets) as it:
        answer = it.answer()
    assert answer.exit == 2


def test_a_first_stage_that_is_too_slow_still_answers_late(tiny_bundle: Bundle) -> None:
    runner = ScriptedRunner(seconds=(OVERRUN_S, 0.0, 0.0))

    def hurried(situation: Situation) -> Decision:
        if situation.remaining_ms <= 0:
            return Decision(Action.EXIT, "deadline")
        return deepest(situation)

    with rig(tiny_bundle, hurried, runner=runner, budgets=FixedBudget(Budget(BUDGET_MS))) as it:
        answer = it.answer()
    assert answer.exit == 0
    assert not answer.on_time


def test_a_reply_answers_while_a_stage_still_runs(tiny_bundle: Bundle) -> None:
    runner = ScriptedRunner(outlasts_at=1)
    transport = HandTransport(after(0.05, reply()))

    def send_and_compute(situation: Situation) -> Decision:
        if situation.options and situation.offloads == 0:
            return Decision(Action.OFFLOAD, "send", option=situation.options[0])
        return deepest(situation)

    with rig(
        tiny_bundle,
        send_and_compute,
        runner=runner,
        transport=transport,
    ) as it:
        answer = it.answer()
    assert runner.overran
    assert (answer.place, answer.exit, answer.label, answer.reason) == (Place.GATEWAY, 2, 1, "gateway")
    assert [record.outcome for record in it.offloads()] == [OffloadOutcome.USED]
    assert transport.requests[0].bundle_digest == tiny_bundle.digest


def test_a_reply_that_never_comes_costs_nothing_but_the_bytes(tiny_bundle: Bundle) -> None:
    transport = HandTransport(lambda _future: None)
    hurried = FixedBudget(Budget(BUDGET_MS))
    with rig(tiny_bundle, send_then_wait, transport=transport, budgets=hurried) as it:
        answer = it.answer()
    assert answer.reason == "deadline"
    assert (answer.exit, answer.place, answer.offloads) == (0, Place.DEVICE, 1)
    assert [record.outcome for record in it.offloads()] == [OffloadOutcome.FAILED]


def test_a_late_reply_is_recorded_and_changes_no_answer(tiny_bundle: Bundle) -> None:
    transport = HandTransport(lambda _future: None)
    hurried = FixedBudget(Budget(BUDGET_MS))
    with rig(tiny_bundle, send_then_wait, transport=transport, budgets=hurried) as it:
        answer = it.answer()
        transport.pending[0].set_result(reply())
        it.engine.idle()
    assert it.answers() == [answer]
    assert [record.outcome for record in it.offloads()] == [OffloadOutcome.LATE]
    assert it.offloads()[0].compute_ms == 1.0


def answered_first(transport: HandTransport) -> Callable[[Future[OffloadReply]], None]:
    """Replies to the first request, so that the gateway is known; to no other."""

    def reply_once(future: Future[OffloadReply]) -> None:
        if len(transport.requests) == 1:
            future.set_result(replace(reply(), elapsed_ms=50.0, compute_ms=40.0))

    return reply_once


def cancelling(
    tiny_bundle: Bundle, end: OffloadCancelled | None, budget: Budget
) -> tuple[Rig, HandTransport]:
    transport = HandTransport(lambda _: None)
    transport._on_submit = answered_first(transport)
    transport.withdrawal = end
    with rig(tiny_bundle, send_then_wait, transport=transport, budgets=FixedBudget(budget)) as it:
        for _ in range(2):
            it.answer()
        if end is None:
            transport.pending[1].set_result(reply())
        it.engine.idle()
    return it, transport


@pytest.mark.parametrize("queue_ms", [3.0, None])
def test_a_frame_that_is_answered_takes_its_request_back(tiny_bundle: Bundle, queue_ms: float | None) -> None:
    end = OffloadCancelled(queue_ms=queue_ms, compute_ms=queue_ms)
    it, transport = cancelling(tiny_bundle, end, Budget(BUDGET_MS))
    assert transport.withdrawn == transport.pending[1:], "what was answered is not taken back"
    used, taken_back = it.offloads()
    assert (used.outcome, used.later_bytes) == (OffloadOutcome.USED, 0)
    assert (taken_back.outcome, taken_back.reason) == (OffloadOutcome.CANCELLED, "cancelled")
    answer = it.answers()[1]
    payload_bytes = answer.uplink_bytes
    assert (answer.place, answer.offloads) == (Place.DEVICE, 1)
    later_bytes = CANCEL_BYTES if queue_ms is not None else -payload_bytes
    assert taken_back.later_bytes == later_bytes
    assert taken_back.uplink_bytes == payload_bytes + later_bytes


def test_a_request_taken_back_in_vain_is_late_as_ever_and_its_bytes_count(tiny_bundle: Bundle) -> None:
    it, transport = cancelling(tiny_bundle, None, Budget(BUDGET_MS))
    assert transport.withdrawn == transport.pending[1:]
    late = it.offloads()[1]
    assert late.outcome is OffloadOutcome.LATE
    assert (late.uplink_bytes, late.later_bytes) == (reply().uplink_bytes + CANCEL_BYTES, CANCEL_BYTES)


def test_what_the_budget_does_not_pay_for_is_not_taken_back(tiny_bundle: Bundle) -> None:
    payload_bytes = tiny_bundle.manifest.boundaries[0].codecs[-1].payload_bytes
    budget = Budget(BUDGET_MS, uplink_bytes=payload_bytes + CANCEL_BYTES - 1)
    it, transport = cancelling(tiny_bundle, None, budget)
    assert len(transport.requests) == 2
    assert transport.withdrawn == []
    assert it.offloads()[1].later_bytes == 0


@pytest.mark.parametrize("error", [LinkDown("cable"), NoCredit(in_flight=2, in_flight_bytes=9)])
def test_an_offload_that_cannot_be_sent_is_not_asked_for_again(
    tiny_bundle: Bundle, error: OffloadError
) -> None:
    with rig(tiny_bundle, send_then_wait, transport=HandTransport(error)) as it:
        answer = it.answer()
    assert (answer.offloads, answer.exit) == (0, 0)
    assert it.offloads() == []


def test_a_refusal_is_recorded_with_its_reason(tiny_bundle: Bundle) -> None:
    def refuse(future: Future[OffloadReply]) -> None:
        future.set_exception(GatewayRefused(reason="busy", retry_after_ms=50))

    with rig(tiny_bundle, send_then_wait, transport=HandTransport(refuse)) as it:
        answer = it.answer()
    assert answer.place is Place.DEVICE
    assert [(record.outcome, record.reason) for record in it.offloads()] == [(OffloadOutcome.FAILED, "busy")]


@pytest.mark.parametrize(
    "hostile",
    [
        reply(output=(float("nan"), 0.0, 0.0)),
        reply(output=(1.0, 2.0)),
        reply(exit_index=7),
        reply(exit_index=-1),
    ],
)
def test_a_hostile_reply_is_a_failed_offload(tiny_bundle: Bundle, hostile: OffloadReply) -> None:
    transport = HandTransport(lambda future: future.set_result(hostile))
    with rig(tiny_bundle, send_then_wait, transport=transport) as it:
        answer = it.answer()
    assert answer.place is Place.DEVICE
    assert it.offloads()[0].outcome is OffloadOutcome.FAILED


def test_no_option_is_shown_while_the_link_is_down_or_the_bytes_are_not_granted(
    tiny_bundle: Bundle,
) -> None:
    seen: list[tuple[OffloadOption, ...]] = []

    def look(situation: Situation) -> Decision:
        seen.append(situation.options)
        return deepest(situation)

    transport = HandTransport(lambda _future: None)
    transport.up = False
    with rig(tiny_bundle, look, transport=transport) as it:
        it.answer()
    assert seen == [()] * 4
    seen.clear()
    small = FixedBudget(Budget(60_000.0, uplink_bytes=100))
    with rig(tiny_bundle, look, transport=HandTransport(lambda _future: None), budgets=small) as it:
        it.answer()
    assert all(option.payload_bytes <= 100 for options in seen for option in options)


def test_a_stage_that_fails_leaves_the_answer_in_hand(tiny_bundle: Bundle) -> None:
    with rig(tiny_bundle, runner=ScriptedRunner(fails_at=1)) as it:
        answer = it.answer()
    assert (answer.exit, answer.reason) == (0, "stage-failed")


def test_a_first_stage_that_fails_is_an_error_that_the_next_frame_survives(tiny_bundle: Bundle) -> None:
    runner = ScriptedRunner(fails_at=0)
    with rig(tiny_bundle, runner=runner) as it:
        with pytest.raises(RunnerError):
            it.answer()
        runner.fails_at = None
        assert it.answer().exit == 2


def test_a_first_stage_that_fails_can_still_be_answered_by_a_gateway(tiny_bundle: Bundle) -> None:
    transport = HandTransport(after(0.01, reply()))
    runner = ScriptedRunner(fails_at=0)
    with rig(
        tiny_bundle,
        send_then_wait,
        runner=runner,
        transport=transport,
    ) as it:
        answer = it.answer()
    assert answer.place is Place.GATEWAY


def test_probes_are_sent_between_frames(tiny_bundle: Bundle) -> None:
    transport = HandTransport(lambda _future: None)
    with rig(tiny_bundle, transport=transport) as it:
        it.engine.idle()
        assert len(transport.probes) == 1
        it.engine.idle()
        assert len(transport.probes) == 1, "one probe at a time"
        transport.probes[0].set_result(Pong("attic", 4.0, 80))
        it.engine.idle()


@dataclass(slots=True)
class LearningPolicy:
    """Sends once, then waits; keeps what it is told."""

    name: str = "learning"
    anytime: bool = True
    told: list[tuple[Observation, float]] = field(default_factory=list)

    def decide(self, situation: Situation) -> Decision:
        return send_then_wait(situation)

    def learn(self, observation: Observation, now_ms: float) -> None:
        self.told.append((observation, now_ms))


def told_of_one_frame(bundle: Bundle, transport: HandTransport) -> list[tuple[Observation, float]]:
    """What a policy that sends and waits is told of one frame."""
    policy = LearningPolicy()
    engine = Engine(
        bundle,
        ScriptedRunner(),
        policy=policy,
        latency=LatencyModel([1.0] * STAGES),
        budgets=NO_HURRY,
        clock=clock_ms,
        emit=lambda _record: None,
        transport=transport,
    )
    with engine:
        engine.answer(Frame(7, "still", clock_ms(), np.zeros((8, 8), np.uint8)))
        engine.idle()
    return policy.told


@pytest.mark.parametrize(("exit_index", "whole"), [(STAGES - 1, True), (0, False)])
def test_a_reply_of_an_early_exit_is_told_as_cut_short(
    tiny_bundle: Bundle, exit_index: int, whole: bool
) -> None:
    told = told_of_one_frame(tiny_bundle, HandTransport(after(0.0, reply(exit_index=exit_index))))
    assert [each.whole for each, _ in told if isinstance(each, Replied)] == [whole]


def test_a_policy_that_learns_is_told_what_happened_in_order(tiny_bundle: Bundle) -> None:
    told = told_of_one_frame(tiny_bundle, HandTransport(after(0.02, reply())))
    kinds = [type(observation) for observation, _ in told]
    assert kinds.count(Sent) == kinds.count(Replied) == kinds.count(FrameClosed) == 1
    assert kinds.index(Sent) < kinds.index(Replied)
    assert StageDone in kinds
    times = [at_ms for _, at_ms in told]
    assert all(at_ms > 0.0 for at_ms in times)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    moves=st.lists(st.sampled_from(list(Action)), max_size=12),
    delay_ms=st.sampled_from([0.0, 1.0, 5.0, 500.0]),
    budget_ms=st.sampled_from([5.0, 20.0, 60.0]),
    fails_at=st.sampled_from([None, None, 1, 2]),
)
def test_whatever_a_policy_does_a_frame_gets_exactly_one_answer(
    tiny_bundle: Bundle, moves: list[Action], delay_ms: float, budget_ms: float, fails_at: int | None
) -> None:
    left = list(moves)

    def erratic(situation: Situation) -> Decision:
        action = left.pop() if left else Action.CONTINUE
        option = situation.options[-1] if situation.options else None
        return Decision(action, "erratic", option=option)

    transport = HandTransport(after(delay_ms / 1000, reply()) if delay_ms < 500 else lambda _future: None)
    with rig(
        tiny_bundle,
        erratic,
        runner=ScriptedRunner(fails_at=fails_at),
        transport=transport,
        budgets=FixedBudget(Budget(budget_ms)),
    ) as it:
        answer = it.answer()
    assert it.answers() == [answer]
    # The deadline may answer between the decision to send and the sending: the record still tells.
    assert len(it.offloads()) == len(transport.requests) >= answer.offloads
