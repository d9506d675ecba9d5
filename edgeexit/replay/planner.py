"""The capacity planner: how many gateways a fleet needs for its replies to come in time.

Devices send frames at their rate; a share of them is offloaded, with the payloads and pauses that a
replay of one device has shown. Gateways are equal, each with some workers; requests wait there. The
smallest number of gateways whose p99 keeps the target is found by bisection; a queue that still grows when
the run ends keeps none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from math import ceil, floor, sqrt

import numpy as np
from numpy.typing import NDArray

from edgeexit.errors import ConfigError
from edgeexit.replay.outcome import Outcome
from edgeexit.replay.queueing import waits_ms

Floats = NDArray[np.float64]

# Requests simulated for one figure: the p99 then rests on some ten thousand of them.
REQUESTS = 1_200_000
# Gateways that take turns are alike: of more than these only so many are simulated, with their share of the
# devices, so that each meets 120,000 requests. A queue forgets its empty beginning after some 1/(1 - load)²
# requests, 1,100 at 97 %, and needs many times that for a p99. Few that take turns share requests out less
# evenly than many do: that errs on the side of more gateways.
GATEWAYS_SIMULATED = 10
# The p99 of the last quarter of a run may be above that of the first by so much, or the queue still grows: a
# queue at its limit grows as the root of time, here by 1.6, and chance moves a settled one by some 10 %.
GROWN = 1.25
# The queue starts empty; what comes in this part of the run is left out.
WARM_UP = 0.2
# Beyond this no plan is believed: the brokers between would be the bottleneck long before.
DEVICE_CAP = 100_000
GATEWAY_CAP = 100_000
# A run is at least so long, so that bursts of a fleet's frames show and die away again.
SHORTEST_RUN_MS = 10_000.0


class Dispatch(str, Enum):
    """How requests find a gateway."""

    ROTATION = "rotation"
    """Each in turn, whatever its queue: a broker's shared subscription."""
    ONE_QUEUE = "one-queue"
    """The first free worker anywhere: the best that directed dispatch can do."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Who sends, and how.

    Units: frames_per_s of one device; offload_fraction, of frames; delays_ms, capture to arrival at
    the gateways, to be drawn from; service_ms, measured service times, to be drawn from.
    `synchronised` devices capture at the same moments. Raises: ConfigError for what cannot be.
    """

    devices: int
    frames_per_s: float
    offload_fraction: float
    service_ms: tuple[float, ...]
    delays_ms: tuple[float, ...] = (0.0,)
    synchronised: bool = False

    def __post_init__(self) -> None:
        problems = (
            (not 1 <= self.devices <= DEVICE_CAP, "devices", f"1 to {DEVICE_CAP:,} are allowed"),
            (not 0.0 < self.frames_per_s <= 1000.0, "frames_per_s", "above 0, at most 1000"),
            (not 0.0 <= self.offload_fraction <= 1.0, "offload_fraction", "a fraction, 0 to 1"),
            (not self.service_ms or not min(self.service_ms) > 0.0, "service_ms", "positive times"),
            (not self.delays_ms or min(self.delays_ms) < 0.0, "delays_ms", "times that are not negative"),
        )
        for wrong, key, why in problems:
            if wrong:
                raise ConfigError(f"{key} is refused", key=key, why=why)

    @property
    def requests_per_s(self) -> float:
        """Requests of the whole fleet."""
        return self.devices * self.frames_per_s * self.offload_fraction

    @property
    def busy_workers(self) -> float:
        """Workers that would be busy all the time: fewer can never do."""
        return self.requests_per_s * float(np.mean(self.service_ms)) / 1000.0


@dataclass(frozen=True, slots=True)
class Gateways:
    """The machines that serve."""

    workers_each: int = 1
    dispatch: Dispatch = Dispatch.ROTATION


@dataclass(frozen=True, slots=True)
class Load:
    """What requests meet at a number of gateways. Units: ms; utilisation, fraction of workers' time.

    waits are times in the queue, stays are queue and service together. Where the queue still `grows` when the
    run ends, its times are those of this run alone: a longer one would show longer ones.
    """

    gateways: int
    utilisation: float
    wait_p50_ms: float
    wait_p99_ms: float
    stay_p50_ms: float
    stay_p99_ms: float
    requests: int
    grows: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer, and what was tried on the way, in order of gateways. `enough` keeps the target."""

    target_p99_ms: float
    requests_per_s: float
    enough: Load
    tried: tuple[Load, ...]


def plan(
    fleet: Fleet,
    gateways: Gateways,
    *,
    target_p99_ms: float,
    seed: int = 0,
    progress: Callable[[Load], None] | None = None,
) -> Plan:
    """The fewest gateways whose p99 of queue and service keeps the target.

    Deterministic by seed. Raises: ConfigError when no number of gateways can keep the target.
    """
    tried: dict[int, Load] = {}

    def keeps(count: int) -> bool:
        if count not in tried:
            tried[count] = load_at(fleet, gateways, count, seed=seed)
            if progress is not None:
                progress(tried[count])
        return tried[count].stay_p99_ms <= target_p99_ms and not tried[count].grows

    slowest_ms = float(np.percentile(fleet.service_ms, 99))
    if slowest_ms > target_p99_ms:
        raise ConfigError(
            f"a p99 of {target_p99_ms:g} ms cannot be kept",
            key="target_p99_ms",
            why=f"the service alone has a p99 of {slowest_ms:.1f} ms",
            fix="use faster gateways, or allow more time",
        )
    # Workers that are busy all the time leave nothing to catch up with: more are needed than that.
    low = floor(fleet.busy_workers / gateways.workers_each) + 1
    high = low
    while not keeps(high):
        if high >= GATEWAY_CAP:
            raise ConfigError(
                f"a p99 of {target_p99_ms:g} ms cannot be kept",
                key="target_p99_ms",
                why=f"not even with {high:,} gateways",
                fix="use faster gateways or more workers on each, or offload fewer frames",
            )
        low, high = high + 1, min(GATEWAY_CAP, high + max(1, high // 4))
    while low < high:
        middle = (low + high) // 2
        if keeps(middle):
            high = middle
        else:
            low = middle + 1
    loads = tuple(tried[count] for count in sorted(tried))
    return Plan(target_p99_ms, fleet.requests_per_s, tried[high], loads)


def load_at(fleet: Fleet, gateways: Gateways, count: int, *, seed: int = 0) -> Load:
    """What requests meet at so many gateways. Deterministic by seed."""
    random = np.random.default_rng([seed, fleet.devices])
    one_queue = gateways.dispatch is Dispatch.ONE_QUEUE
    served = count if one_queue else min(count, GATEWAYS_SIMULATED)
    arrivals_ms, run_ms = _arrivals(_share(fleet, served, count), random)
    services_ms = random.choice(np.asarray(fleet.service_ms), len(arrivals_ms))
    workers = served * gateways.workers_each
    waited = np.zeros(len(arrivals_ms))
    if one_queue or served == 1:
        waited = waits_ms(arrivals_ms, services_ms, workers)
    else:
        for gateway in range(min(served, len(arrivals_ms))):
            turn = slice(gateway, None, served)
            waited[turn] = waits_ms(arrivals_ms[turn], services_ms[turn], gateways.workers_each)
    settled = arrivals_ms >= WARM_UP * run_ms
    if not settled.any():
        return Load(count, 0.0, 0.0, 0.0, 0.0, 0.0, 0)
    waits = waited[settled]
    stays = waits + services_ms[settled]
    early, *_, late = np.array_split(stays, 4)
    return Load(
        gateways=count,
        utilisation=min(1.0, float(services_ms.sum()) / (workers * run_ms)),
        wait_p50_ms=float(np.percentile(waits, 50)),
        wait_p99_ms=float(np.percentile(waits, 99)),
        stay_p50_ms=float(np.percentile(stays, 50)),
        stay_p99_ms=float(np.percentile(stays, 99)),
        requests=len(waits),
        grows=len(early) > 0 and bool(np.percentile(late, 99) > GROWN * np.percentile(early, 99)),
    )


def _share(fleet: Fleet, served: int, count: int) -> Fleet:
    """The devices of `served` among `count` gateways; their rate makes up for what is no whole device."""
    if served == count:
        return fleet
    devices = ceil(fleet.devices * served / count)
    rate = fleet.frames_per_s * fleet.devices * served / count / devices
    return replace(fleet, devices=devices, frames_per_s=rate)


def _arrivals(fleet: Fleet, random: np.random.Generator) -> tuple[Floats, float]:
    """Times at which requests reach the gateways, in order, and the length of the run.

    Devices keep their own steady rates with phases of their own; which frames are sent is chance.
    """
    period_ms = 1000.0 / fleet.frames_per_s
    if fleet.requests_per_s == 0.0:
        return np.zeros(0), SHORTEST_RUN_MS
    wanted_ms = REQUESTS / fleet.requests_per_s * 1000.0
    frames = max(1, ceil(max(SHORTEST_RUN_MS, wanted_ms) / period_ms))
    if frames * fleet.devices * fleet.offload_fraction > 4 * REQUESTS:
        # Large fleets send enough in a few frames; a run is then as long as a few periods.
        frames = max(8, ceil(wanted_ms / period_ms))
    phases = np.zeros(fleet.devices) if fleet.synchronised else random.uniform(0.0, period_ms, fleet.devices)
    frame, device = np.divmod(_chosen(frames * fleet.devices, fleet.offload_fraction, random), fleet.devices)
    arrivals = frame * period_ms + phases[device]
    arrivals = arrivals + random.choice(np.asarray(fleet.delays_ms), len(arrivals))
    arrivals.sort()
    return arrivals, frames * period_ms


def _chosen(shots: int, fraction: float, random: np.random.Generator) -> NDArray[np.int64]:
    """Which of so many frames are sent, each with the same chance, in order: by the gaps between them."""
    expected = shots * fraction
    # Eight standard deviations more than are expected: the gaps of a run reach beyond its end.
    gaps = random.geometric(fraction, ceil(expected + 8.0 * sqrt(expected)) + 8)
    chosen = np.cumsum(gaps) - 1
    return chosen[chosen < shots]


def fleet_of(
    outcomes: Sequence[Outcome],
    *,
    devices: int,
    service_ms: Sequence[float],
    synchronised: bool = False,
) -> Fleet:
    """A fleet of devices like those replayed: their frame rate and how often they offload.

    Raises: ConfigError when nothing was replayed, or frames have no distance.
    """
    frames = sum(len(outcome.captured_ms) for outcome in outcomes)
    sent = sum(int(outcome.sends.sum()) for outcome in outcomes)
    spans = [float(outcome.captured_ms[-1] - outcome.captured_ms[0]) for outcome in outcomes]
    gaps = frames - len(outcomes)
    if gaps < 1 or not sum(spans) > 0.0:
        raise ConfigError("no fleet can be made of this", key="outcomes", why="too few frames were replayed")
    return Fleet(
        devices=devices,
        frames_per_s=1000.0 * gaps / sum(spans),
        offload_fraction=min(1.0, sent / frames),
        service_ms=tuple(service_ms),
        synchronised=synchronised,
    )
