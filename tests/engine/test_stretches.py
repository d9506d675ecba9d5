"""Frames whose decisions are known beforehand: they end as if the policy had been asked after every stage."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from math import inf, nan
from threading import Event

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgeexit.bundle import Bundle
from edgeexit.decide.answer import Answer, Record
from edgeexit.decide.budget import Budget, BudgetSource, FixedBudget, ScheduleBudget
from edgeexit.decide.calibration import quality_tables
from edgeexit.decide.decision import Decision, Policy, Situation
from edgeexit.decide.guard import Guard
from edgeexit.decide.latency import LatencyModel, Slowdown
from edgeexit.decide.policies.hedged import HedgedGain
from edgeexit.decide.policies.paced import Paced
from edgeexit.engine import Engine, Frame
from edgeexit.engine.frame import OpenFrame
from edgeexit.engine.judging import Judge
from edgeexit.errors import LinkDown, RunnerError
from edgeexit.runner.protocol import StageOutput, Tensors
from edgeexit.transport.protocol import LinkStatus, OffloadReply, OffloadRequest, Pong

STAGES = 3
STAGE_MS = 10.0
# What the engine would see of a frame that is captured this much after the last one was answered.
PAUSE_MS = 5.0


@dataclass(slots=True)
class PlayedRunner:
    """Says what it was told to say, stage after stage, in a time of its own."""

    outputs: Sequence[Sequence[float]]
    took_ms: Sequence[float]
    now_ms: float = 0.0
    runs: int = 0
    fails_at: int | None = None

    @property
    def stage_count(self) -> int:
        return STAGES

    def variant(self, stage: int) -> str:
        return "f32"

    def clock(self) -> float:
        return self.now_ms

    def run(self, stage: int, tensors: Tensors) -> StageOutput:
        run, self.runs = self.runs, self.runs + 1
        if run == self.fails_at:
            raise RunnerError("no memory", stage=stage)
        self.now_ms += self.took_ms[run % len(self.took_ms)]
        boundary = {} if stage == STAGES - 1 else {"tokens": np.zeros((1, 4, 8), np.float32)}
        return StageOutput(boundary, np.array(self.outputs[run % len(self.outputs)], np.float32))

    def close(self) -> None:
        pass


@dataclass(slots=True)
class ComingLink:
    """A link that comes up at a set time; what is sent over it is lost at once."""

    clock: PlayedRunner
    up_from_ms: float
    asked: int = 0

    def open(self) -> None:
        pass

    def status(self) -> LinkStatus:
        return LinkStatus(self.clock.now_ms >= self.up_from_ms, 1, 0, 0, 10_000)

    def submit(self, request: OffloadRequest) -> Future[OffloadReply]:
        self.asked += 1
        raise LinkDown("lost")

    def withdraw(self, reply: Future[OffloadReply]) -> int:
        raise AssertionError("nothing is sent here")

    def probe(self, payload_bytes: int) -> Future[Pong]:
        return Future()

    def close(self) -> None:
        pass


@dataclass(slots=True)
class Counting:
    """Asks the policy inside, and may keep its stretches to itself."""

    inner: Policy
    stretches: bool
    asked: int = 0

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def anytime(self) -> bool:
        return self.inner.anytime

    def decide(self, situation: Situation) -> Decision:
        self.asked += 1
        decision = self.inner.decide(situation)
        return decision if self.stretches else replace(decision, stretch=None)


@dataclass(frozen=True, slots=True)
class Played:
    """What a run of frames came to."""

    answers: list[Answer]
    slowdown: Slowdown
    asked: int
    sent: int


@dataclass(frozen=True, slots=True)
class World:
    """All that a run of frames depends on."""

    bundle: Bundle
    outputs: Sequence[Sequence[float]]
    took_ms: Sequence[float] = (STAGE_MS,)
    budgets: BudgetSource = field(default_factory=lambda: FixedBudget(Budget(1000.0)))
    up_from_ms: float | None = None
    thresholds: tuple[float, ...] | None = None
    fails_at: int | None = None

    def play(self, *, stretches: bool, frames: int = 4) -> Played:
        """Answer frames one after the other, the deadline timer left out: it would need real time."""
        runner = PlayedRunner(self.outputs, self.took_ms, fails_at=self.fails_at)
        tables = quality_tables(self.bundle.manifest.exits, ["f32"] * STAGES)
        policy = Counting(HedgedGain(tables=tables, thresholds=self.thresholds), stretches)
        link = None if self.up_from_ms is None else ComingLink(runner, self.up_from_ms)
        latency = LatencyModel([STAGE_MS] * STAGES)
        records: list[Record] = []
        engine = Engine(
            self.bundle,
            runner,
            policy=Paced(policy),
            latency=latency,
            budgets=self.budgets,
            clock=runner.clock,
            emit=records.append,
            transport=link,
        )
        for number in range(frames):
            runner.now_ms += PAUSE_MS
            try:
                engine.answer(Frame(number, "still", runner.now_ms, np.zeros((8, 8), np.uint8)))
            except RunnerError:
                assert self.fails_at is not None
        answers = [replace(record, decision_us=()) for record in records if isinstance(record, Answer)]
        return Played(answers, latency.slowdown, policy.asked, 0 if link is None else link.asked)


def calibrated(
    bundle: Bundle, quality: Sequence[Sequence[Sequence[float]]], edges: Sequence[Sequence[float]]
) -> Bundle:
    """The bundle with other tables. Shapes: quality (K, bins, K - k), edges (K, bins - 1)."""
    exits = []
    for index, exit_ in enumerate(bundle.manifest.exits):
        known = exit_.calibration("f32")
        rows = quality[index]
        changed = msgspec.structs.replace(
            known,
            upper_scores=(*edges[index], 1.0),
            quality=tuple(zip(*rows, strict=True)),
            accuracy=sum(row[0] for row in rows) / len(rows),
        )
        exits.append(msgspec.structs.replace(exit_, calibrations=(changed,)))
    return replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, exits=tuple(exits)))


def growing(bundle: Bundle, sure: float = 1.0) -> Bundle:
    """Exits that promise more with depth where they are doubtful, and `sure` above a score of 0.9."""
    rows = [[[0.5 + 0.1 * deeper for deeper in range(first, STAGES)]] for first in range(STAGES)]
    rows = [[*row, [sure] * len(row[0])] for row in rows]
    return calibrated(bundle, rows, [[0.9]] * STAGES)


DOUBTFUL = (1.0, 0.0, 0.5)
SURE = (40.0, 0.0, 0.0)
SILENT = (nan, 0.0, 0.0)

fraction = st.floats(0.0, 1.0)
# Small steps meet the constants of the policy's rule: equal qualities, differences near a hundredth.
quality = st.one_of(fraction, st.sampled_from([0.0, 0.5, 0.501, 0.509, 0.511, 0.52, 0.98, 0.99, 0.995, 1.0]))
logit = st.one_of(
    st.floats(-6.0, 6.0, width=32), st.sampled_from([0.0, 1.0, 30.0, 1e4, -1e4, nan, inf, -inf])
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[list[list[float]]], list[list[float]]]:
    bins = draw(st.integers(1, 3))
    rows = [[[draw(quality) for _ in range(first, STAGES)] for _ in range(bins)] for first in range(STAGES)]
    edges = [
        sorted(draw(st.lists(fraction, min_size=bins - 1, max_size=bins - 1, unique=True)))
        for _ in range(STAGES)
    ]
    return rows, edges


took = st.one_of(
    st.floats(0.1, 60.0), st.sampled_from([STAGE_MS, STAGE_MS, 2.0 * STAGE_MS, 500.0, 0.0, 5000.0])
)
budget_ms = st.sampled_from([5.0, 40.0, 75.0, 80.0, 120.0, 300.0, 10_000.0])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    table=tables(),
    outputs=st.lists(st.tuples(logit, logit, logit), min_size=1, max_size=9),
    took_ms=st.lists(took, min_size=1, max_size=9),
    budgets_ms=st.lists(budget_ms, min_size=1, max_size=3),
    step_ms=st.floats(1.0, 50.0),
    up_from_ms=st.one_of(st.none(), st.sampled_from([0.0, 20.0, 1e9]), st.floats(0.0, 200.0)),
    thresholds=st.one_of(st.none(), st.tuples(quality, st.sampled_from([0.5, 0.9, 2.0]), st.just(0.0))),
    fails_at=st.one_of(st.none(), st.none(), st.integers(0, 11)),
)
def test_answers_and_decisions_are_the_same_with_and_without_stretches(
    tiny_bundle: Bundle,
    table: tuple[list[list[list[float]]], list[list[float]]],
    outputs: list[tuple[float, float, float]],
    took_ms: list[float],
    budgets_ms: list[float],
    step_ms: float,
    up_from_ms: float | None,
    thresholds: tuple[float, ...] | None,
    fails_at: int | None,
) -> None:
    steps = [(index * step_ms, Budget(each)) for index, each in enumerate(budgets_ms)]
    world = World(
        calibrated(tiny_bundle, *table),
        outputs,
        took_ms,
        ScheduleBudget(steps),
        up_from_ms=up_from_ms,
        thresholds=thresholds,
        fails_at=fails_at,
    )
    asked, stretched = world.play(stretches=False), world.play(stretches=True)
    assert repr(stretched.answers) == repr(asked.answers)  # repr: outputs may hold NaN
    assert stretched.slowdown == asked.slowdown
    assert stretched.sent == asked.sent
    assert stretched.asked <= asked.asked


def test_a_frame_with_time_and_no_link_asks_once(tiny_bundle: Bundle) -> None:
    world = World(growing(tiny_bundle), [DOUBTFUL])
    played = world.play(stretches=True, frames=1)
    assert played.asked == 1
    (answer,) = played.answers
    assert (answer.exit, answer.reason) == (STAGES - 1, "last-exit")
    assert answer.route == ("continue:first-answer", "continue:deeper", "continue:deeper", "exit:last-exit")


def test_a_sure_exit_ends_a_stretch_and_the_frame(tiny_bundle: Bundle) -> None:
    world = World(growing(tiny_bundle), [DOUBTFUL, SURE])
    played = world.play(stretches=True, frames=1)
    (answer,) = played.answers
    assert (answer.exit, answer.reason, played.asked) == (1, "confident", 2)


def test_an_exit_that_says_nothing_is_asked_about_where_another_answer_may_stand(
    tiny_bundle: Bundle,
) -> None:
    world = World(growing(tiny_bundle), [DOUBTFUL, SILENT, DOUBTFUL])
    played = world.play(stretches=True, frames=1)
    assert played.asked == 2
    assert played.answers[0].exit == STAGES - 1


def test_a_silent_last_exit_leaves_the_answer_of_the_one_before(tiny_bundle: Bundle) -> None:
    played = World(growing(tiny_bundle, sure=0.8), [DOUBTFUL, DOUBTFUL, SILENT]).play(
        stretches=True, frames=1
    )
    assert played.answers[0].exit == STAGES - 2


@pytest.mark.parametrize(
    "change",
    [
        {"took_ms": [STAGE_MS, 3.0 * STAGE_MS, STAGE_MS]},
        {"budgets": FixedBudget(Budget(2.0 * STAGES * STAGE_MS))},
        {"budgets": ScheduleBudget([(0.0, Budget(1000.0)), (PAUSE_MS + STAGE_MS / 2.0, Budget(45.0))])},
        {"up_from_ms": PAUSE_MS + STAGE_MS / 2.0},
    ],
    ids=["a stage stalls", "little time", "a budget is cut", "a link comes up"],
)
def test_the_policy_is_asked_again_when(tiny_bundle: Bundle, change: dict[str, object]) -> None:
    world = replace(World(growing(tiny_bundle), [DOUBTFUL]), **change)  # type: ignore[arg-type]
    assert world.play(stretches=True, frames=1).asked > 1


def test_every_answer_is_there_when_the_timer_asks_for_it(tiny_bundle: Bundle) -> None:
    """The timer closes a frame within a stretch: with the deepest exit that said something."""
    judge = Judge(growing(tiny_bundle).manifest, ["f32"] * STAGES)
    for held, expected in [([DOUBTFUL], 0), ([DOUBTFUL, SURE], 1), ([DOUBTFUL, DOUBTFUL, SILENT], 1)]:
        emitted: list[Answer] = []
        frame = OpenFrame(
            Frame(0, "still", 0.0, np.zeros((8, 8), np.uint8)),
            budgets=FixedBudget(Budget(50.0)),
            clock=lambda: 48.0,
            emit=emitted.append,
            judge=judge.judge,
            link_up=lambda: None,
            wake=Event(),
            guard=Guard(),
        )
        before = frame.in_hand
        assert not frame.close("deadline")
        for exit_, output in enumerate(held):
            frame.hold(exit_, np.array(output, np.float32), 48.0)
        assert (before, frame.in_hand) == (False, True)
        assert frame.close("deadline")
        assert [each.exit for each in emitted] == [expected]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(output=st.lists(logit, min_size=1, max_size=60), score=st.one_of(fraction, st.just(1.0 + 1e-9)))
@example(output=[30.0, -inf], score=0.9)
def test_a_glance_never_says_below_of_a_score_that_is_not(
    tiny_bundle: Bundle, output: list[float], score: float
) -> None:
    judge = Judge(tiny_bundle.manifest, ["f32"] * STAGES)
    values = np.array(output, np.float32)
    if judge.surely_below(0, values, (score,) * STAGES):
        assert 0.0 < judge.judge(0, values).score < score


def test_a_glance_tells_a_doubtful_exit(tiny_bundle: Bundle) -> None:
    judge = Judge(tiny_bundle.manifest, ["f32"] * STAGES)
    for score in (0.9, 0.8):
        assert judge.surely_below(0, np.array(DOUBTFUL, np.float32), (score,) * STAGES)
        assert not judge.surely_below(0, np.array(SURE, np.float32), (score,) * STAGES)
    # What is kept is of the scores that are asked about, not of those before.
    assert not judge.surely_below(0, np.array(DOUBTFUL, np.float32), (1e-3,) * STAGES)
