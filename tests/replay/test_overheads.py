"""What a real device spends outside its stages can be charged to a replay, and changes it as it should."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeexit.decide.answer import Fate
from edgeexit.decide.decision import Action, Decision, Situation
from edgeexit.decide.guard import LEAST_MS, OUTLIERS, WAKES
from edgeexit.decide.latency import LatencyModel
from edgeexit.decide.learner import Observation, Replied
from edgeexit.decide.link import LinkEstimator
from edgeexit.decide.policies.fixed import AlwaysOffload
from edgeexit.decide.policies.local import AlwaysLocal, FirstExit
from edgeexit.errors import ConfigError
from edgeexit.replay.compute import ComputeTrace, Unloaded
from edgeexit.replay.controller import Controller, controller_of
from edgeexit.replay.deadlines import Constant
from edgeexit.replay.outcome import FATE_OF_NUMBER, Outcome
from edgeexit.replay.recording import Recording
from edgeexit.replay.simulator import replay, simulate
from edgeexit.replay.world import Scenario, world_of

FIRST = controller_of(lambda _p, _r: FirstExit())
OFFLOAD = controller_of(lambda _p, _r: AlwaysOffload())


class RunsOn(AlwaysLocal):
    """All stages, until the timer answers."""

    @property
    def anytime(self) -> bool:
        return True


class SendsAndRunsOn(RunsOn):
    """The same after sending the input, where it can."""

    def decide(self, situation: Situation) -> Decision:
        if situation.options and not situation.stages_done:
            return Decision(Action.OFFLOAD, "input", option=situation.options[0])
        return super().decide(situation)


class Halved(Unloaded):
    """A board at half its speed."""

    def draw(self, random: np.random.Generator, *, frames: int, period_ms: float) -> ComputeTrace:
        return ComputeTrace(1000.0, (2.0,))


def latencies(scenario: Scenario, recording: Recording) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    run = simulate(scenario, recording, FIRST, 1)
    return run.emitted_ms - run.captured_ms


def test_an_overhead_comes_before_every_answer(scenario: Scenario, recording: Recording) -> None:
    plain = latencies(scenario, recording)
    burdened = replace(scenario, profile=replace(scenario.profile, overhead_ms=3.0))
    assert np.allclose(latencies(burdened, recording), plain + 3.0)


def test_a_busy_board_stretches_the_overhead_too(scenario: Scenario, recording: Recording) -> None:
    slow = replace(scenario, compute=Halved())
    burdened = replace(slow, profile=replace(slow.profile, overhead_ms=3.0))
    assert np.allclose(latencies(burdened, recording), latencies(slow, recording) + 6.0)


def test_results_told_over_the_link_take_their_place_on_it(scenario: Scenario, recording: Recording) -> None:
    plain = simulate(scenario, recording, OFFLOAD, 1)
    # Longer on the link than the pause until the next frame: that one waits for it.
    chatty = replace(scenario, profile=replace(scenario.profile, result_bytes=290_000))
    told = simulate(chatty, recording, OFFLOAD, 1)
    waited_ms = (told.emitted_ms - told.captured_ms) - (plain.emitted_ms - plain.captured_ms)
    assert np.nanmedian(waited_ms) > 0.0
    assert told.uplink_bytes.sum() <= plain.uplink_bytes.sum()


def test_an_envelope_takes_time_and_is_not_counted(scenario: Scenario, recording: Recording) -> None:
    plain = simulate(scenario, recording, OFFLOAD, 1)
    enveloped = replace(scenario, profile=replace(scenario.profile, envelope_bytes=1000))
    sent = simulate(enveloped, recording, OFFLOAD, 1)
    # A kilobyte at 8 Mbit/s, and again where a probe went before.
    later_ms = sent.emitted_ms - plain.emitted_ms
    assert np.nanmedian(later_ms) == pytest.approx(1.0)
    assert np.nanmin(later_ms) >= 1.0 - 1e-6
    assert (sent.uplink_bytes == plain.uplink_bytes).all()


def test_encoding_is_not_counted_as_network_time(scenario: Scenario, recording: Recording) -> None:
    """A transport counts a reply from the hand-over on; so does a replay."""
    replies: list[Replied] = []

    class Listening(AlwaysOffload):
        def learn(self, observation: Observation, now_ms: float) -> None:
            if isinstance(observation, Replied):
                replies.append(observation)

    slow = tuple(replace(option, encode_ms=20.0) for option in scenario.profile.options)
    encoded = replace(scenario, profile=replace(scenario.profile, options=slow), frames=50)
    run = simulate(encoded, recording, controller_of(lambda _p, _r: Listening()), 1)
    latency_ms = (run.emitted_ms - run.captured_ms)[[each.frame for each in replies]]
    assert len(replies) > 40
    network_ms = np.asarray([each.elapsed_ms for each in replies])
    assert np.nanmedian(latency_ms - network_ms) == pytest.approx(20.0, abs=0.5)


def test_an_idle_device_looks_after_its_link_between_frames(scenario: Scenario, recording: Recording) -> None:
    """As the daemon's loop does: after a frame, then every tenth of a second, never as a frame comes."""
    asked_ms: list[float] = []

    class Asked(LinkEstimator):
        def wants_probe(self, now_ms: float) -> int | None:
            asked_ms.append(now_ms)
            return super().wants_probe(now_ms)

    few = replace(scenario, frames=20)
    controller = Controller(FirstExit(), LatencyModel(few.profile.stage_ms), Asked())
    run = replay(world_of(few, recording, 1), controller)
    assert run.offloads.probes
    for free_ms, next_ms in zip(run.emitted_ms, [*run.captured_ms[1:], np.inf], strict=True):
        within = [each - free_ms for each in asked_ms if free_ms <= each < next_ms]
        # Not while a probe is under way, and not after the last frame.
        assert set(np.round(within, 6)) <= {0.0, 100.0, 200.0}
    looked = [each for each in asked_ms if (run.captured_ms <= each).sum() < 20]
    assert len(looked) > 40


def test_a_timer_that_wakes_late_answers_late_until_it_is_set_earlier(
    scenario: Scenario, recording: Recording
) -> None:
    def run(waking_ms: float | None) -> Outcome:
        world = world_of(scenario, recording, 1)
        world.waking_ms = None if waking_ms is None else [waking_ms] * world.frames
        return replay(world, Controller(RunsOn(), LatencyModel(scenario.profile.stage_ms), None))

    punctual, late, soon = run(None), run(5.0), run(0.0)
    (stopped,) = np.nonzero(punctual.by_timer & late.by_timer)
    assert len(stopped) > 100
    waited_ms = (late.emitted_ms - punctual.emitted_ms)[stopped]
    assert waited_ms[: OUTLIERS + 1] == pytest.approx(5.0)
    assert not late.on_time[stopped[: OUTLIERS + 1]].any()
    # Set earlier by as much, it answers where a punctual one has its deadline, short of the least guard.
    assert np.median(waited_ms[OUTLIERS + 1 :]) == pytest.approx(LEAST_MS)
    assert late.on_time[stopped[WAKES:]].mean() > 0.95
    assert (soon.emitted_ms == punctual.emitted_ms).all()


def test_a_late_timer_is_not_the_networks_fault(scenario: Scenario, recording: Recording) -> None:
    slow = tuple(replace(option, encode_ms=20.0) for option in scenario.profile.options)
    # An answer is in hand after 70 ms of 98; the second one would take until 119, a reply longer still.
    costs = replace(scenario.profile, options=slow, gateway_stage_ms=(50.0,) * 4)
    timed = replace(scenario, profile=costs, deadlines=Constant(100.0), frames=50)
    world = world_of(timed, recording, 1)
    world.waking_ms = [5.0] * world.frames
    run = replay(world, Controller(SendsAndRunsOn(), LatencyModel(timed.profile.stage_ms), LinkEstimator()))
    late = ~run.on_time
    assert run.offloads.sent > 10
    assert late.sum() > OUTLIERS
    assert {FATE_OF_NUMBER[int(fate)] for fate in run.fates[late]} == {Fate.LATE_COMPUTE}


@pytest.mark.parametrize("overhead_ms", [-1.0, float("nan"), float("inf")])
def test_an_overhead_that_is_none_is_refused(scenario: Scenario, overhead_ms: float) -> None:
    with pytest.raises(ConfigError, match="overhead"):
        replace(scenario.profile, overhead_ms=overhead_ms)
