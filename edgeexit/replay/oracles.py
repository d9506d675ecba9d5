"""Clairvoyant references: what could have been had, had all latencies been known beforehand.

Both are relaxed, frame by frame: every frame finds core and link idle, and decisions cost nothing.
Unguarded ones also have the best of the round trips drawn for the frame, and so bound every frame of
every policy from above. Guarded ones are what the same device could have had: it must emit a guard
before the deadline, and its first payload has the round trip of a radio that is awake.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import inf

import numpy as np
from numpy.typing import NDArray

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
    frames = world.frames
    value = np.zeros(frames)
    payload_bytes = np.zeros(frames, dtype=np.int64)
    remote = np.zeros(frames, dtype=np.bool_)
    possible = np.zeros(frames, dtype=np.bool_)
    uplink = world.new_uplink()
    for frame in range(frames):
        limit_ms = world.expiry_ms[frame] - (world.guard_ms(frame) if guarded else 0.0)
        rtt_ms = _rtt_ms(world, frame, guarded)
        choice = _best(world, uplink, frame, knows, limit_ms, rtt_ms)
        if choice is not None:
            value[frame], payload_bytes[frame], remote[frame] = choice
            possible[frame] = True
    return OracleOutcome(value, payload_bytes, remote, possible)


def _best(
    world: World, uplink: Uplink, frame: int, knows: Clairvoyance, limit_ms: float, rtt_ms: float
) -> tuple[float, int, bool] | None:
    """Worth, bytes and place of the best action that ends in time; None where there is none."""
    by_mean = knows is Clairvoyance.LATENCY
    price = world.scenario.byte_price
    sample = world.samples[frame]
    ends_ms = local_ends_ms(world, frame)
    best: tuple[float, int, bool] | None = None
    # Doing nothing is worth nothing: bytes that buy less are not sent.
    best_rank = (0.0, 0, -inf)
    for exit_, quality in enumerate(world.quality[sample]):
        end_ms = ends_ms[exit_ + 1]
        if end_ms > limit_ms:
            break
        rank = (world.prior_quality[exit_] if by_mean else quality, 0, -end_ms)
        if rank > best_rank:
            best, best_rank = (quality, 0, False), rank
    for column, option in enumerate(world.scenario.profile.options):
        start_ms = ends_ms[option.boundary] + option.encode_ms
        if start_ms >= limit_ms:
            continue
        end_ms = remote_end_ms(world, uplink, frame, column, start_ms, rtt_ms)
        if end_ms > limit_ms:
            continue
        quality = world.option_quality[sample][column]
        promised = world.prior_quality[-1] * (1.0 - option.quality_cost) if by_mean else quality
        rank = (promised - price * option.payload_bytes, -option.payload_bytes, -end_ms)
        if rank > best_rank:
            best, best_rank = (quality, option.payload_bytes, True), rank
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
