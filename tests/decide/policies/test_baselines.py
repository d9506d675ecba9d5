"""Baselines behave as their papers say, on links and boards made up to tell them apart."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from edgeexit.decide.decision import Action, Evidence, InFlight, OffloadOption, Policy, Situation
from edgeexit.decide.learner import Learner, Pinged, Replied, StageDone
from edgeexit.decide.policies.alert import Alert
from edgeexit.decide.policies.ans import AutodidacticSurgeon
from edgeexit.decide.policies.averages import LinkAverages
from edgeexit.decide.policies.edgent import BandwidthSegment, Edgent
from edgeexit.decide.policies.fallback import WithFallback
from edgeexit.decide.policies.fixed import AlwaysOffload, StaticThreshold
from edgeexit.decide.policies.hindsight import Sending, StaticRule, static_rules
from edgeexit.decide.policies.local import AlwaysLocal, AnytimeLocal, FirstExit
from edgeexit.decide.policies.network_profile import NetworkProfile
from edgeexit.decide.policies.neurosurgeon import Neurosurgeon
from edgeexit.decide.policies.spinn import Spinn, design_table
from edgeexit.errors import ConfigError

K = 4
ACCURACY = (0.58, 0.70, 0.77, 0.80)
IMAGE = OffloadOption(0, "u8", 15_000)
TENSORS = OffloadOption(2, "int8", 2_000)
PROFILE = NetworkProfile((50.0,) * K, (2.0,) * K, ACCURACY, (IMAGE, None, TENSORS, None), (1e9,) * K)


@dataclass(frozen=True, slots=True)
class Compute:
    def probability_within(self, first: int, stop: int, limit_ms: float) -> float:
        return 1.0 if 50.0 * (stop - first) <= limit_ms else 0.0

    def median_ms(self, first: int, stop: int) -> float:
        return 50.0 * (stop - first)


@dataclass(frozen=True, slots=True)
class Link:
    up: bool = True

    def probability_within(self, option: OffloadOption, limit_ms: float) -> float:
        return 0.5

    def reply_probability(self, in_flight: InFlight, limit_ms: float) -> float:
        return 0.5

    def median_ms(self, option: OffloadOption) -> float | None:
        return 50.0

    def request_price(self, option: OffloadOption) -> float:
        return 0.0


def situation(done: int = 0, *, remaining_ms: float = 300.0, score: float = 0.5) -> Situation:
    evidence = Evidence(done - 1, score, 1, ACCURACY) if done else None
    options = tuple(option for option in (IMAGE, TENSORS) if option.boundary in (0, done) and done < K)
    return Situation(remaining_ms, 0.0, done, K, evidence, ACCURACY, Compute(), Link(), options, None)


def play(policy: Policy, *, remaining_ms: float = 300.0, score: float = 0.5) -> tuple[int, str]:
    """Stages run and how it ended, when stages take 50 ms and a send is simply noted."""
    for done in range(K + 1):
        decision = policy.decide(situation(done, remaining_ms=remaining_ms - 50.0 * done, score=score))
        if decision.action is Action.OFFLOAD:
            assert decision.option is not None
            return done, f"send {decision.option.boundary}"
        if decision.action is Action.EXIT:
            return done, "exit"
    raise AssertionError("no end")


def teach(policy: Policy, *, bytes_per_ms: float, rtt_ms: float = 10.0, count: int = 30) -> None:
    assert isinstance(policy, Learner)
    for index in range(count):
        policy.learn(Pinged(64, rtt_ms), float(index))
        elapsed_ms = rtt_ms + IMAGE.payload_bytes / bytes_per_ms + 8.0
        policy.learn(Replied(index, IMAGE, elapsed_ms, 0.0, 8.0, 200), float(index))


def test_local_policies_run_as_far_as_they_say() -> None:
    assert play(FirstExit()) == (1, "exit")
    assert play(AlwaysLocal(), remaining_ms=10.0) == (K, "exit")
    assert play(AnytimeLocal(), remaining_ms=120.0) == (2, "exit")
    assert play(AnytimeLocal(), remaining_ms=300.0) == (K, "exit")


def test_always_offload_sends_and_waits() -> None:
    policy = AlwaysOffload()
    assert play(policy) == (0, "send 0")
    waiting = replace(situation(), in_flight=InFlight(IMAGE, 1.0), offloads=1)
    assert policy.decide(waiting).action is Action.WAIT
    assert WithFallback(policy).decide(waiting).action is Action.CONTINUE
    assert policy.decide(replace(situation(), link=Link(up=False))).action is Action.CONTINUE


def test_static_threshold_is_blind_to_everything_but_scores() -> None:
    assert play(StaticThreshold(0.9), remaining_ms=1.0) == (K, "exit")
    assert play(StaticThreshold(0.4)) == (1, "exit")
    assert play(StaticThreshold(0.9, local_stages=1)) == (1, "send 0")


def test_neurosurgeon_takes_the_cut_of_least_latency() -> None:
    fast, medium, slow = Neurosurgeon(PROFILE), Neurosurgeon(PROFILE), Neurosurgeon(PROFILE)
    teach(fast, bytes_per_ms=1000.0)
    teach(medium, bytes_per_ms=60.0)
    teach(slow, bytes_per_ms=2.0)
    assert play(fast) == (0, "send 0")
    assert play(medium) == (2, "send 2")
    assert play(slow) == (K, "exit")


def test_neurosurgeon_keeps_no_deadline() -> None:
    policy = Neurosurgeon(PROFILE)
    teach(policy, bytes_per_ms=2.0)
    assert play(policy, remaining_ms=1.0) == (K, "exit")


@pytest.mark.parametrize("dynamic", [False, True])
def test_edgent_takes_the_most_accurate_plan_in_time(dynamic: bool) -> None:
    fast, slow = Edgent(PROFILE, dynamic=dynamic), Edgent(PROFILE, dynamic=dynamic)
    teach(fast, bytes_per_ms=1000.0)
    teach(slow, bytes_per_ms=2.0)
    assert play(fast, remaining_ms=80.0) == (0, "send 0")
    assert play(slow, remaining_ms=120.0) == (2, "exit")
    assert play(slow, remaining_ms=10.0) == (1, "exit")
    assert play(slow, remaining_ms=210.0) == (K, "exit")


def test_bandwidth_segments_end_at_change_points() -> None:
    segment = BandwidthSegment()
    for _ in range(20):
        before = segment.observe(1000.0)
    states = [segment.observe(50.0) for _ in range(6)]
    assert before == pytest.approx(1000.0, rel=0.25)
    assert states[-1] == pytest.approx(50.0, rel=0.3)


def scores_and_truth() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(8)
    scores = draw.uniform(0.2, 1.0, (2000, K))
    correct = draw.random((2000, K)) < np.asarray(ACCURACY)
    return scores, correct


def test_spinn_table_counts_shares_and_accuracy() -> None:
    scores, correct = scores_and_truth()
    rows = {(row.cut, row.threshold): row for row in design_table(scores, correct, PROFILE)}
    blind = rows[(2, 2.0)]
    assert blind.sent_share == 1.0
    assert blind.local_shares == (1.0, 1.0, 0.0, 0.0)
    assert blind.accuracy == pytest.approx(float(correct[:, -1].mean()))
    half = rows[(2, 0.6)]
    assert half.sent_share == pytest.approx(0.25, abs=0.03)
    assert half.local_shares[1] == pytest.approx(0.5, abs=0.03)
    assert rows[(4, 2.0)].sent_share == 0.0


def test_spinn_sends_while_it_meets_the_deadline_and_stops_at_scores() -> None:
    designs = design_table(*scores_and_truth(), PROFILE)
    fast, slow = Spinn(PROFILE, designs), Spinn(PROFILE, designs)
    teach(fast, bytes_per_ms=1000.0)
    teach(slow, bytes_per_ms=1.0)
    assert play(fast, remaining_ms=80.0) == (0, "send 0")
    stages, end = play(slow, remaining_ms=120.0, score=0.97)
    assert end == "exit"
    assert stages <= 2
    gone = replace(situation(2), link=Link(up=False))
    policy = Spinn(PROFILE, [row for row in designs if row.cut == 2 and row.threshold == 2.0])
    policy.decide(situation(0))
    assert policy.decide(gone).action is Action.EXIT


def test_alert_caps_depth_by_its_belief() -> None:
    classic = Alert(PROFILE, anytime=False)
    for stage in range(40):
        classic.learn(StageDone(stage, stage % K, 50.0), 0.0)
    assert play(classic, remaining_ms=400.0) == (K, "exit")
    assert play(classic, remaining_ms=110.0)[0] <= 2
    slowed = Alert(PROFILE, anytime=False)
    for stage in range(40):
        slowed.learn(StageDone(stage, stage % K, 100.0), 0.0)
    assert play(slowed, remaining_ms=250.0)[0] < play(classic, remaining_ms=250.0)[0]
    assert play(Alert(PROFILE), remaining_ms=400.0) == (K, "exit")


def test_ans_learns_which_cut_is_quick() -> None:
    policy = AutodidacticSurgeon(PROFILE)
    chosen: list[str] = []
    for frame in range(300):
        done, end = play(policy)
        chosen.append(end)
        if end.startswith("send"):
            option = IMAGE if done == 0 else TENSORS
            # A slow link: the image takes 3 s, the small tensors 400 ms; local is 200 ms.
            policy.learn(Replied(frame, option, 0.2 * option.payload_bytes, 0.0, 2.0, 200), 0.0)
    assert chosen[-50:].count("exit") > 30
    assert any(end.startswith("send") for end in chosen[-50:]), "forced sampling never ends"


def test_static_grid_is_complete_and_distinct() -> None:
    rules = static_rules(K)
    assert len(set(rules)) == len(rules)
    assert {rule.sending for rule in rules} == set(Sending)
    assert {rule.cap for rule in rules} == set(range(1, K + 1))
    assert len({rule.threshold for rule in rules}) == 20
    assert len({rule.name for rule in rules}) == len(rules)


def test_static_rules_follow_their_own_words() -> None:
    assert play(StaticRule(2, 2.0, Sending.NEVER)) == (2, "exit")
    assert play(StaticRule(4, 0.4, Sending.NEVER)) == (1, "exit")
    assert play(StaticRule(4, 2.0, Sending.ALWAYS, 2)) == (2, "send 2")
    assert play(StaticRule(4, 0.8, Sending.DOUBTFUL, 1), score=0.9) == (1, "exit")
    assert play(StaticRule(4, 0.8, Sending.DOUBTFUL, 1), score=0.5) == (1, "send 0")


def test_link_averages_follow_bandwidth_round_trip_and_load() -> None:
    averages = LinkAverages(PROFILE)
    for _ in range(60):
        averages.learn(Pinged(64, 40.0))
        averages.learn(Replied(1, IMAGE, 40.0 + 150.0 + 16.0, 6.0, 10.0, 200))
    assert averages.rtt_ms == pytest.approx(40.0, rel=0.05)
    assert averages.bytes_per_ms == pytest.approx(100.0, rel=0.1)
    assert averages.load == pytest.approx(2.0, rel=0.05)
    assert averages.remote_ms(0) == pytest.approx(206.0, rel=0.1)


def test_profiles_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(ConfigError):
        NetworkProfile((50.0,), (2.0, 2.0), (0.5,), (None,), (1.0,))
    with pytest.raises(ConfigError):
        NetworkProfile((0.0,), (2.0,), (0.5,), (None,), (1.0,))
