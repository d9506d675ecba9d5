"""Rows of devices that share a gateway: drawn, run and judged together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.decide.learner import Observation, Replied
from edgeexit.decide.policies.fixed import AlwaysOffload
from edgeexit.replay.contenders import FLOOR, OWN, contenders
from edgeexit.replay.controller import controller_of
from edgeexit.replay.fleets import (
    fleet_rows,
    made_by,
    quickest,
    row_oracle,
    row_own_latencies,
    row_runs,
    row_worlds,
)
from edgeexit.replay.links import unlimited, wifi_30
from edgeexit.replay.oracles import Clairvoyance, Reservations, oracle
from edgeexit.replay.pool import Fleet
from edgeexit.replay.recording import Recording
from edgeexit.replay.scenarios import PI_4_MS, Board, GridRow, vit_tiny
from edgeexit.replay.simulator import simulate_fleet
from edgeexit.replay.study import run_study


@pytest.fixture(scope="module")
def rows(recording: Recording) -> list[GridRow]:
    board = Board("pi", vit_tiny(recording, "pi", PI_4_MS))
    return fleet_rows(board, quickest([wifi_30(), unlimited()]), frames=80)


def test_the_quickest_links_come_first() -> None:
    assert [link.name for link in quickest([wifi_30(), unlimited()])] == ["unlimited", "wifi-30"]


def test_fleets_are_told_apart_and_share_out_the_frames(rows: list[GridRow]) -> None:
    assert len({row.scenario.name for row in rows}) == len(rows)
    assert all(row.fleet is not None and row.scenario.frames >= 80 for row in rows)


def test_a_row_of_a_fleet_is_the_fleet_of_the_simulator(rows: list[GridRow], recording: Recording) -> None:
    row, make = rows[0], contenders()[OWN]
    assert row.fleet is not None
    worlds = row_worlds(row, recording, (1, 2))
    runs = row_runs(worlds, made_by(make), row.fleet)
    alone = simulate_fleet(
        row.scenario, recording, make, 2, devices=row.fleet.devices, workers=row.fleet.workers
    )
    assert len(runs) == 2 * row.fleet.devices
    for one, other in zip(runs[row.fleet.devices :], alone, strict=True):
        assert (one.value == other.value).all()


def test_an_oracle_that_knows_the_queue_has_no_more_than_one_without_queue(
    rows: list[GridRow], recording: Recording
) -> None:
    for row in rows:
        worlds = row_worlds(row, recording, (1,))
        queueing = row_oracle(worlds, row.fleet)
        idle = [oracle(world, Clairvoyance.LATENCY, guarded=True) for world in worlds]
        sent = np.mean([each.remote.mean() for each in queueing])
        assert sent <= np.mean([each.remote.mean() for each in idle]) + 1e-9
    # One device is never in its own way: frames stand further apart than a reply takes.
    single = row_worlds(rows[0], recording, (1,))[:1]
    assert (row_oracle(single, Fleet(1))[0].value == row_oracle(single, None)[0].value).all()


def test_a_study_takes_fleets(rows: list[GridRow], recording: Recording) -> None:
    made = contenders()
    few = {name: made[name] for name in (OWN, FLOOR, "always-offload+fallback")}
    figures = run_study(rows[:1], recording, seeds=(1,), more_seeds=(2,), policies=few, hindsight=False)[0]
    assert figures.fleet == "4 on 1"
    assert figures.seeds == 2
    assert figures.frames == 2 * 4 * rows[0].scenario.frames
    assert figures.late_network == 0
    assert figures.floor < figures.own <= figures.oracle_correctness
    assert figures.oracle_own_latencies is not None
    assert figures.floor < figures.oracle_own_latencies <= figures.oracle_correctness


def test_a_device_that_knows_its_own_latencies_is_stopped_by_the_queue_alone(
    rows: list[GridRow], recording: Recording
) -> None:
    row, make = rows[-1], made_by(contenders()[OWN])
    assert row.fleet is not None
    worlds = row_worlds(row, recording, (1,))
    crowd = row_own_latencies(worlds, make, row.fleet)
    ample = row_own_latencies(worlds, make, Fleet(row.fleet.devices, workers=row.fleet.devices))
    alone = row_oracle(worlds, Fleet(row.fleet.devices, workers=row.fleet.devices))
    assert np.mean([run.remote.mean() for run in crowd]) < np.mean([run.remote.mean() for run in ample])
    for run, known in zip(ample, alone, strict=True):
        # Nothing is in its way: it does what the oracle does, but for probes' places on the link.
        assert (run.remote == known.remote).mean() > 0.97
        assert run.on_time[known.possible].mean() > 0.99


@given(
    st.integers(1, 3),
    st.lists(st.tuples(st.floats(0.0, 100.0), st.floats(0.1, 20.0)), max_size=25),
)
def test_no_worker_is_promised_twice(workers: int, requests: list[tuple[float, float]]) -> None:
    reservations = Reservations(workers)
    served: list[tuple[float, float]] = []
    for arrived_ms, service_ms in requests:
        start_ms = reservations.start_ms(arrived_ms, service_ms)
        reservations.take(arrived_ms, service_ms)
        assert start_ms >= arrived_ms
        served.append((start_ms, start_ms + service_ms))
    for start_ms, _ in served:
        assert sum(begin <= start_ms < end for begin, end in served) <= workers


def test_a_gateway_without_a_worker_is_refused() -> None:
    with pytest.raises(ValueError, match="worker"):
        Reservations(0)


def test_a_crowded_fleet_takes_back_what_nobody_waits_for(rows: list[GridRow], recording: Recording) -> None:
    crowded = next(row for row in rows if row.fleet == Fleet(16) and "times as slow" in row.scenario.name)
    profile = crowded.scenario.profile
    slow = replace(profile, gateway_stage_ms=tuple(2.0 * each for each in profile.gateway_stage_ms))
    row = replace(crowded, scenario=replace(crowded.scenario, profile=slow))
    worlds = row_worlds(row, recording, (1,))
    make = made_by(contenders()[OWN])
    runs = row_runs(worlds, make, row.fleet)
    kept = row_runs(worlds, lambda world: replace(make(world), cancels=False), row.fleet)
    for each in (*runs, *kept):
        count = each.offloads
        ended = count.used + count.unused + count.late + count.failed + count.cancelled
        assert ended == count.sent
        payloads = worlds[0].scenario.profile.options
        least = min(option.payload_bytes for option in payloads)
        assert int(each.uplink_bytes.sum()) >= least * count.sent
    assert sum(each.offloads.cancelled for each in runs) > 0
    assert sum(each.offloads.cancelled for each in kept) == 0


def test_replies_of_a_gateway_without_time_for_all_stages_are_told_as_such(
    rows: list[GridRow], recording: Recording
) -> None:
    crowded = next(row for row in rows if row.fleet == Fleet(16) and "times as slow" in row.scenario.name)
    replies: list[Replied] = []

    class Listening(AlwaysOffload):
        def learn(self, observation: Observation, now_ms: float) -> None:
            if isinstance(observation, Replied):
                replies.append(observation)

    profile = crowded.scenario.profile
    slow = replace(profile, gateway_stage_ms=tuple(3.0 * each for each in profile.gateway_stage_ms))
    row = replace(crowded, scenario=replace(crowded.scenario, profile=slow))
    worlds = row_worlds(row, recording, (1,))
    row_runs(worlds, made_by(controller_of(lambda _p, _r: Listening())), crowded.fleet)
    whole = [each.compute_ms for each in replies if each.whole]
    cut_short = [each.compute_ms for each in replies if not each.whole]
    assert whole
    assert cut_short
    assert np.median(cut_short) < np.median(whole)
