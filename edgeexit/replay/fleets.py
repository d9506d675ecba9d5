"""Rows of the grid in which devices share a gateway, and runs of rows with one device or many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from edgeexit.replay.clairvoyant import own_latencies
from edgeexit.replay.controller import Controller, ControllerFactory
from edgeexit.replay.links import Link
from edgeexit.replay.oracles import Clairvoyance, OracleOutcome, fleet_oracle, oracle
from edgeexit.replay.outcome import Outcome
from edgeexit.replay.pool import Fleet, QueueOrder
from edgeexit.replay.recording import Recording
from edgeexit.replay.scenarios import Board, GridRow, grid_row
from edgeexit.replay.simulator import fleet_worlds, replay, replay_fleet
from edgeexit.replay.world import World, world_of

# Fleets of the grid, with the factor on the gateway's times and which of the links they have: a few devices,
# a worker that is busy for a fifth of its time, the same with all frames at once, and one as busy as 64
# devices would keep it, which is also shown as it would be without order and pauses.
FLEETS = (
    (Fleet(4), 1.0, 0),
    (Fleet(16), 1.0, 1),
    (Fleet(16, synchronised=True), 1.0, 0),
    (Fleet(16), 4.0, 1),
    (Fleet(16, order=QueueOrder.FIRST_COME), 4.0, 1),
)
# A device needs so many frames at least to learn its link.
LEAST_FRAMES = 100


def fleet_rows(board: Board, links: Sequence[Link], *, frames: int) -> list[GridRow]:
    """A row for every fleet, going round the links; `frames` are shared out among its devices."""
    rows: list[GridRow] = []
    for fleet, slower, link in FLEETS:
        profile = replace(
            board.profile,
            gateway_stage_ms=tuple(slower * each for each in board.profile.gateway_stage_ms),
        )
        plain = grid_row(
            profile,
            links[link % len(links)],
            board=board.name,
            frames=max(min(frames, LEAST_FRAMES), frames // fleet.devices),
            deadlines=board.band,
        )
        load = "" if slower == 1.0 else f", {slower:g} times as slow"
        name = f"{plain.scenario.name}|{fleet.name}{load}"
        rows.append(replace(plain, scenario=replace(plain.scenario, name=name), fleet=fleet))
    return rows


def quickest(links: Sequence[Link], count: int = 2) -> list[Link]:
    """The links over which a gateway is worth asking most often, those of the highest mean rate first."""
    return sorted(links, key=lambda link: link.trace.mean_bps, reverse=True)[:count]


def row_worlds(row: GridRow, recording: Recording, seeds: Sequence[int]) -> list[World]:
    """The worlds of a row: one a seed, or one a device and seed. Raises: ConfigError."""
    if row.fleet is None:
        return [world_of(row.scenario, recording, seed) for seed in seeds]
    return [world for seed in seeds for world in fleet_worlds(row.scenario, recording, seed, row.fleet)]


def row_runs(
    worlds: Sequence[World], make: Callable[[World], Controller], fleet: Fleet | None
) -> list[Outcome]:
    """A run in every world; those of a fleet's devices together, as they stand in `row_worlds`."""
    if fleet is None:
        return [replay(world, make(world)) for world in worlds]
    outcomes: list[Outcome] = []
    for first in range(0, len(worlds), fleet.devices):
        together = worlds[first : first + fleet.devices]
        outcomes += replay_fleet(together, [make(world) for world in together], fleet)
    return outcomes


def made_by(factory: ControllerFactory) -> Callable[[World], Controller]:
    """A controller for a world, by a factory of policies."""
    return lambda world: factory(world.scenario.profile, world.recording)


def row_own_latencies(
    worlds: Sequence[World], make: Callable[[World], Controller], fleet: Fleet
) -> list[Outcome]:
    """The runs of devices that know their own latencies beforehand, and meet the queue like any other."""
    return row_runs(worlds, lambda world: own_latencies(world, make(world)), fleet)


def row_oracle(worlds: Sequence[World], fleet: Fleet | None) -> list[OracleOutcome]:
    """The guarded oracle of latencies in every world; that of a fleet knows the queue."""
    if fleet is None:
        return [oracle(world, Clairvoyance.LATENCY, guarded=True) for world in worlds]
    outcomes: list[OracleOutcome] = []
    for first in range(0, len(worlds), fleet.devices):
        outcomes += fleet_oracle(worlds[first : first + fleet.devices], fleet.workers)
    return outcomes
