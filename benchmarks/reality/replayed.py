"""The same run in replay: its frames, budgets, link, outage and load, on costs measured in isolation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.reality.isolation import Isolated
from benchmarks.reality.links import PAYLOAD_SHARE
from benchmarks.reality.plan import Plan
from benchmarks.reality.real_run import BUSY, CUT, RESTORED, DeviceSettings, RealRun
from benchmarks.reality.shaping import Delays
from edgeexit.decide.answer import Answer, Drop, OffloadOutcome
from edgeexit.decide.latency import LatencyModel
from edgeexit.decide.link import LinkEstimator
from edgeexit.device.config import PolicyConfig
from edgeexit.device.policy import choose_policy
from edgeexit.errors import DataError
from edgeexit.replay.compute import ComputeTrace
from edgeexit.replay.controller import Controller
from edgeexit.replay.deadlines import Constant, DeadlineSchedule
from edgeexit.replay.delays import constant_delay
from edgeexit.replay.frames import FrameRow, RunRows, rows_of_outcome
from edgeexit.replay.outages import Outage, OutageKind
from edgeexit.replay.outcome import OffloadCount
from edgeexit.replay.recorded_run import profile_of
from edgeexit.replay.recording import Recording
from edgeexit.replay.simulator import replay
from edgeexit.replay.traces import read_trace
from edgeexit.replay.world import ATTEMPTS, CostDraws, Draws, Scenario, World

# Chance in a replay is which measured stage time a frame meets; so many draws are taken together.
SEEDS = 5
# Linux waits 200 ms more than the smoothed round trip, some 25 ms here, then twice that, at most two minutes.
RETRANSMISSION_MS = 225.0
RETRANSMISSION_CAP_MS = 120_000.0
# An offload that was lost with the link had been captured at most so long before.
LOST_BEFORE_MS = 500.0
# Percentiles of fewer frames would tell nothing.
FEWEST = 10
# The load of a board in steps of this length.
LOAD_STEP_MS = 10.0


@dataclass(frozen=True, slots=True)
class Charged:
    """Which measured overheads a replay is charged with: all, unless one is to be known by its lack."""

    overhead: bool = True
    results: bool = True
    envelope: bool = True
    hand_over: bool = True
    reconnect: bool = True


@dataclass(frozen=True, slots=True)
class Reconnection:
    """What an outage did to the connection.

    Units: ms; noticed_ms, from its start until the device knew, None where it never did; told_ms, from its
    end until the device was told that the link is up; resumed_ms, from its end until TCP sends again what
    was lost, by its rule of doubling.
    """

    noticed_ms: float | None
    told_ms: float
    resumed_ms: float


def reconnection(real: RealRun) -> Reconnection | None:
    """How the connection came through the outage of a run; None without one."""
    cut_ms = next((each.at_ms for each in real.changes if each.what == CUT), None)
    restored_ms = next((each.at_ms for each in real.changes if each.what == RESTORED), None)
    if cut_ms is None or restored_ms is None:
        return None
    answers = real.answers
    lost = {each.frame for each in real.offloads if each.outcome is OffloadOutcome.FAILED}
    lost_ms = [each.captured_ms for each in answers if each.frame in lost]
    # What was on its way when the link was cut, or the first that was sent afterwards.
    first_lost_ms = next((at_ms for at_ms in lost_ms if at_ms > cut_ms - LOST_BEFORE_MS), None)
    resumed_ms = 0.0
    if first_lost_ms is not None:
        resumed_ms = next_retransmission_ms(max(first_lost_ms, cut_ms), restored_ms) - restored_ms
    down = [each.captured_ms for each in answers if each.captured_ms >= cut_ms and not each.link_up]
    if not down or down[0] >= restored_ms:
        return Reconnection(None, 0.0, resumed_ms)
    up = [each.captured_ms for each in answers if each.captured_ms >= restored_ms and each.link_up]
    told_ms = (up[0] if up else real.end_ms) - restored_ms
    return Reconnection(down[0] - cut_ms, told_ms, resumed_ms)


def next_retransmission_ms(lost_ms: float, restored_ms: float) -> float:
    """When TCP next sends a segment that was lost, at or after `restored_ms`: each wait is twice the last."""
    wait_ms, at_ms = RETRANSMISSION_MS, lost_ms
    while (at_ms := at_ms + wait_ms) < restored_ms:
        wait_ms = min(2.0 * wait_ms, RETRANSMISSION_CAP_MS)
    return at_ms


@dataclass(frozen=True, slots=True)
class Drift:
    """How much longer frames took that this board answered alone, all stages, free of load, than measured.

    Units: p50 and p95, ratios to stages and overhead as they were measured in isolation.
    """

    frames: int
    p50: float
    p95: float


def drift(real: RealRun, isolated: Isolated) -> Drift | None:
    """How the board of a run differs from the board as measured; None where too few frames tell."""
    busy = _busy(real)
    expected_ms = isolated.full_ms + isolated.overhead_ms
    ratios = [
        each.latency_ms / expected_ms
        for each in real.answers
        if each.captured_ms >= real.counted_ms
        and each.offloads == 0
        and each.stages_run == len(isolated.stage_ms)
        and each.reason != "deadline"
        and not _inside(each.captured_ms - real.begin_ms, busy)
    ]
    if len(ratios) < FEWEST:
        return None
    p50, p95 = (round(float(value), 3) for value in np.percentile(ratios, [50, 95]))
    return Drift(len(ratios), p50, p95)


def replay_run(
    real: RealRun,
    plan: Plan,
    settings: DeviceSettings,
    recording: Recording,
    isolated: Isolated,
    *,
    charged: Charged,
) -> list[RunRows]:
    """The run's frames in replay, once a seed. Raises: DataError, ConfigError."""
    runs: list[RunRows] = []
    for seed in range(SEEDS):
        world = _world(real, plan, settings, recording, isolated, charged, seed)
        manifest = settings.subject.bundle.manifest
        controller = Controller(
            choose_policy(PolicyConfig(), manifest, real.started.variants),
            LatencyModel(isolated.stage_ms),
            LinkEstimator(),
        )
        runs.append(rows_of_outcome(replay(world, controller)))
    return runs


def pooled(runs: Sequence[RunRows]) -> RunRows:
    """All frames of several runs as one; fractions and percentiles are then of all of them."""
    rows: list[FrameRow] = [row for run in runs for row in run.rows]
    count = OffloadCount()
    for run in runs:
        count.sent += run.offloads.sent
        count.used += run.offloads.used
        count.unused += run.offloads.unused
        count.late += run.offloads.late
        count.failed += run.offloads.failed
        count.probes += run.offloads.probes
    return RunRows(runs[0].name, tuple(rows), count)


def _world(
    real: RealRun,
    plan: Plan,
    settings: DeviceSettings,
    recording: Recording,
    isolated: Isolated,
    charged: Charged,
    seed: int,
) -> World:
    """Time 0 is the capture of the first frame that counts."""
    begin_ms = real.begin_ms
    samples = {source: sample for sample, source in enumerate(recording.sources)}
    frames = sorted(
        (each.captured_ms - begin_ms, samples[each.source])
        for each in real.records
        if isinstance(each, Answer | Drop)
    )
    if not frames or plan.shape.up_trace is None:
        raise DataError("the run cannot be replayed", file=plan.name, why="it has no frame, or no trace")
    captured_ms = [at_ms for at_ms, _ in frames]
    profile = profile_of(recording, plan.name, isolated.stage_ms, isolated.gateway_stage_ms)
    profile = replace(
        profile,
        decision_ms=isolated.decision_ms,
        overhead_ms=isolated.overhead_ms if charged.overhead else 0.0,
        # Link traces are in payload bytes below: so is what shares the link with them.
        result_bytes=round(isolated.result_bytes * PAYLOAD_SHARE) if charged.results else 0,
        envelope_bytes=isolated.envelope_bytes if charged.envelope else 0,
    )
    link_ms = begin_ms - real.link_after.origin_ms
    # The shaper's trace carries whole packets; the replay's carries what is in them.
    trace = read_trace(Path(plan.shape.up_trace), scale=PAYLOAD_SHARE)
    scenario = Scenario(
        name=plan.name,
        profile=profile,
        frames=len(frames),
        period_ms=settings.period_ms,
        deadlines=Constant(settings.budgets[0][1]),
        uplink=trace,
        delay=constant_delay(2.0 * plan.shape.delay_ms),
        outages=_outages(real, charged),
        byte_price=settings.byte_price,
    )
    random = np.random.default_rng([seed, 5])
    busy = _busy(real)
    draws = Draws(
        samples=[sample for _, sample in frames],
        captured_ms=captured_ms,
        deadlines=_deadlines(real, settings),
        compute=_load(real, busy, isolated.busy_slowdown),
        offset_ms=link_ms % trace.period_ms,
        costs=_costs(random, captured_ms, link_ms, plan, isolated, busy, charged),
    )
    return World(scenario, recording, seed, draws)


def _deadlines(real: RealRun, settings: DeviceSettings) -> DeadlineSchedule:
    """The daemon's schedule of budgets, from the first frame that counts to the last."""
    since_ms = real.begin_ms - real.started.started_ms
    length_ms = real.end_ms - real.begin_ms + 10_000.0
    starts, budgets = [0.0], [settings.budgets[0][1]]
    cycle = int(since_ms // settings.budget_period_ms)
    while True:
        for start_ms, latency_ms in settings.budgets:
            at_ms = cycle * settings.budget_period_ms + start_ms - since_ms
            if at_ms > length_ms:
                return DeadlineSchedule(starts, budgets)
            if at_ms <= 0.0:
                budgets[0] = latency_ms
            else:
                starts.append(at_ms)
                budgets.append(latency_ms)
        cycle += 1


def _outages(real: RealRun, charged: Charged) -> tuple[Outage, ...]:
    seen = reconnection(real)
    if seen is None:
        return ()
    cut_ms, restored_ms = (
        next(each.at_ms for each in real.changes if each.what == what) - real.begin_ms
        for what in (CUT, RESTORED)
    )
    # Nobody tells the device: it misses the gateway's adverts, as the replay does by itself.
    back_ms = seen.resumed_ms if charged.reconnect else 0.0
    return (Outage(cut_ms, restored_ms + back_ms, OutageKind.LINK),)


def _busy(real: RealRun) -> list[tuple[float, float]]:
    """Stretches in which the board was busy, from the first frame that counts."""
    stretches: list[tuple[float, float]] = []
    since_ms: float | None = None
    for change in real.changes:
        at_ms = change.at_ms - real.begin_ms
        if change.what == BUSY:
            since_ms = at_ms
        elif since_ms is not None:
            stretches.append((since_ms, at_ms))
            since_ms = None
    return stretches


def _load(real: RealRun, busy: Sequence[tuple[float, float]], slowdown: float) -> ComputeTrace:
    if not busy:
        return ComputeTrace(1000.0, (1.0,))
    steps = int((real.end_ms - real.begin_ms + 10_000.0) / LOAD_STEP_MS)
    return ComputeTrace(
        LOAD_STEP_MS, [slowdown if _inside(index * LOAD_STEP_MS, busy) else 1.0 for index in range(steps)]
    )


def _inside(at_ms: float, stretches: Sequence[tuple[float, float]]) -> bool:
    return any(begin <= at_ms < end for begin, end in stretches)


def _costs(
    random: np.random.Generator,
    captured_ms: Sequence[float],
    link_ms: float,
    plan: Plan,
    isolated: Isolated,
    busy: Sequence[tuple[float, float]],
    charged: Charged,
) -> CostDraws:
    """Stage times, round trips and service times of every frame, drawn from what was measured."""
    shape = plan.shape
    up = Delays(shape.delay_ms, shape.jitter_ms, shape.seed)
    down = Delays(shape.delay_ms, shape.jitter_ms, shape.seed + 1)
    idle = np.asarray(isolated.samples_ms)
    loaded = idle
    if isolated.busy_samples_ms is not None:
        # The load's trace multiplies by the slowdown; what is drawn here is how stages spread around it.
        loaded = isolated.busy_spread
    work_ms = [
        (loaded if _inside(at_ms, busy) else idle)[random.integers(0, len(idle))].tolist()
        for at_ms in captured_ms
    ]
    hand_over = random.choice(np.asarray(isolated.hand_over_ms), len(captured_ms) * ATTEMPTS)
    rtt_ms: list[float] = []
    for index, extra_ms in enumerate(hand_over.tolist()):
        # Delays follow time: a frame meets the one that was in force when it really was there.
        at_ms = link_ms + captured_ms[index // ATTEMPTS]
        rtt_ms.append(up.at(at_ms) + down.at(at_ms) + (extra_ms if charged.hand_over else 0.0))
    service = random.choice(np.asarray(isolated.service_ms), len(captured_ms))
    factor = service / float(np.median(isolated.service_ms))
    return CostDraws(work_ms=work_ms, rtt_idle_ms=rtt_ms, rtt_busy_ms=rtt_ms, service_factor=factor.tolist())
