from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeexit.decide.policies.fixed import AlwaysOffload
from edgeexit.errors import ConfigError
from edgeexit.replay.controller import controller_of
from edgeexit.replay.planner import Dispatch, Fleet, Gateways, Load, fleet_of, load_at, plan
from edgeexit.replay.recording import Recording
from edgeexit.replay.simulator import simulate
from edgeexit.replay.world import Scenario

CONSTANT = Fleet(devices=200, frames_per_s=5.0, offload_fraction=0.5, service_ms=(4.0,))


def test_a_plan_keeps_its_target_and_one_gateway_fewer_does_not() -> None:
    fleet = replace(CONSTANT, devices=2000, service_ms=(2.0, 4.0, 6.0))
    for dispatch in Dispatch:
        gateways = Gateways(workers_each=2, dispatch=dispatch)
        made = plan(fleet, gateways, target_p99_ms=25.0)
        assert made.enough.stay_p99_ms <= 25.0
        fewer = load_at(fleet, gateways, made.enough.gateways - 1)
        assert fewer.stay_p99_ms > 25.0
        assert made.enough.gateways * 2 >= fleet.busy_workers
        assert [load.gateways for load in made.tried] == sorted(load.gateways for load in made.tried)


@pytest.mark.parametrize("devices", [1_000, 100_000])
@pytest.mark.parametrize("dispatch", list(Dispatch))
def test_gateways_that_are_always_busy_keep_no_target(devices: int, dispatch: Dispatch) -> None:
    # Exactly as much work as 1,740 (17.4) gateways can do: the queue grows as long as the run lasts.
    fleet = Fleet(devices=devices, frames_per_s=10.0, offload_fraction=0.3, service_ms=(4.1, 4.3, 9.0))
    made = plan(fleet, Gateways(dispatch=dispatch), target_p99_ms=100.0)
    assert made.enough.gateways > fleet.busy_workers
    assert not made.enough.grows
    if dispatch is Dispatch.ROTATION:  # a thousand workers of one queue can be busy nearly always
        assert made.enough.utilisation < 0.99


def test_a_queue_that_grows_is_told_however_short_the_run_is() -> None:
    fleet = Fleet(devices=100_000, frames_per_s=10.0, offload_fraction=0.3, service_ms=(4.1, 4.3, 9.0))
    assert load_at(fleet, Gateways(), 1_730).grows
    assert not load_at(fleet, Gateways(), 2_000).grows


def test_a_large_fleet_meets_what_a_part_of_it_meets_at_its_part_of_the_gateways() -> None:
    part = Fleet(devices=8_000, frames_per_s=10.0, offload_fraction=0.3, service_ms=(4.1, 4.3, 9.0))
    whole = replace(part, devices=96_000)
    of_part = load_at(part, Gateways(), 147)
    of_whole = load_at(whole, Gateways(), 12 * 147)
    assert of_whole.utilisation == pytest.approx(of_part.utilisation, rel=0.01)
    assert of_whole.stay_p99_ms == pytest.approx(of_part.stay_p99_ms, rel=0.2)


def test_one_queue_needs_no_more_than_rotation() -> None:
    fleet = replace(CONSTANT, devices=1000, service_ms=tuple(np.linspace(1.0, 9.0, 20).tolist()))
    rotated = plan(fleet, Gateways(1, Dispatch.ROTATION), target_p99_ms=20.0)
    pooled = plan(fleet, Gateways(1, Dispatch.ONE_QUEUE), target_p99_ms=20.0)
    assert pooled.enough.gateways <= rotated.enough.gateways


def test_load_is_what_is_asked_of_the_workers() -> None:
    load = load_at(CONSTANT, Gateways(workers_each=4), 1)
    # 500 requests a second of 4 ms keep two of four workers busy.
    assert load.utilisation == pytest.approx(0.5, rel=0.03)
    assert CONSTANT.busy_workers == pytest.approx(2.0)


def test_many_small_senders_wait_as_poisson_arrivals_do() -> None:
    from edgeexit.replay.queueing import md1_mean_wait

    fleet = Fleet(devices=5000, frames_per_s=2.0, offload_fraction=0.01, service_ms=(7.0,))
    load = load_at(fleet, Gateways(), 1)
    assert load.utilisation == pytest.approx(0.7, rel=0.03)
    # The p50 and p99 of M/D/1 at this load lie around its mean wait; the mean itself is tested in queueing.
    mean_ms = md1_mean_wait(0.7, 1.0) * 7.0
    assert load.wait_p50_ms < mean_ms < load.wait_p99_ms


def test_synchronised_devices_need_more() -> None:
    together = replace(CONSTANT, synchronised=True)
    apart = plan(CONSTANT, Gateways(workers_each=4), target_p99_ms=30.0)
    burst = plan(together, Gateways(workers_each=4), target_p99_ms=30.0)
    assert burst.enough.gateways > apart.enough.gateways


def test_the_same_seed_gives_the_same_plan() -> None:
    told: list[Load] = []
    first = plan(CONSTANT, Gateways(), target_p99_ms=12.0, seed=5, progress=told.append)
    assert plan(CONSTANT, Gateways(), target_p99_ms=12.0, seed=5) == first
    assert len(told) == len(first.tried)


def test_a_hundred_thousand_devices_can_be_planned() -> None:
    fleet = Fleet(
        devices=100_000,
        frames_per_s=10.0,
        offload_fraction=0.3,
        service_ms=(3.0, 4.0, 4.0, 5.0, 9.0),
        delays_ms=(20.0, 30.0, 60.0),
    )
    made = plan(fleet, Gateways(workers_each=8), target_p99_ms=40.0)
    assert made.requests_per_s == pytest.approx(300_000.0)
    assert fleet.busy_workers / 8 <= made.enough.gateways <= 2 * fleet.busy_workers / 8


def test_a_vast_fleet_that_seldom_sends_is_planned_too() -> None:
    fleet = Fleet(devices=100_000, frames_per_s=1.0, offload_fraction=0.0005, service_ms=(8.0,))
    load = load_at(fleet, Gateways(), 1)
    assert load.utilisation == pytest.approx(0.4, rel=0.05)


@pytest.mark.parametrize(
    "wrong",
    [
        {"devices": 0},
        {"devices": 100_001},
        {"frames_per_s": 0.0},
        {"offload_fraction": 1.5},
        {"service_ms": ()},
        {"service_ms": (0.0,)},
        {"delays_ms": (-1.0,)},
    ],
)
def test_fleets_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        replace(CONSTANT, **wrong)  # type: ignore[arg-type]
    assert caught.value.key == next(iter(wrong))


def test_a_target_under_the_service_time_is_told() -> None:
    with pytest.raises(ConfigError, match="cannot be kept"):
        plan(CONSTANT, Gateways(), target_p99_ms=3.0)


def test_a_fleet_that_sends_nothing_needs_one_gateway() -> None:
    assert plan(replace(CONSTANT, offload_fraction=0.0), Gateways(), target_p99_ms=10.0).enough.gateways == 1


def test_a_fleet_is_made_of_a_replay(scenario: Scenario, recording: Recording) -> None:
    run = simulate(scenario, recording, controller_of(lambda _p, _r: AlwaysOffload()), 1)
    fleet = fleet_of([run], devices=40, service_ms=(4.0,))
    assert fleet.frames_per_s == pytest.approx(1000.0 / scenario.period_ms)
    assert fleet.offload_fraction == pytest.approx(run.sends.sum() / scenario.frames)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.3, 0.9, 1.0])
def test_a_large_fleet_sends_the_share_that_it_is_said_to_send(fraction: float) -> None:
    rate = 1000.0
    fleet = Fleet(100_000, rate / (100_000 * fraction), fraction, (1.0,))
    # One gateway would be busy all the time; half of two.
    load = load_at(fleet, Gateways(), 2)
    assert load.utilisation == pytest.approx(0.5, rel=0.01)
