"""Discrete-event replay: whole runs of the device's loop in virtual time.

    factory = controller_of(lambda profile, recording: HedgedGain(tables=recording.tables))
    outcome = simulate(scenario, recording, factory, seed=1)

The rules are those of the engine: stages cannot be interrupted, a timer emits the best answer in hand
at the deadline, a reply closes its frame the moment it lands, the newest frame waits in the slot, and
estimators learn when the loop next looks. Events are ordered by time, then by when they were planned.
A policy sees a stage time when the stage has ended and a transfer time when the reply is here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush

from edgeexit.replay.controller import Controller, ControllerFactory
from edgeexit.replay.journey import DeviceRun
from edgeexit.replay.outcome import Outcome
from edgeexit.replay.pool import Fleet, GatewayPool, QueueOrder
from edgeexit.replay.recording import Recording
from edgeexit.replay.world import Scenario, World, world_of

Event = Callable[[float, object], None]
Progress = Callable[[int, int], None]
"""Called with frames done and frames in all."""

# Often enough for a smooth display, seldom enough to cost nothing.
PROGRESS_EVERY = 256


class EventLoop:
    """A virtual clock: calls what was planned, in order of time, then of planning."""

    __slots__ = ("_events", "_serial")

    def __init__(self) -> None:
        self._events: list[tuple[float, int, Event, object]] = []
        self._serial = 0

    def schedule(self, at_ms: float, event: Event, argument: object) -> None:
        """Plan an event."""
        self._serial += 1
        heappush(self._events, (at_ms, self._serial, event, argument))

    def run(self) -> None:
        """Call all events until none is left."""
        events = self._events
        while events:
            at_ms, _, event, argument = heappop(events)
            event(at_ms, argument)


def simulate(
    scenario: Scenario,
    recording: Recording,
    controller_factory: ControllerFactory,
    seed: int,
    *,
    progress: Progress | None = None,
) -> Outcome:
    """One device with gateways that are never busy with others.

    The same arguments give the same outcome. Raises: ConfigError when recording and profile differ.
    """
    world = world_of(scenario, recording, seed)
    return replay(world, controller_factory(scenario.profile, recording), progress=progress)


def replay(world: World, controller: Controller, *, progress: Progress | None = None) -> Outcome:
    """One device in a world already drawn, for comparing policies in the very same one."""
    return _run([world], [controller], fleet=None, progress=progress)[0]


def replay_fleet(
    worlds: Sequence[World],
    controllers: Sequence[Controller],
    fleet: Fleet,
    *,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Several devices in worlds already drawn, behind the workers of a fleet."""
    return _run(worlds, controllers, fleet=fleet, progress=progress)


def simulate_fleet(
    scenario: Scenario,
    recording: Recording,
    controller_factory: ControllerFactory,
    seed: int,
    *,
    devices: int,
    workers: int,
    order: QueueOrder = QueueOrder.EARLIEST_DEADLINE,
    synchronised: bool = False,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Several devices, each with a link of its own, behind `workers` gateway workers with one queue.

    `synchronised` devices capture their frames at the same moments.
    """
    fleet = Fleet(devices, workers, order, synchronised)
    worlds = fleet_worlds(scenario, recording, seed, fleet)
    controllers = [controller_factory(scenario.profile, recording) for _ in worlds]
    return replay_fleet(worlds, controllers, fleet, progress=progress)


def fleet_worlds(scenario: Scenario, recording: Recording, seed: int, fleet: Fleet) -> list[World]:
    """The worlds of a fleet's devices. Raises: ConfigError when recording and profile differ."""
    return [
        world_of(scenario, recording, seed, device=device, synchronised=fleet.synchronised)
        for device in range(fleet.devices)
    ]


def _run(
    worlds: Sequence[World],
    controllers: Sequence[Controller],
    *,
    fleet: Fleet | None,
    progress: Progress | None,
) -> list[Outcome]:
    loop = EventLoop()
    pool: GatewayPool | None = None
    if fleet is not None:
        stage_ms = worlds[0].scenario.profile.gateway_stage_ms if worlds else ()
        pool = GatewayPool(fleet.workers, fleet.order, loop.schedule, stage_ms)
    total = sum(world.frames for world in worlds)
    done = 0

    def frame_closed() -> None:
        nonlocal done
        done += 1
        if progress is not None and (done % PROGRESS_EVERY == 0 or done == total):
            progress(done, total)

    runs = [
        DeviceRun(world, controller, loop.schedule, pool, frame_closed)
        for world, controller in zip(worlds, controllers, strict=True)
    ]
    for run in runs:
        run.begin()
    loop.run()
    return [run.outcome() for run in runs]
