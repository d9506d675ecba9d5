"""A link as arithmetic: when each packet is through the bottleneck, when it arrives, how long TCP waits.

Pure: no clock, no devices. The shaper's process feeds it packets, a replay asks it for delays.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush

import msgspec
import numpy as np

from edgeexit.replay.formats.steps import Steps
from edgeexit.replay.traces import LinkTrace

# The delay of a mobile link stays about the same for this long: a few of its scheduling rounds.
DELAY_STEP_MS = 50.0
# Ten minutes, then the delays repeat; longer than any run here.
DELAY_STEPS = 12_000
# Queueing in a cell adds at most a few times its mean; the tail of an exponential is cut there.
JITTER_CAP = 4.0
# What a mobile uplink queues before it drops: a quarter of a megabyte, as bloated as radios are.
QUEUE_BYTES = 256 * 1024

# Linux waits 200 ms more than the smoothed round trip, some 25 ms here, then twice that, at most two minutes.
RETRANSMISSION_MS = 225.0
RETRANSMISSION_CAP_MS = 120_000.0
# Not having filled its window for twice its time-out, TCP forgets half of it, twice: it begins anew with the
# ten segments of a new connection (RFC 2861, RFC 6928).
RESTART_MS = 2.0 * RETRANSMISSION_MS
FIRST_WINDOW = 10


class Shape(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a link is like.

    Units: up_trace, a trace file for the uplink; up_mbps, its rate where there is none; down_mbps;
    delay_ms, one way and never less; jitter_ms, mean of what comes on top, drawn with `seed`.
    """

    up_trace: str | None = None
    up_mbps: float = 1000.0
    down_mbps: float = 1000.0
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    seed: int = 0
    queue_bytes: int = QUEUE_BYTES


def constant(mbps: float) -> LinkTrace:
    """A link whose rate never changes."""
    return LinkTrace(f"{mbps:g} Mbit/s", Steps((0.0, 1000.0), (mbps * 125_000.0,)))


class Delays:
    """One-way delays over time, the same for the same seed, whoever asks. Units: ms."""

    def __init__(self, delay_ms: float, jitter_ms: float, seed: int) -> None:
        random = np.random.default_rng([seed, 7])
        extra = random.exponential(1.0, DELAY_STEPS).clip(max=JITTER_CAP) * jitter_ms
        self._delay_ms: list[float] = (delay_ms + extra).tolist()

    def at(self, link_ms: float) -> float:
        """The delay in force, by the time since the link began."""
        return self._delay_ms[int(link_ms // DELAY_STEP_MS) % DELAY_STEPS]


class Counted(msgspec.Struct, kw_only=True):
    """What one direction has seen. `lost` found the link cut, `dropped` found the queue full."""

    packets: int = 0
    bytes: int = 0
    dropped: int = 0
    lost: int = 0


class Way:
    """One direction: a bottleneck with a queue, then a delay; packets never overtake each other.

    Units: trace rates count whole IP packets; all times in ms since the link began.
    """

    def __init__(self, trace: LinkTrace, delays: Delays, queue_bytes: int) -> None:
        self._trace = trace
        self._delays = delays
        self._queue_bytes = queue_bytes
        self._waiting: deque[tuple[float, int]] = deque()
        self._waiting_bytes = 0
        self._free_ms = 0.0
        self._due_ms = 0.0

    def due_ms(self, now_ms: float, size_bytes: int) -> float | None:
        """When a packet that comes now arrives at the other end; None where the queue is full."""
        waiting = self._waiting
        while waiting and waiting[0][0] <= now_ms:
            self._waiting_bytes -= waiting.popleft()[1]
        if self._waiting_bytes + size_bytes > self._queue_bytes:
            return None
        through_ms = self._trace.transfer_ms(max(now_ms, self._free_ms), size_bytes)
        waiting.append((through_ms, size_bytes))
        self._waiting_bytes += size_bytes
        self._free_ms = through_ms
        self._due_ms = max(self._due_ms, through_ms + self._delays.at(through_ms))
        return self._due_ms

    def forget(self, now_ms: float) -> None:
        """The link was cut: what waited is gone."""
        self._waiting.clear()
        self._waiting_bytes = 0
        self._free_ms = now_ms
        self._due_ms = now_ms


class Link:
    """Both directions, and the packets on their way. Units: ms since the link began."""

    def __init__(self, ways: tuple[Way, Way]) -> None:
        self._ways = ways
        self._flying: list[tuple[float, int, int, bytes]] = []
        self._serial = 0
        self.cut = False
        self.counted = (Counted(), Counted())

    def offer(self, now_ms: float, way: int, packet: bytes) -> None:
        """Take a packet in."""
        counted = self.counted[way]
        if self.cut:
            counted.lost += 1
            return
        due_ms = self._ways[way].due_ms(now_ms, len(packet))
        if due_ms is None:
            counted.dropped += 1
            return
        counted.packets += 1
        counted.bytes += len(packet)
        self._serial += 1
        heappush(self._flying, (due_ms, self._serial, way, packet))

    @property
    def next_ms(self) -> float | None:
        """When the next packet is due."""
        return self._flying[0][0] if self._flying else None

    def take(self, now_ms: float) -> tuple[float, int, bytes] | None:
        """The next packet that is due by now: its due time, its way, itself."""
        if not self._flying or self._flying[0][0] > now_ms:
            return None
        due_ms, _, way, packet = heappop(self._flying)
        return due_ms, way, packet

    def set_cut(self, now_ms: float, cut: bool) -> None:
        """Let nothing through any more, silently, as a radio that is gone; or everything again."""
        self.cut = cut
        if cut:
            for _, _, way, _ in self._flying:
                self.counted[way].lost += 1
            self._flying.clear()
            for way_ in self._ways:
                way_.forget(now_ms)


def stall_ms(segments: int, *, segment_ms: float, rtt_ms: float) -> float:
    """How long a payload waits for acknowledgements where TCP begins with its first window, doubling it.

    Units: segment_ms, of one segment on the link.
    """
    window, sent, stalled_ms = FIRST_WINDOW, 0, 0.0
    while sent + window < segments:
        stalled_ms += max(0.0, rtt_ms + segment_ms - window * segment_ms)
        sent += window
        window *= 2
    return stalled_ms


def next_retransmission_ms(lost_ms: float, restored_ms: float) -> float:
    """When TCP next sends a segment that was lost, at or after `restored_ms`: each wait is twice the last."""
    wait_ms, at_ms = RETRANSMISSION_MS, lost_ms
    while (at_ms := at_ms + wait_ms) < restored_ms:
        wait_ms = min(2.0 * wait_ms, RETRANSMISSION_CAP_MS)
    return at_ms
