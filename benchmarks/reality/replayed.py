"""The same run in replay: its frames, budgets, link, outage and load, on costs measured in isolation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

import numpy as np

from benchmarks.reality.isolation import Isolated
from benchmarks.reality.noting import FrameNotes, Noted, by_frame
from benchmarks.reality.plan import PACKET_BYTES, PAYLOAD_SHARE, DeviceSettings, Plan, smallest_payload
from benchmarks.reality.real_run import CUT, RESTORED, RealRun, busy_stretches, inside
from benchmarks.reality.shaping import RESTART_MS, Delays, next_retransmission_ms, stall_ms
from benchmarks.reality.stages import StageTimes, drawn_work, own_service, own_work
from benchmarks.reality.waking import Waking
from edgeexit.decide.answer import Answer, Drop
from edgeexit.decide.decision import OffloadOption
from edgeexit.decide.latency import LatencyModel
from edgeexit.decide.link import LinkEstimator
from edgeexit.device.config import PolicyConfig
from edgeexit.device.policy import choose_policy
from edgeexit.errors import DataError
from edgeexit.replay.compute import ComputeTrace
from edgeexit.replay.controller import Controller
from edgeexit.replay.deadlines import Constant, DeadlineSchedule
from edgeexit.replay.delays import constant_delay
from edgeexit.replay.frames import RunRows, rows_of_outcome
from edgeexit.replay.outages import Outage, OutageKind
from edgeexit.replay.pool import Fleet
from edgeexit.replay.recorded_run import profile_of
from edgeexit.replay.recording import Recording
from edgeexit.replay.simulator import replay_fleet
from edgeexit.replay.traces import LinkTrace, read_trace
from edgeexit.replay.world import ATTEMPTS, CostDraws, Draws, Scenario, World

# Chance in a replay is which measured stage time a frame meets; so many draws are taken together.
SEEDS = 9
# Half of what the first window and its acknowledgement take: over so long the rate of a link is looked at.
RATE_WINDOW_MS = 20.0
# The load of a board in steps of this length.
LOAD_STEP_MS = 10.0


@dataclass(frozen=True, slots=True)
class Charged:
    """Which measured overheads a replay is charged with: all, unless one is to be known by its lack.

    `encoding` is what the daemon needs to encode and hand over a payload; without it, what encoding takes
    in a loop. `own_times` gives every stage, here and at the gateway, the time that it took in the real run,
    and those that did not run there the time of another frame's; without it, all are drawn from those
    measured before it, and the device's after it as well.
    `slower` and `exchange_more_ms` are errors put in on purpose, to learn what one of that size does.
    """

    overhead: bool = True
    encoding: bool = True
    results: bool = True
    envelope: bool = True
    hand_over: bool = True
    reconnect: bool = True
    restart: bool = True
    waking: bool = True
    own_times: bool = True
    slower: float = 1.0
    exchange_more_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Replayed:
    """One replay: what became of the frames, and the notes of the policy about them."""

    rows: RunRows
    noted: tuple[FrameNotes, ...]


def restart_after_pause_ms(at_ms: float, rtt_ms: float, trace: LinkTrace, settings: DeviceSettings) -> float:
    """What TCP costs the smallest payload, which nearly all are, after a pause: arithmetic, not measured.

    Units: at_ms, on the trace, whose rates count payload; rtt_ms, of the link without anything else.
    """
    payload_bytes = smallest_payload(settings.subject.bundle)
    at_ms %= trace.period_ms
    carried = trace.carried_bytes(at_ms + RATE_WINDOW_MS) - trace.carried_bytes(at_ms)
    segment_bytes = PACKET_BYTES * PAYLOAD_SHARE
    segment_ms = segment_bytes * RATE_WINDOW_MS / max(carried, segment_bytes)
    return stall_ms(ceil(payload_bytes / segment_bytes), segment_ms=segment_ms, rtt_ms=rtt_ms)


def mean_restart_ms(real: RealRun, plan: Plan, settings: DeviceSettings) -> float:
    """The same, on average over the frames of a run."""
    trace = read_trace(Path(plan.shape.up_trace or ""), scale=PAYLOAD_SHARE)
    up, down = _delays(plan)
    all_ms = [each.captured_ms - real.link_after.origin_ms for each in real.answers]
    return float(
        np.mean(
            [restart_after_pause_ms(at, up.at(at) + down.at(at), trace, settings) for at in all_ms] or [0.0]
        )
    )


def replay_run(
    real: RealRun,
    plan: Plan,
    settings: DeviceSettings,
    recording: Recording,
    isolated: Isolated,
    stages: StageTimes,
    waking: Waking,
    *,
    charged: Charged,
) -> list[Replayed]:
    """The run's frames in replay, once a seed. Raises: DataError, ConfigError."""
    runs: list[Replayed] = []
    for seed in range(SEEDS):
        world = _world(real, plan, settings, recording, isolated, stages, waking, charged, seed)
        manifest = settings.subject.bundle.manifest
        policy = Noted(choose_policy(PolicyConfig(), manifest, real.started.variants))
        # The daemon has measured its stages when it started, as it always does.
        controller = Controller(policy, LatencyModel(real.started.stage_ms), LinkEstimator())
        # A gateway that refuses what cannot be in time, and ends where time runs out, as the real one does.
        rows = rows_of_outcome(replay_fleet([world], [controller], Fleet(1))[0])
        runs.append(Replayed(rows, tuple(by_frame(policy.notes))))
    return runs


def _world(
    real: RealRun,
    plan: Plan,
    settings: DeviceSettings,
    recording: Recording,
    isolated: Isolated,
    stages: StageTimes,
    waking: Waking,
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
    profile = profile_of(recording, plan.name, real.started.stage_ms, isolated.gateway_stage_ms)
    profile = replace(
        profile,
        options=_encoded(profile.options, isolated) if charged.encoding else profile.options,
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
        delay=replace(constant_delay(2.0 * plan.shape.delay_ms), wakes_after_ms=RESTART_MS),
        outages=_outages(real, settings, charged),
        byte_price=settings.byte_price,
    )
    random = np.random.default_rng([seed, 5])
    busy = busy_stretches(real)
    draws = Draws(
        samples=[sample for _, sample in frames],
        captured_ms=captured_ms,
        deadlines=_deadlines(real, settings),
        compute=_load(real, busy, stages.slowdown),
        offset_ms=link_ms % trace.period_ms,
        costs=_costs(
            random,
            captured_ms,
            link_ms,
            plan,
            trace,
            settings,
            isolated,
            own_work(random, real, stages, busy, charged.slower)
            if charged.own_times
            else drawn_work(random, captured_ms, stages, busy, charged.slower),
            _service(random, real, busy, isolated, charged),
            waking.draws(random, captured_ms, busy) if charged.waking else None,
            charged,
        ),
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


def _outages(real: RealRun, settings: DeviceSettings, charged: Charged) -> tuple[Outage, ...]:
    at_ms = {each.what: each.at_ms - real.begin_ms for each in real.changes}
    if CUT not in at_ms:
        return ()
    cut_ms, restored_ms = at_ms[CUT], at_ms[RESTORED]
    # Nobody tells the device: it misses the gateway's adverts, as the replay does by itself. What is lost
    # first is the result of the next frame, or half a period later than the cut on average.
    end_ms = next_retransmission_ms(cut_ms + 0.5 * settings.period_ms, restored_ms)
    return (Outage(cut_ms, end_ms if charged.reconnect else restored_ms, OutageKind.LINK),)


def _load(real: RealRun, busy: Sequence[tuple[float, float]], slowdown: float) -> ComputeTrace:
    if not busy:
        return ComputeTrace(1000.0, (1.0,))
    steps = int((real.end_ms - real.begin_ms + 10_000.0) / LOAD_STEP_MS)
    return ComputeTrace(
        LOAD_STEP_MS, [slowdown if inside(index * LOAD_STEP_MS, busy) else 1.0 for index in range(steps)]
    )


def _encoded(options: Sequence[OffloadOption], isolated: Isolated) -> tuple[OffloadOption, ...]:
    """The same options, encoded in the daemon's time."""
    took_ms = {(each.boundary, each.codec): each.encode_ms for each in isolated.options}
    return tuple(
        replace(each, encode_ms=took_ms.get((each.boundary, each.codec), each.encode_ms)) for each in options
    )


def _service(
    random: np.random.Generator,
    real: RealRun,
    busy: Sequence[tuple[float, float]],
    isolated: Isolated,
    charged: Charged,
) -> list[float]:
    """The gateway's time for every frame, over its median before the run."""
    measured = np.asarray(isolated.service_ms) / float(np.median(isolated.service_ms))
    if charged.own_times:
        return own_service(random, real, busy, isolated.gateway_stage_ms, measured.tolist())
    frames = sum(isinstance(each, Answer | Drop) for each in real.records)
    drawn: list[float] = random.choice(measured, frames).tolist()
    return drawn


def _costs(
    random: np.random.Generator,
    captured_ms: Sequence[float],
    link_ms: float,
    plan: Plan,
    trace: LinkTrace,
    settings: DeviceSettings,
    isolated: Isolated,
    work_ms: list[list[float]],
    service_factor: list[float],
    waking_ms: list[float] | None,
    charged: Charged,
) -> CostDraws:
    """Round trips of every frame, drawn from what was measured, beside all else that it takes."""
    up, down = _delays(plan)
    hand_over = random.choice(np.asarray(isolated.hand_over_ms), len(captured_ms) * ATTEMPTS)
    rtt_ms: list[float] = []
    rested_ms: list[float] = []
    for index, extra_ms in enumerate(hand_over.tolist()):
        # Delays follow time: a frame meets the one that was in force when it really was there.
        at_ms = link_ms + captured_ms[index // ATTEMPTS]
        link_rtt_ms = up.at(at_ms) + down.at(at_ms)
        handed_ms = extra_ms if charged.hand_over else 0.0
        rtt_ms.append(link_rtt_ms + handed_ms + charged.exchange_more_ms)
        restart_ms = restart_after_pause_ms(at_ms, link_rtt_ms, trace, settings) if charged.restart else 0.0
        rested_ms.append(rtt_ms[-1] + restart_ms)
    # Frames take these from the beginning, probes from the end: those are too small to wait for a window.
    return CostDraws(
        work_ms=work_ms,
        rtt_idle_ms=rested_ms + rtt_ms,
        rtt_busy_ms=rtt_ms + rtt_ms,
        service_factor=service_factor,
        waking_ms=waking_ms,
    )


def _delays(plan: Plan) -> tuple[Delays, Delays]:
    """What the shaper draws, both ways."""
    shape = plan.shape
    return (
        Delays(shape.delay_ms, shape.jitter_ms, shape.seed),
        Delays(shape.delay_ms, shape.jitter_ms, shape.seed + 1),
    )
