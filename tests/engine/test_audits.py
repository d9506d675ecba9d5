"""Audits of early answers: the sampled share of them, after the answer, never at a frame's cost."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeexit.bundle import Bundle
from edgeexit.decide.answer import Answer, OffloadOutcome, OffloadRecord, Record
from edgeexit.decide.budget import Budget, FixedBudget
from edgeexit.decide.drift import CERTIFIED, AuditTerms, Breach, DriftState, DriftWatch
from edgeexit.decide.latency import LatencyModel
from edgeexit.decide.link import LinkEstimator
from edgeexit.decide.policies.guarded import Guarded
from edgeexit.decide.policies.hedged import HedgedGain
from edgeexit.decide.risk import NEVER
from edgeexit.decide.spending import Spending
from edgeexit.engine import Engine, Frame
from edgeexit.runner.protocol import StageOutput, Tensors
from edgeexit.transport import frames, wire
from edgeexit.transport.codecs import decode_tensors
from edgeexit.transport.exchange import ServedBundle
from edgeexit.transport.loopback import LinkConditions, LoopbackTransport
from edgeexit.transport.status import Status

STAGES = 3
STAGE_MS = 5.0
FRAME_MS = 100.0
THRESHOLDS = (0.8, 0.8, 0.0)
# Waits end as soon as what they wait for is there; this only bounds a test that fails.
PATIENCE_S = 60.0


@dataclass(slots=True)
class VirtualClock:
    """Time that only passes when somebody lets it."""

    now_ms: float = 1000.0

    def __call__(self) -> float:
        return self.now_ms


@dataclass(slots=True)
class PixelRunner:
    """The first pixel says what early exits answer, the second what the last one does; all are sure."""

    clock: VirtualClock
    stage_count: int = STAGES

    def variant(self, stage: int) -> str:
        return "f32"

    def run(self, stage: int, tensors: Tensors) -> StageOutput:
        self.clock.now_ms += STAGE_MS
        name, tensor = next(iter(tensors.items()))
        early, last = tensor.reshape(-1)[:2]
        if name == "image":
            early, last = early * 255.0, last * 255.0
        output = np.zeros(3, np.float32)
        output[round(float(last if stage == STAGES - 1 else early))] = 20.0
        tokens = np.zeros((1, 4, 8), np.float32)
        tokens.reshape(-1)[:2] = early, last
        return StageOutput({} if stage == STAGES - 1 else {"tokens": tokens}, output)

    def close(self) -> None:
        pass


def image(early: int, last: int) -> NDArray[np.uint8]:
    pixels = np.zeros((8, 8), np.uint8)
    pixels[0, :2] = early, last
    return pixels


@dataclass(slots=True)
class Rig:
    """An engine over a loopback transport, everything it emitted, and what its gateway was asked."""

    clock: VirtualClock
    engine: Engine
    transport: LoopbackTransport
    watch: DriftWatch
    link: LinkEstimator
    records: list[Record] = field(default_factory=list)
    breaches: list[Breach] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    frames: int = 0

    @property
    def answers(self) -> list[Answer]:
        return [record for record in self.records if isinstance(record, Answer)]

    @property
    def audits(self) -> list[OffloadRecord]:
        return [record for record in self.records if isinstance(record, OffloadRecord)]

    def answer(self, early: int = 1, last: int = 1) -> Answer:
        """The next frame, at its time."""
        self.clock.now_ms = 1000.0 + self.frames * FRAME_MS
        frame = Frame(self.frames, "still", self.clock.now_ms, image(early, last))
        self.frames += 1
        return self.engine.answer(frame)

    def rest(self) -> None:
        """A moment without a frame, until nothing is under way any more."""
        until_s = time.monotonic() + PATIENCE_S
        self.engine.idle()
        while self.transport.status().in_flight > 0 or len(self.audits) < len(self.asked):
            assert time.monotonic() < until_s
            time.sleep(0.0005)
            self.engine.idle()

    def run(self, labels: Sequence[tuple[int, int]]) -> None:
        """Answer frames, with a moment after each."""
        for early, last in labels:
            self.answer(early, last)
            self.rest()


@contextmanager
def rig(
    bundle: Bundle,
    *,
    fraction: float = 1.0,
    budget: Budget | None = None,
    terms: bool = True,
    thresholds: tuple[float, ...] = THRESHOLDS,
) -> Iterator[Rig]:
    clock = VirtualClock()
    runner = PixelRunner(clock)
    specs = [boundary.tensors for boundary in bundle.manifest.boundaries]
    made: list[Rig] = []

    def serve(payload: bytes) -> bytes:
        frame = wire.decode(payload)
        stage = frame.header.stage_in
        made[0].asked.append(frame.header.frame or 0)
        tensor = next(iter(decode_tensors(frame.tensors, specs[stage]).values())).reshape(-1)
        last = float(tensor[1]) * (255.0 if stage == 0 else 1.0)
        output = np.zeros(3, np.float32)
        output[round(last)] = 5.0
        return frames.reply_to(frame.header, output, exit_index=STAGES - 1, queue_ms=0.0, compute_ms=1.0)

    transport = LoopbackTransport(serve, ServedBundle(bundle.digest, STAGES, output_size=3), clock=clock)
    watch = DriftWatch(thresholds, epsilon=0.05)
    link = LinkEstimator()
    engine = Engine(
        bundle,
        runner,
        policy=Guarded(
            lambda thresholds: HedgedGain(thresholds=thresholds),
            watch,
            lambda breach: made[0].breaches.append(breach),
        ),
        latency=LatencyModel([STAGE_MS] * STAGES),
        budgets=FixedBudget(budget if budget is not None else Budget(60_000.0, uplink_bytes=64)),
        clock=clock,
        emit=lambda record: made[0].records.append(record),
        transport=transport,
        link=link,
        # No frame is worth an offload of its own: all that is sent are audits.
        spending=Spending(byte_price=1.0),
        audits=AuditTerms(fraction) if terms else None,
    )
    made.append(Rig(clock, engine, transport, watch, link))
    with engine:
        yield made[0]


AGREEING = [(frame % 3, frame % 3) for frame in range(400)]


def test_the_sampled_share_of_early_answers_is_audited(tiny_bundle: Bundle) -> None:
    with rig(tiny_bundle, fraction=0.1) as it:
        it.run(AGREEING)
        assert all(answer.reason == CERTIFIED and answer.exit == 0 for answer in it.answers)
        picked = [frame for frame in range(len(AGREEING)) if AuditTerms(0.1).picks(frame)]
        assert it.asked == picked
        assert [record.frame for record in it.audits] == picked
        assert {(record.outcome, record.reason) for record in it.audits} == {(OffloadOutcome.UNUSED, "audit")}
        assert all(record.uplink_bytes > 0 for record in it.audits)
        assert (it.watch.status.audits, it.watch.status.disagreements) == (len(picked), 0)
        assert it.breaches == []


def test_no_answer_is_later_for_audits(tiny_bundle: Bundle) -> None:
    def latencies(*, terms: bool) -> list[tuple[float, int, int]]:
        with rig(tiny_bundle, terms=terms) as it:
            it.run(AGREEING[:50])
            assert bool(it.asked) == terms
            for record in it.audits:
                sent_after = [isinstance(each, Answer) and each.frame == record.frame for each in it.records]
                assert sent_after.index(True) < it.records.index(record), "the answer was given first"
            return [(answer.latency_ms, answer.exit, answer.offloads) for answer in it.answers]

    assert latencies(terms=True) == latencies(terms=False)


def test_an_exit_that_has_drifted_is_found_and_one_that_has_not_is_left_alone(tiny_bundle: Bundle) -> None:
    drifted = [(1, 2) if frame % 3 == 0 else (1, 1) for frame in range(60)]
    with rig(tiny_bundle) as it:
        it.run(AGREEING[:100])
        assert it.watch.state.value == DriftState.WATCHING.value
        while it.watch.state.value != DriftState.STOPPED.value:
            assert it.frames < 1000
            it.run(drifted)
        assert it.breaches[0].risk > 0.05
        firsts = [breach.thresholds[0] for breach in it.breaches]
        assert firsts == sorted(firsts)
        assert firsts[0] > THRESHOLDS[0]
        assert it.watch.thresholds == (NEVER, NEVER, 0.0)
        assert it.answer(1, 2).label == 2, "nothing leaves early any more"


def test_frames_that_do_not_leave_early_agree_without_being_sent(tiny_bundle: Bundle) -> None:
    with rig(tiny_bundle, thresholds=(NEVER, NEVER, 0.0)) as it:
        it.run([(1, 2)] * 20)
        assert {answer.exit for answer in it.answers} == {STAGES - 1}
        assert it.asked == []
        assert (it.watch.status.audits, it.watch.status.disagreements) == (20, 0)


def test_while_frames_wait_nothing_is_sent(tiny_bundle: Bundle) -> None:
    with rig(tiny_bundle) as it:
        for _ in range(20):
            it.answer()
        assert it.asked == []
        it.rest()
        assert it.asked == [19], "the newest one waits for a moment"


@pytest.mark.parametrize(
    ("budget", "sent"),
    [(Budget(60_000.0, uplink_bytes=63), 0), (Budget(60_000.0, uplink_bytes=64), 10)],
)
def test_an_audit_stays_within_the_bytes_that_the_frame_may_cost(
    tiny_bundle: Bundle, budget: Budget, sent: int
) -> None:
    with rig(tiny_bundle, budget=budget) as it:
        it.run(AGREEING[:10])
        assert len(it.asked) == sent


def test_a_slow_link_is_kept_free_for_the_next_frame(tiny_bundle: Bundle) -> None:
    with rig(tiny_bundle) as it:
        it.run(AGREEING[:3])
        it.link.connection(True, it.clock())
        for _ in range(20):  # 4096 bytes take 40 s: the 64 of an audit take 600 ms
            it.link.pinged(64, 1.0, it.clock())
            it.link.pinged(4096, 40_000.0, it.clock())
        before = len(it.asked)
        it.run(AGREEING[:3])
        assert len(it.asked) == before
        it.clock.now_ms += 3 * FRAME_MS
        it.rest()
        assert len(it.asked) == before + 1, "the source pauses: nobody is in its way"


def test_without_terms_nothing_is_audited_and_they_can_be_changed(tiny_bundle: Bundle) -> None:
    with rig(tiny_bundle, terms=False) as it:
        it.run(AGREEING[:5])
        assert it.asked == []
        it.engine.audit_by(AuditTerms(1.0))
        it.run(AGREEING[:5])
        assert len(it.asked) == 5
        it.engine.audit_by(None)
        it.run(AGREEING[:5])
        assert len(it.asked) == 5


def test_a_link_that_is_cut_costs_audits_and_nothing_else(tiny_bundle: Bundle) -> None:
    with rig(tiny_bundle) as it:
        it.run(AGREEING[:5])
        it.transport.conditions = LinkConditions(down_ms=1e9)
        it.answer(1, 2)
        it.engine.idle()
        until_s = time.monotonic() + PATIENCE_S
        while len(it.asked) < 6:
            assert time.monotonic() < until_s
            time.sleep(0.0005)
        it.transport.cut()
        it.run([(1, 2)] * 5)
        assert len(it.asked) == 6
        assert it.audits[-1].outcome is OffloadOutcome.FAILED
        assert it.audits[-1].reason.startswith("audit: ")
        assert it.watch.status.disagreements == 0
        assert all(answer.reason == CERTIFIED for answer in it.answers)


def test_a_refused_audit_says_nothing(tiny_bundle: Bundle) -> None:
    with rig(tiny_bundle) as it:
        it.transport.conditions = LinkConditions(refuse=Status.TOO_LATE)
        it.answer(1, 2)
        it.engine.idle()
        until_s = time.monotonic() + PATIENCE_S
        while not it.audits:
            assert time.monotonic() < until_s
            time.sleep(0.0005)
            it.engine.idle()
        assert [record.outcome for record in it.audits] == [OffloadOutcome.FAILED]
        assert it.watch.status.audits == 0
