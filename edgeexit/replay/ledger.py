"""What became of the frames of a run, written down while it runs."""

from __future__ import annotations

import numpy as np

from edgeexit.decide.answer import fate_of
from edgeexit.replay.outcome import (
    NEVER,
    NEVER_ANSWERED,
    NUMBER_OF_FATE,
    REPLACED,
    OffloadCount,
    Outcome,
)
from edgeexit.replay.world import World

# An answer at the deadline itself counts; this absorbs rounding in sums of times.
TOLERANCE_MS = 1e-6


class Ledger:
    """One entry a frame; turned into arrays at the end."""

    def __init__(self, world: World) -> None:
        frames = world.frames
        self._world = world
        self.emitted_ms = [NEVER] * frames
        self.deadline_ms = [NEVER] * frames
        self.quality = [0.0] * frames
        self.exits = [-1] * frames
        self.remote = [False] * frames
        self.fates = [NEVER_ANSWERED] * frames
        self.stages_run = [0] * frames
        self.sends = [0] * frames
        self.uplink_bytes = [0] * frames
        self.downlink_bytes = [0] * frames
        self.by_timer = [False] * frames
        self.offloads = OffloadCount()
        self.decisions = 0

    def answered(
        self,
        frame: int,
        now_ms: float,
        *,
        exit_index: int,
        quality: float,
        remote: bool,
        by_timer: bool,
        blocked_ms: float,
    ) -> float:
        """Write an answer down; gives the budget in force.

        Units: blocked_ms, what sending and waiting for replies can have delayed it.
        """
        world = self._world
        self.emitted_ms[frame] = now_ms
        budget_ms = self.deadline_ms[frame] = world.deadlines.latency_ms(now_ms)
        self.quality[frame] = quality
        self.exits[frame] = exit_index
        self.remote[frame] = remote
        self.by_timer[frame] = by_timer
        cut = world.cut[frame]
        # The last moment still counts, but that of a cut: the budget after it is in force then.
        late_ms = now_ms - world.expiry_ms[frame] + (TOLERANCE_MS if cut else -TOLERANCE_MS)
        fate = fate_of(late_ms, network_ms=blocked_ms, cut=cut)
        self.fates[frame] = NUMBER_OF_FATE[fate]
        return budget_ms

    def replaced(self, frame: int) -> None:
        """Write down that a newer frame took this one's place."""
        self.fates[frame] = REPLACED
        self.deadline_ms[frame] = self._world.expiry_ms[frame] - self._world.captured_ms[frame]

    def outcome(self, policy: str, *, probes: int, probe_bytes: int) -> Outcome:
        """Everything, as arrays."""
        world = self._world
        self.offloads.probes = probes
        return Outcome(
            policy=policy,
            scenario=world.scenario.name,
            seed=world.seed,
            samples=np.asarray(world.samples),
            captured_ms=np.asarray(world.captured_ms),
            expiry_ms=np.asarray(world.expiry_ms),
            emitted_ms=np.asarray(self.emitted_ms),
            deadline_ms=np.asarray(self.deadline_ms),
            quality=np.asarray(self.quality),
            exits=np.asarray(self.exits),
            remote=np.asarray(self.remote),
            fates=np.asarray(self.fates),
            stages_run=np.asarray(self.stages_run),
            sends=np.asarray(self.sends),
            uplink_bytes=np.asarray(self.uplink_bytes),
            downlink_bytes=np.asarray(self.downlink_bytes),
            by_timer=np.asarray(self.by_timer),
            probe_bytes=probe_bytes,
            decisions=self.decisions,
            offloads=self.offloads,
        )
