"""The replay keeps the engine's laws, whatever the policy, the link and the load."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeexit.decide.decision import Action, Decision, Policy, Situation
from edgeexit.decide.policies.fallback import WithFallback
from edgeexit.decide.policies.fixed import AlwaysOffload, StaticThreshold
from edgeexit.decide.policies.hedged import HedgedGain
from edgeexit.decide.policies.local import AlwaysLocal, AnytimeLocal, FirstExit
from edgeexit.replay.compute import Contended
from edgeexit.replay.controller import ControllerFactory, controller_of
from edgeexit.replay.deadlines import ChangedInFrame, Constant
from edgeexit.replay.delays import LTE_EDGE, constant_delay
from edgeexit.replay.formats.steps import Steps
from edgeexit.replay.metrics import metrics
from edgeexit.replay.oracles import Clairvoyance, oracle
from edgeexit.replay.outages import Outage, OutageKind, repeated
from edgeexit.replay.outcome import LATE_NETWORK, ON_TIME, REPLACED, Outcome
from edgeexit.replay.profile import CostProfile
from edgeexit.replay.recording import Recording
from edgeexit.replay.simulator import simulate, simulate_fleet
from edgeexit.replay.traces import LinkTrace
from edgeexit.replay.world import EnergyTerms, Scenario, world_of


def hedged(_: CostProfile, recording: Recording) -> Policy:
    return HedgedGain(tables=recording.tables)


POLICIES: dict[str, ControllerFactory] = {
    "first-exit": controller_of(lambda _p, _r: FirstExit()),
    "always-local": controller_of(lambda _p, _r: AlwaysLocal()),
    "anytime-local": controller_of(lambda _p, _r: AnytimeLocal(), transport=False),
    "static": controller_of(lambda _p, _r: StaticThreshold(0.8)),
    "always-offload": controller_of(lambda _p, _r: AlwaysOffload()),
    "always-offload+": controller_of(lambda _p, _r: WithFallback(AlwaysOffload())),
    "hedged": controller_of(hedged),
}
OUTAGES = (
    *repeated(OutageKind.LINK, first_ms=20_000, length_ms=5000, every_ms=60_000, until_ms=180_000,
              noticed_ms=0.0, reconnect_ms=3000.0),
    Outage(40_000.0, 52_000.0, OutageKind.GATEWAY),
    Outage(100_000.0, 112_000.0, OutageKind.LINK),
)  # fmt: skip


@pytest.fixture(scope="module")
def rough(scenario: Scenario) -> Scenario:
    """Everything goes wrong in it."""
    return replace(
        scenario,
        name="rough",
        outages=OUTAGES,
        compute=Contended(3.0, start_probability=0.02),
        deadlines=ChangedInFrame(200.0, 90.0),
        delay=LTE_EDGE,
        byte_price=1e-7,
    )


def same(one: Outcome, other: Outcome) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True)
        for name in ("emitted_ms", "quality", "exits", "fates", "uplink_bytes", "stages_run")
    )


@pytest.mark.parametrize("name", POLICIES)
def test_the_same_seed_gives_the_same_run(rough: Scenario, recording: Recording, name: str) -> None:
    runs = [simulate(rough, recording, POLICIES[name], seed) for seed in (1, 1, 2)]
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


@pytest.mark.parametrize("name", POLICIES)
def test_every_frame_has_one_fate_and_every_offload_one_end(
    rough: Scenario, recording: Recording, name: str
) -> None:
    run = simulate(rough, recording, POLICIES[name], 3)
    figures = metrics(run)
    fates = (figures.on_time, figures.late, figures.replaced)
    assert sum(fates) == pytest.approx(1.0)
    assert figures.never_answered == 0.0
    count = run.offloads
    assert count.used + count.unused + count.late + count.failed == count.sent == run.sends.sum()
    answered = np.isfinite(run.emitted_ms)
    assert ((run.fates == REPLACED) == ~answered).all()
    assert (run.emitted_ms[answered] > run.captured_ms[answered]).all()
    assert (run.exits[answered] >= 0).all()
    order = run.emitted_ms[answered]
    assert (np.diff(order) >= -1.0).all()


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("seed", [1, 2])
def test_no_policy_beats_the_one_who_knows_everything(
    rough: Scenario, scenario: Scenario, recording: Recording, name: str, seed: int
) -> None:
    for each in (rough, scenario):
        world = world_of(each, recording, seed)
        best = oracle(world, Clairvoyance.CORRECTNESS)
        run = simulate(each, recording, POLICIES[name], seed)
        price = each.byte_price
        worth = run.value - price * run.uplink_bytes
        assert (worth <= best.value - price * best.payload_bytes + 1e-9).all()


def test_the_oracle_of_latency_lies_between_the_floor_and_the_one_of_correctness(
    scenario: Scenario, recording: Recording
) -> None:
    world = world_of(scenario, recording, 1)
    floor = metrics(simulate(scenario, recording, POLICIES["anytime-local"], 1)).objective
    latency = oracle(world, Clairvoyance.LATENCY).objective(0.0)
    correctness = oracle(world, Clairvoyance.CORRECTNESS).objective(0.0)
    assert floor < latency < correctness


@pytest.mark.parametrize("name", ["anytime-local", "always-offload+", "hedged"])
def test_no_state_of_the_network_delays_an_answer_of_an_anytime_policy(
    rough: Scenario, recording: Recording, name: str
) -> None:
    run = simulate(rough, recording, POLICIES[name], 4)
    assert not (run.fates == LATE_NETWORK).any()


def test_waiting_for_replies_without_a_floor_is_late_because_of_the_network(
    rough: Scenario, recording: Recording
) -> None:
    # A payload takes 120 ms there, and budgets are cut to 90.
    slow = replace(rough, uplink=LinkTrace("slow", Steps((0.0, 1000.0), (125e3,))))
    run = simulate(slow, recording, POLICIES["always-offload"], 4)
    assert (run.fates == LATE_NETWORK).any()


def test_always_local_without_a_deadline_has_the_recorded_accuracy(
    scenario: Scenario, recording: Recording
) -> None:
    calm = replace(scenario, deadlines=Constant(290.0), frames=recording.sample_count)
    run = simulate(calm, recording, POLICIES["always-local"], 1)
    assert (run.fates == ON_TIME).all()
    assert run.value.mean() == pytest.approx(float(recording.quality[:, -1].mean()))
    assert (run.stages_run == recording.stage_count).all()


def test_a_static_threshold_is_a_short_circuit_pass_over_the_recording(
    scenario: Scenario, recording: Recording
) -> None:
    calm = replace(scenario, deadlines=Constant(290.0), frames=recording.sample_count)
    run = simulate(calm, recording, POLICIES["static"], 1)
    passed = recording.scores >= np.float32(0.8)
    passed[:, -1] = True
    stops = passed.argmax(axis=1)
    assert (run.exits == stops[run.samples]).all()
    assert (run.quality == recording.quality[run.samples, stops[run.samples]]).all()


def test_frames_that_come_too_fast_are_replaced_by_newer_ones(
    scenario: Scenario, recording: Recording
) -> None:
    fast = replace(scenario, period_ms=60.0, deadlines=Constant(250.0))
    run = simulate(fast, recording, POLICIES["always-local"], 1)
    answered = run.fates != REPLACED
    # Four stages of 49 ms take the time of 3.3 frames.
    assert answered.mean() == pytest.approx(60.0 / 197.6, rel=0.1)
    # The newest frame waited at most for the one before it.
    assert (run.emitted_ms[answered] - run.captured_ms[answered]).max() < 2 * 4 * 49.3 * 1.3


def test_a_long_run_budget_of_bytes_is_kept(scenario: Scenario, recording: Recording) -> None:
    longer = replace(scenario, frames=2000)
    free = simulate(longer, recording, POLICIES["hedged"], 1)
    seconds = longer.frames * longer.period_ms / 1000.0
    allowed = 0.3 * float(free.uplink_bytes.sum()) / seconds
    kept = simulate(replace(longer, bytes_per_s=allowed), recording, POLICIES["hedged"], 1)
    late = kept.uplink_bytes[longer.frames // 2 :]
    assert late.sum() / (seconds / 2.0) == pytest.approx(allowed, rel=0.25)
    floor = simulate(longer, recording, POLICIES["anytime-local"], 1)
    assert floor.value.mean() < kept.value.mean() <= free.value.mean()


def test_a_long_run_budget_of_energy_counts_sends_by_what_they_take(
    scenario: Scenario, recording: Recording
) -> None:
    longer = replace(scenario, frames=2000)
    free = simulate(longer, recording, POLICIES["hedged"], 1)
    seconds = longer.frames * longer.period_ms / 1000.0
    allowed_mw = 0.3 * 0.01 * float(free.uplink_bytes.sum()) / seconds
    terms = EnergyTerms(allowed_mw, sending_mj_per_byte=0.01)
    kept = simulate(replace(longer, energy=terms), recording, POLICIES["hedged"], 1)
    late = kept.uplink_bytes[longer.frames // 2 :]
    assert 0.01 * late.sum() / (seconds / 2.0) == pytest.approx(allowed_mw, rel=0.25)
    # Unknown is as if it took nothing.
    for figure in (None, 0.0):
        unknown = replace(longer, energy=EnergyTerms(allowed_mw, sending_mj_per_byte=figure))
        assert (simulate(unknown, recording, POLICIES["hedged"], 1).value == free.value).all()


def test_a_long_run_budget_of_energy_saves_stages_at_the_power_of_the_board(
    scenario: Scenario, recording: Recording
) -> None:
    free = simulate(scenario, recording, POLICIES["hedged"], 1)
    saved = simulate(
        replace(scenario, energy=EnergyTerms(100.0, board_mw=5000.0)), recording, POLICIES["hedged"], 1
    )
    assert saved.stages_run.sum() < free.stages_run.sum()


def test_a_dead_link_costs_nothing_but_bytes(scenario: Scenario, recording: Recording) -> None:
    dead = replace(scenario, outages=(Outage(0.5, 1e9, OutageKind.LINK),))
    floor = simulate(scenario, recording, POLICIES["anytime-local"], 1)
    run = simulate(dead, recording, POLICIES["hedged"], 1)
    assert run.value.mean() > floor.value.mean() - 0.01
    assert not run.remote.any()


def test_offloading_resumes_by_itself_after_every_kind_of_outage(
    scenario: Scenario, recording: Recording
) -> None:
    for kind, noticed_ms in ((OutageKind.LINK, 0.0), (OutageKind.LINK, None), (OutageKind.GATEWAY, None)):
        outage = Outage(30_000.0, 60_000.0, kind, noticed_ms, 2000.0)
        run = simulate(replace(scenario, outages=(outage,)), recording, POLICIES["hedged"], 1)
        assert run.remote[run.captured_ms < 30_000.0].any()
        during = (run.captured_ms > 30_500.0) & (run.emitted_ms < 60_000.0)
        assert not run.remote[during].any()
        assert run.remote[run.captured_ms > 80_000.0].mean() > 0.3


class _Recorder:
    """Checks causality: what it is shown never speaks of a stage or reply that has not ended."""

    name = "recorder"
    anytime = True

    def __init__(self) -> None:
        self.seen: list[tuple[int, float]] = []

    def decide(self, situation: Situation) -> Decision:
        exit_ = -1 if situation.evidence is None else situation.evidence.exit
        assert exit_ < max(1, situation.stages_done) or situation.stages_done == 0
        assert situation.elapsed_ms >= 0.0
        self.seen.append((situation.stages_done, situation.elapsed_ms))
        if situation.in_flight is not None:
            assert situation.options == ()
            assert situation.in_flight.waited_ms >= 0.0
        elif situation.options:
            return Decision(Action.OFFLOAD, "try", situation.options[-1])
        if situation.stages_done < 2:
            return Decision(Action.CONTINUE, "next-stage")
        return (
            Decision(Action.WAIT, "reply-awaited") if situation.in_flight else Decision(Action.EXIT, "done")
        )


def test_policies_see_stages_and_replies_only_when_they_have_ended(
    scenario: Scenario, recording: Recording
) -> None:
    recorder = _Recorder()
    slow = replace(scenario, delay=constant_delay(100.0), frames=100)
    run = simulate(slow, recording, controller_of(lambda _p, _r: recorder), 1)
    done_after = {done: min(ms for stages, ms in recorder.seen if stages == done) for done in (1, 2)}
    assert done_after[1] >= 49.3 * 0.8
    assert done_after[2] >= 2 * 49.3 * 0.8
    assert (run.emitted_ms[run.remote] - run.captured_ms[run.remote]).min() > 100.0


def test_a_cut_budget_is_kept_at_once(scenario: Scenario, recording: Recording) -> None:
    cut = replace(scenario, deadlines=ChangedInFrame(200.0, 120.0), frames=400)
    run = simulate(cut, recording, POLICIES["always-offload+"], 1)
    late_ms = run.emitted_ms - run.expiry_ms
    assert np.nanmax(late_ms) <= 1e-6


def test_a_fleet_shares_its_gateways(scenario: Scenario, recording: Recording) -> None:
    few = replace(scenario, frames=150, server=replace(scenario.server, slow_probability=0.0))
    busy = replace(few, profile=replace(few.profile, gateway_stage_ms=(15.0,) * 4))
    alone = simulate_fleet(busy, recording, POLICIES["always-offload+"], 1, devices=1, workers=1)
    crowd = simulate_fleet(busy, recording, POLICIES["always-offload+"], 1, devices=12, workers=1)
    ample = simulate_fleet(busy, recording, POLICIES["always-offload+"], 1, devices=12, workers=12)
    value = [float(np.mean([run.value.mean() for run in runs])) for runs in (alone, crowd, ample)]
    assert value[1] < value[0] - 0.02
    assert value[2] > value[1] + 0.02
    again = simulate_fleet(busy, recording, POLICIES["always-offload+"], 1, devices=12, workers=1)
    assert all(same(one, other) for one, other in zip(crowd, again, strict=True))


@settings(max_examples=20, deadline=None)
@given(
    st.floats(20.0, 400.0),
    st.floats(30.0, 400.0),
    st.lists(
        st.sampled_from([Action.EXIT, Action.CONTINUE, Action.OFFLOAD, Action.WAIT]), min_size=4, max_size=9
    ),
)
def test_whatever_a_policy_says_every_frame_is_answered_or_replaced(
    scenario: Scenario, recording: Recording, budget_ms: float, period_ms: float, actions: list[Action]
) -> None:
    class Erratic:
        name = "erratic"
        anytime = True
        turn = 0

        def decide(self, situation: Situation) -> Decision:
            self.turn += 1
            action = actions[self.turn % len(actions)]
            option = situation.options[0] if situation.options else None
            return Decision(action, "whim", option)

    each = replace(
        scenario, deadlines=Constant(budget_ms), period_ms=period_ms, frames=60, outages=OUTAGES[:1]
    )
    run = simulate(each, recording, controller_of(lambda _p, _r: Erratic()), 1)
    assert (np.isfinite(run.emitted_ms) | (run.fates == REPLACED)).all()


def test_progress_is_told_until_the_end(scenario: Scenario, recording: Recording) -> None:
    told: list[tuple[int, int]] = []
    simulate(
        scenario,
        recording,
        POLICIES["first-exit"],
        1,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told[-1] == (scenario.frames, scenario.frames)
    assert told == sorted(told)
