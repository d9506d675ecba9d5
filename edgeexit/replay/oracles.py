"""Clairvoyant references: what could have been had, had all latencies been known beforehand.

Both are relaxed, frame by frame: every frame finds core and link idle, and decisions cost nothing.
Unguarded ones also have the best of the round trips drawn for the frame, and so bound every frame of
every policy from above. Guarded ones are what the same device could have had: it must emit a guard
before the deadline, and its first payload has the round trip of a radio that is awake.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from math import inf

import numpy as np
from numpy.typing import NDArray

from edgeexit.decide.decision import OffloadOption
from edgeexit.replay.outages import Outage
from edgeexit.replay.traces import Uplink
from edgeexit.replay.world import ATTEMPTS, World


class Clairvoyance(str, Enum):
    """What an oracle knows."""

    LATENCY = "O1"
    """All latencies and the deadline, but of answers only their mean quality."""
    CORRECTNESS = "O2"
    """All latencies, and what each answer is worth."""


@dataclass(frozen=True, slots=True, eq=False)
class OracleOutcome:
    """Shapes: value (F,), quality by the deadline; payload_bytes, remote and possible (F,).

    `possible` says where any answer at all could have been in time.
    """

    value: NDArray[np.float64]
    payload_bytes: NDArray[np.int64]
    remote: NDArray[np.bool_]
    possible: NDArray[np.bool_]

    def objective(self, byte_price: float) -> float:
        """Mean quality by the deadline less the price of the bytes."""
        return float(self.value.mean() - byte_price * self.payload_bytes.mean())


def oracle(world: World, knows: Clairvoyance, *, guarded: bool = False) -> OracleOutcome:
    """The oracle's run in a world; `guarded` oracles keep the device's guard before the deadline.

    Source: specification of the decision policy, section 7.
    """
    outcome, uplink = _nothing(world.frames), world.new_uplink()
    for frame in range(world.frames):
        _note(outcome, frame, best_choice(world, uplink, frame, knows, guarded=guarded))
    return outcome


def fleet_oracle(worlds: Sequence[World], workers: int) -> list[OracleOutcome]:
    """The guarded oracle of latencies for devices that share gateway workers, one outcome a device."""
    outcomes = [_nothing(world.frames) for world in worlds]
    uplinks = [world.new_uplink() for world in worlds]
    gateway = Reservations(workers)
    captures = [
        (captured_ms, device, frame)
        for device, world in enumerate(worlds)
        for frame, captured_ms in enumerate(world.captured_ms)
    ]
    for captured_ms, device, frame in sorted(captures):
        gateway.forget(captured_ms)
        world = worlds[device]
        choice = best_choice(
            world, uplinks[device], frame, Clairvoyance.LATENCY, guarded=True, gateway=gateway
        )
        _note(outcomes[device], frame, choice)
        if choice is not None and choice.request is not None:
            gateway.take(*choice.request)
    return outcomes


class Reservations:
    """When workers are busy, by what was promised before. Raises: ValueError when there is no worker."""

    __slots__ = ("_busy",)

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise ValueError("at least one worker is needed")
        self._busy: list[list[tuple[float, float]]] = [[] for _ in range(workers)]

    def start_ms(self, arrived_ms: float, service_ms: float) -> float:
        """The first moment from its arrival on at which a worker has time for a whole request."""
        return min(_first_gap(busy, arrived_ms, service_ms) for busy in self._busy)

    def take(self, arrived_ms: float, service_ms: float) -> None:
        """Promise a request its place."""
        starts_ms = [_first_gap(busy, arrived_ms, service_ms) for busy in self._busy]
        start_ms = min(starts_ms)
        insort(self._busy[starts_ms.index(start_ms)], (start_ms, start_ms + service_ms))

    def forget(self, now_ms: float) -> None:
        """Drop what has ended: no request arrives before `now_ms` any more."""
        for busy in self._busy:
            while busy and busy[0][1] <= now_ms:
                del busy[0]


def _first_gap(busy: Sequence[tuple[float, float]], from_ms: float, length_ms: float) -> float:
    for start_ms, end_ms in busy:
        if from_ms + length_ms <= start_ms:
            break
        from_ms = max(from_ms, end_ms)
    return from_ms


@dataclass(frozen=True, slots=True)
class OracleChoice:
    """Worth, bytes and place of an action, with what it sends, and its arrival and service, ms, there."""

    value: float
    payload_bytes: int
    remote: bool
    request: tuple[float, float] | None = None
    option: OffloadOption | None = None


def _nothing(frames: int) -> OracleOutcome:
    return OracleOutcome(
        value=np.zeros(frames),
        payload_bytes=np.zeros(frames, dtype=np.int64),
        remote=np.zeros(frames, dtype=np.bool_),
        possible=np.zeros(frames, dtype=np.bool_),
    )


def _note(outcome: OracleOutcome, frame: int, choice: OracleChoice | None) -> None:
    if choice is not None:
        outcome.value[frame] = choice.value
        outcome.payload_bytes[frame] = choice.payload_bytes
        outcome.remote[frame] = choice.remote
        outcome.possible[frame] = True


def best_choice(
    world: World,
    uplink: Uplink,
    frame: int,
    knows: Clairvoyance,
    *,
    guarded: bool,
    gateway: Reservations | None = None,
) -> OracleChoice | None:
    """The best action that ends in time; None where there is none."""
    limit_ms = world.expiry_ms[frame] - (world.guard_ms(frame) if guarded else 0.0)
    rtt_ms = _rtt_ms(world, frame, guarded)
    by_mean = knows is Clairvoyance.LATENCY
    price = world.scenario.byte_price
    sample = world.samples[frame]
    ends_ms = local_ends_ms(world, frame)
    best: OracleChoice | None = None
    # Doing nothing is worth nothing: bytes that buy less are not sent.
    best_rank = (0.0, 0, -inf)
    for exit_, quality in enumerate(world.quality[sample]):
        end_ms = ends_ms[exit_ + 1]
        if end_ms > limit_ms:
            break
        rank = (world.prior_quality[exit_] if by_mean else quality, 0, -end_ms)
        if rank > best_rank:
            best, best_rank = OracleChoice(quality, 0, False), rank
    for column, option in enumerate(world.scenario.profile.options):
        start_ms = ends_ms[option.boundary] + option.encode_ms
        if start_ms >= limit_ms:
            continue
        end_ms = remote_end_ms(world, uplink, frame, column, start_ms, rtt_ms)
        request: tuple[float, float] | None = None
        if gateway is not None and end_ms < inf:
            service_ms = world.remote_ms[option.boundary] * world.service_factor[frame]
            request = (end_ms - rtt_ms / 2.0 - service_ms, service_ms)
            end_ms += gateway.start_ms(*request) - request[0]
        if end_ms > limit_ms:
            continue
        quality = world.option_quality[sample][column]
        promised = world.prior_quality[-1] * (1.0 - option.quality_cost) if by_mean else quality
        rank = (promised - price * option.payload_bytes, -option.payload_bytes, -end_ms)
        if rank > best_rank:
            best_rank = rank
            best = OracleChoice(quality, option.payload_bytes, True, request, option)
    return best


def local_ends_ms(world: World, frame: int) -> list[float]:
    """Capture, then the end of every stage on an idle core. Shapes: (K + 1,)."""
    ends_ms = [world.captured_ms[frame]]
    for work_ms in world.work_ms[frame]:
        ends_ms.append(world.compute.finish_ms(ends_ms[-1], work_ms))
    return ends_ms


def remote_end_ms(
    world: World, uplink: Uplink, frame: int, column: int, start_ms: float, rtt_ms: float
) -> float:
    """When the reply to an option handed over at `start_ms` is here; infinity where none comes."""
    option = world.scenario.profile.options[column]
    service_ms = world.remote_ms[option.boundary] * world.service_factor[frame]
    while True:
        start_ms = _allowed_ms(world.scenario.outages, start_ms)
        arrived_ms = uplink.alone_ms(start_ms, option.payload_bytes) + rtt_ms / 2.0
        end_ms = arrived_ms + service_ms + rtt_ms / 2.0
        gap_end_ms = world.link_gaps.end_of(end_ms)
        if gap_end_ms is not None:
            end_ms = gap_end_ms + rtt_ms / 2.0
        cut = _cut(world.scenario.outages, start_ms, end_ms)
        if cut is not None:
            start_ms = cut.usable_ms
            continue
        if world.gateway_gaps.end_of(arrived_ms) is not None:
            return inf
        return end_ms


def _rtt_ms(world: World, frame: int, guarded: bool) -> float:
    first = frame * ATTEMPTS
    if guarded:
        return world.rtt_busy_ms[first]
    draws = slice(first, first + ATTEMPTS)
    return min(*world.rtt_idle_ms[draws], *world.rtt_busy_ms[draws])


def _allowed_ms(outages: tuple[Outage, ...], start_ms: float) -> float:
    """The first moment from `start_ms` on at which a device that was told of outages may send."""
    for outage in outages:
        if outage.told and outage.noticed_ms is not None:
            told_ms = outage.start_ms + outage.noticed_ms
            if told_ms <= start_ms < outage.usable_ms:
                start_ms = outage.usable_ms
    return start_ms


def _cut(outages: tuple[Outage, ...], start_ms: float, end_ms: float) -> Outage | None:
    """The outage whose notice fails an exchange that spans it."""
    for outage in outages:
        noticed_ms = outage.noticed_ms
        if outage.told and noticed_ms is not None and start_ms < outage.start_ms + noticed_ms <= end_ms:
            return outage
    return None
