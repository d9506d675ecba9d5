"""Whatever the situation, every policy chooses something that can be done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import exp

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeexit.bundle.manifest import Calibration
from edgeexit.decide.calibration import QualityTable
from edgeexit.decide.decision import Action, Evidence, InFlight, OffloadOption, Policy, Situation
from edgeexit.decide.learner import (
    Failed,
    FrameClosed,
    Learner,
    Observation,
    Pinged,
    Replied,
    Sent,
    StageDone,
)
from edgeexit.decide.policies.alert import Alert
from edgeexit.decide.policies.ans import AutodidacticSurgeon
from edgeexit.decide.policies.edgent import Edgent
from edgeexit.decide.policies.fallback import WithFallback
from edgeexit.decide.policies.fixed import AlwaysOffload, StaticThreshold
from edgeexit.decide.policies.hedged import HedgedGain
from edgeexit.decide.policies.hindsight import Sending, StaticRule
from edgeexit.decide.policies.local import AlwaysLocal, AnytimeLocal, FirstExit
from edgeexit.decide.policies.network_profile import NetworkProfile
from edgeexit.decide.policies.neurosurgeon import Neurosurgeon
from edgeexit.decide.policies.paced import Paced
from edgeexit.decide.policies.spinn import Design, Spinn

K = 4
ACCURACY = (0.58, 0.70, 0.77, 0.80)
PAYLOADS = (
    OffloadOption(0, "u8", 15_000),
    OffloadOption(1, "int8", 9_000),
    None,
    OffloadOption(3, "int8", 37_000),
)
PROFILE = NetworkProfile((50.0,) * K, (2.0,) * K, ACCURACY, PAYLOADS, (1e9,) * K)
DESIGNS = tuple(
    Design(cut, threshold, 0.7, (1.0,) * K, 1.0) for cut in (0, 1, 3, 4) for threshold in (0.5, 0.9, 2.0)
)


@dataclass(frozen=True, slots=True)
class Compute:
    """Stages of one length, with a logistic spread."""

    stage_ms: float
    spread_ms: float

    def probability_within(self, first: int, stop: int, limit_ms: float) -> float:
        if stop <= first:
            return 1.0
        if limit_ms <= 0.0:
            return 0.0
        exponent = (self.stage_ms * (stop - first) - limit_ms) / self.spread_ms
        return 1.0 / (1.0 + exp(max(-500.0, min(500.0, exponent))))

    def median_ms(self, first: int, stop: int) -> float:
        return self.stage_ms * (stop - first)


@dataclass(frozen=True, slots=True)
class Link:
    """A link of one goodput, up or down."""

    up: bool
    rtt_ms: float
    bytes_per_ms: float

    def probability_within(self, option: OffloadOption, limit_ms: float) -> float:
        if not self.up or limit_ms <= 0.0:
            return 0.0
        median = self.rtt_ms + option.payload_bytes / self.bytes_per_ms
        return limit_ms * limit_ms / (limit_ms * limit_ms + median * median)

    def reply_probability(self, in_flight: InFlight, limit_ms: float) -> float:
        return self.probability_within(in_flight.option, limit_ms)

    def median_ms(self, option: OffloadOption) -> float | None:
        return self.rtt_ms + option.payload_bytes / self.bytes_per_ms

    def request_price(self, option: OffloadOption) -> float:
        return 0.0


def tables() -> tuple[QualityTable, ...]:
    edges = (0.3, 0.5, 0.7, 0.9, 1.0)
    return tuple(
        QualityTable(
            exit_,
            Calibration(
                variant="f32",
                temperature=1.0,
                upper_scores=edges,
                quality=tuple(
                    tuple(min(1.0, edge * ACCURACY[exit_] + 0.05 * (deeper - exit_)) for edge in edges)
                    for deeper in range(exit_, K)
                ),
                accuracy=ACCURACY[exit_],
                samples=500,
            ),
        )
        for exit_ in range(K)
    )


MAKERS: dict[str, Callable[[], Policy]] = {
    "hedged-gain": lambda: HedgedGain(tables=tables()),
    "hedged-gain, certified": lambda: HedgedGain(tables=tables(), thresholds=(0.9, 0.9, 0.9, 0.0)),
    "hedged-gain, no tables": lambda: HedgedGain(),
    "paced": lambda: Paced(HedgedGain(tables=tables())),
    "anytime-local": AnytimeLocal,
    "always-local": AlwaysLocal,
    "first-exit": FirstExit,
    "always-offload": AlwaysOffload,
    "static-threshold": lambda: StaticThreshold(0.8),
    "static-threshold-send": lambda: StaticThreshold(0.8, local_stages=1),
    "static-rule": lambda: StaticRule(3, 0.8, Sending.DOUBTFUL, 1),
    "neurosurgeon": lambda: Neurosurgeon(PROFILE),
    "edgent-static": lambda: Edgent(PROFILE),
    "edgent-dynamic": lambda: Edgent(PROFILE, dynamic=True),
    "spinn": lambda: Spinn(PROFILE, DESIGNS),
    "alert-anytime": lambda: Alert(PROFILE),
    "alert-classic": lambda: Alert(PROFILE, anytime=False),
    "ans": lambda: AutodidacticSurgeon(PROFILE),
}
ANYTIME = ("hedged-gain", "hedged-gain, certified", "hedged-gain, no tables", "paced", "anytime-local")

fraction = st.floats(0.0, 1.0)


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    done = draw(st.integers(0, K))
    evidence = None
    if done:
        quality = tuple(draw(st.lists(fraction, min_size=K, max_size=K)))
        evidence = Evidence(done - 1, draw(fraction), 3, quality)
    up = draw(st.booleans())
    link = None
    if draw(st.booleans()):
        link = Link(up, draw(st.floats(0.1, 1000.0)), draw(st.floats(0.1, 1e5)))
    options = tuple(
        option for option in PAYLOADS if option is not None and option.boundary in (0, done) and done < K
    )
    if link is None or draw(st.booleans()):
        options = ()
    later = tuple(option for option in PAYLOADS if option is not None and option.boundary > done)
    in_flight = None
    if link is not None and draw(st.booleans()):
        in_flight = InFlight(OffloadOption(0, "u8", 15_000), draw(st.floats(0.0, 1e4)))
    return Situation(
        remaining_ms=draw(st.floats(-1e4, 1e4)),
        elapsed_ms=draw(st.floats(0.0, 1e4)),
        stages_done=done,
        stage_count=K,
        evidence=evidence,
        prior_quality=ACCURACY,
        compute=Compute(draw(st.floats(0.1, 1000.0)), draw(st.floats(0.01, 100.0))),
        link=link,
        options=options,
        in_flight=in_flight,
        offloads=draw(st.integers(0, 2)) if in_flight is None else 1,
        byte_price=draw(st.sampled_from([0.0, 1e-7, 1e-5, 1.0])),
        later_options=later,
        energy_price=draw(st.sampled_from([0.0, 1e-4, 1.0])),
        stage_energy_mj=draw(st.sampled_from([(), (100.0,) * K])),
        time_price=draw(st.sampled_from([0.0, 1e-3, 1.0])),
    )


def check(policy: Policy, situation: Situation) -> None:
    decision = policy.decide(situation)
    assert decision.reason
    assert " " not in decision.reason
    if decision.action is Action.OFFLOAD:
        assert situation.link is not None
        assert situation.link.up
        assert decision.option in situation.options
        assert situation.in_flight is None, "one payload of a frame at a time"
    else:
        assert decision.option is None
    if decision.action is Action.WAIT:
        assert situation.in_flight is not None, "there must be something to wait for"
        assert decision.wait_ms is None or decision.wait_ms >= 0.0
    if decision.action is Action.CONTINUE:
        assert situation.stages_done < situation.stage_count


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=40)
@given(situation=situations())
def test_every_choice_can_be_done(name: str, situation: Situation) -> None:
    check(MAKERS[name](), situation)
    check(WithFallback(MAKERS[name]()), situation)


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=40)
@given(situation=situations())
def test_with_fallback_a_spent_budget_ends_the_frame(name: str, situation: Situation) -> None:
    late = replace(situation, remaining_ms=-abs(situation.remaining_ms))
    policies: list[Policy] = [WithFallback(MAKERS[name]())]
    if name in ANYTIME:
        policies.append(MAKERS[name]())
    for policy in policies:
        action = policy.decide(late).action
        if late.evidence is not None:
            assert action is Action.EXIT
        elif name in ANYTIME:
            assert action is Action.CONTINUE, "the first answer is always computed"


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=40)
@given(situation=situations())
def test_the_same_policy_told_the_same_chooses_the_same(name: str, situation: Situation) -> None:
    assert MAKERS[name]().decide(situation) == MAKERS[name]().decide(situation)


amount = st.floats(0.0, 1e6)
option_sent = st.sampled_from([option for option in PAYLOADS if option is not None])
observations: st.SearchStrategy[Observation] = st.one_of(
    st.builds(StageDone, st.just(1), st.integers(0, K - 1), amount),
    st.builds(Sent, st.just(1), option_sent, amount),
    st.builds(Replied, st.just(1), option_sent, amount, amount, amount, st.just(200)),
    st.builds(Failed, st.just(1), option_sent, amount, st.just("timeout")),
    st.builds(Pinged, st.integers(0, 10**6), amount),
    st.builds(FrameClosed, st.just(1), st.none() | amount, st.just(100.0), st.none(), st.just(1), st.just(0)),
)


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=40)
@given(told=st.lists(observations, max_size=30), shown=st.lists(situations(), min_size=1, max_size=5))
def test_learners_stay_legal_whatever_they_are_told(
    name: str, told: list[Observation], shown: list[Situation]
) -> None:
    policy = MAKERS[name]()
    if isinstance(policy, Learner):
        for index, observation in enumerate(told):
            policy.learn(observation, float(index))
    for situation in shown:
        check(policy, situation)


@pytest.mark.parametrize("name", ["hedged-gain", "anytime-local"])
@settings(max_examples=40)
@given(situation=situations(), share=st.floats(0.05, 0.95))
def test_a_smaller_budget_never_gives_a_deeper_exit(name: str, situation: Situation, share: float) -> None:
    """Played to the end on the forecast's medians, the exit taken does not rise when the budget shrinks."""
    local = replace(
        situation,
        remaining_ms=abs(situation.remaining_ms) + 1.0,
        stages_done=0,
        evidence=None,
        link=None,
        options=(),
        in_flight=None,
    )

    def exit_taken(budget_ms: float) -> int:
        policy = MAKERS[name]()
        quality = situation.evidence.expected_quality if situation.evidence is not None else ACCURACY
        now = replace(local, remaining_ms=budget_ms)
        while policy.decide(now).action is Action.CONTINUE:
            done = now.stages_done + 1
            now = replace(
                now,
                stages_done=done,
                evidence=Evidence(done - 1, 0.5, 0, quality),
                remaining_ms=now.remaining_ms - now.compute.median_ms(0, 1),
            )
        return now.stages_done

    assert exit_taken(local.remaining_ms * share) <= exit_taken(local.remaining_ms)
