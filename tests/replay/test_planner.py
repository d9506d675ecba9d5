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
