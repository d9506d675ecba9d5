"""What fixed policies would have made of a run that really happened.

The same frames under the same budgets over the same link, answered from recorded answers and the
run's own measured stage times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgeexit.decide.answer import Answer, Drop, OffloadRecord, Place, Record
from edgeexit.decide.decision import OffloadOption, Policy
from edgeexit.decide.policies.fixed import AlwaysOffload
from edgeexit.decide.policies.local import AlwaysLocal, FirstExit
from edgeexit.errors import DataError
from edgeexit.replay.compute import ComputeTrace
from edgeexit.replay.controller import controller_of
from edgeexit.replay.deadlines import Constant, DeadlineSchedule
from edgeexit.replay.delays import constant_delay
from edgeexit.replay.frames import RunRows, rows_of_outcome
from edgeexit.replay.outages import Outage
from edgeexit.replay.profile import CostProfile
from edgeexit.replay.recording import Recording
from edgeexit.replay.simulator import replay
from edgeexit.replay.traces import LinkTrace
from edgeexit.replay.world import Draws, Scenario, ServerModel, World, draw_costs

# Where no reply came back, the gateway's time is unknown: then the device's own, undivided.
_UNKNOWN_SPEED = 1.0


@dataclass(frozen=True, slots=True)
class RunSetting:
    """The circumstances of a run, all times on the clock of its records.

    Shapes: stage_ms and gateway_stage_ms (K,). Units: stage_ms, medians measured on the board that ran
    (or was played); rtt_ms, of the link without load; link_origin_ms, when the link's trace began;
    overhead_ms, from capture until the loop has a frame, None to take it from the records.
    """

    stage_ms: tuple[float, ...]
    gateway_stage_ms: tuple[float, ...]
    deadlines: DeadlineSchedule
    uplink: LinkTrace
    rtt_ms: float
    link_origin_ms: float = 0.0
    outages: tuple[Outage, ...] = ()
    overhead_ms: float | None = None


FIXED_POLICIES: Mapping[str, type[FirstExit] | type[AlwaysLocal] | type[AlwaysOffload]] = {
    "first-exit": FirstExit,
    "always-local": AlwaysLocal,
    "always-offload": AlwaysOffload,
}


def replay_fixed_policies(
    records: Sequence[Record], recording: Recording, setting: RunSetting, *, seed: int = 0
) -> dict[str, RunRows]:
    """The run's frames under each fixed policy, by its name.

    Frames whose source is not in the recording are left out.
    Raises: DataError when none is in it; ConfigError when recording and setting differ.
    """
    world = _world(records, recording, setting, seed)
    runs: dict[str, RunRows] = {}
    for name, policy in FIXED_POLICIES.items():
        make = _Maker(policy)
        controller = controller_of(make, transport=policy is AlwaysOffload)(world.scenario.profile, recording)
        runs[name] = rows_of_outcome(replay(world, controller))
    return runs


def gateway_stage_times(records: Sequence[Record], stage_ms: Sequence[float]) -> tuple[float, ...]:
    """Stage times of the gateway, from the compute times of its replies; the device's own without any.

    A reply tells the time of all stages from its boundary on; they are shared out as on the device.
    """
    speeds = [
        each.compute_ms / sum(stage_ms[each.boundary :])
        for each in records
        if isinstance(each, OffloadRecord) and each.compute_ms is not None and each.compute_ms > 0.0
    ]
    speed = float(np.median(speeds)) if speeds else _UNKNOWN_SPEED
    return tuple(speed * each for each in stage_ms)


def seen_overhead_ms(records: Sequence[Record], stage_ms: Sequence[float]) -> float:
    """What a frame costs outside its stages: the median over local answers that no timer emitted.

    It counts decoding, preprocessing, hand-overs and decisions; 0 where nothing tells.
    """
    over = [
        each.latency_ms - sum(stage_ms[: each.stages_run])
        for each in records
        if isinstance(each, Answer)
        and each.place is Place.DEVICE
        and each.offloads == 0
        and each.reason != "deadline"
    ]
    return max(0.0, float(np.median(over))) if over else 0.0


def seen_deadlines(records: Sequence[Record]) -> DeadlineSchedule:
    """The budgets that the answers of a run were given, for runs whose schedule is not at hand.

    Raises: DataError without an answer.
    """
    answers = sorted(
        (each for each in records if isinstance(each, Answer)), key=lambda answer: answer.captured_ms
    )
    if not answers:
        raise DataError("budgets are unknown", file="records", why="there is no answer among the records")
    starts, budgets = [0.0], [answers[0].deadline_ms]
    for answer in answers:
        if answer.captured_ms > starts[-1] and answer.deadline_ms != budgets[-1]:
            starts.append(answer.captured_ms)
            budgets.append(answer.deadline_ms)
    return DeadlineSchedule(starts, budgets)


class _Maker:
    """Makes one policy, whatever the costs."""

    def __init__(self, policy: type[FirstExit] | type[AlwaysLocal] | type[AlwaysOffload]) -> None:
        self._policy = policy

    def __call__(self, profile: CostProfile, recording: Recording) -> Policy:
        return self._policy()


def _world(records: Sequence[Record], recording: Recording, setting: RunSetting, seed: int) -> World:
    samples = {source: sample for sample, source in enumerate(recording.sources)}
    frames = sorted(
        (each.captured_ms, samples[each.source])
        for each in records
        if isinstance(each, (Answer, Drop)) and each.source in samples
    )
    if not frames:
        raise DataError(
            "the run cannot be replayed",
            file=recording.note.name,
            why="no frame of it is in the recording",
            fix="record the images that were run",
        )
    captured_ms = [at_ms for at_ms, _ in frames]
    overhead_ms = setting.overhead_ms
    if overhead_ms is None:
        overhead_ms = seen_overhead_ms(records, setting.stage_ms)
    profile = replace(
        profile_of(recording, "run", setting.stage_ms, setting.gateway_stage_ms),
        overhead_ms=overhead_ms,
        decision_ms=0.0,  # decisions are part of the overhead that was seen
    )
    scenario = Scenario(
        name="recorded-run",
        profile=profile,
        frames=len(frames),
        period_ms=max(1.0, (captured_ms[-1] - captured_ms[0]) / max(1, len(frames) - 1)),
        deadlines=Constant(setting.deadlines.latency_ms(captured_ms[0])),
        uplink=setting.uplink,
        delay=constant_delay(setting.rtt_ms),
        server=ServerModel(sigma=0.1, slow_probability=0.0),
        outages=setting.outages,
    )
    random = np.random.default_rng(seed)
    draws = Draws(
        samples=[sample for _, sample in frames],
        captured_ms=captured_ms,
        deadlines=setting.deadlines,
        compute=ComputeTrace(1000.0, (1.0,)),
        offset_ms=-setting.link_origin_ms % setting.uplink.period_ms,
        costs=draw_costs(random, len(frames), profile, scenario.delay, scenario.server),
    )
    return World(scenario, recording, seed, draws)


def profile_of(
    recording: Recording,
    name: str,
    stage_ms: Sequence[float],
    gateway_stage_ms: Sequence[float],
    *,
    encode_factor: float = 1.0,
) -> CostProfile:
    """Costs of a recorded network elsewhere; encoding takes `encode_factor` times what it took there."""
    options = tuple(
        OffloadOption(
            boundary=each.boundary,
            codec=each.codec,
            payload_bytes=each.payload_bytes,
            encode_ms=each.encode_ms * encode_factor,
            quality_cost=each.quality_cost,
        )
        for each in recording.note.options
    )
    return CostProfile(name, tuple(stage_ms), tuple(gateway_stage_ms), options, tuple(range(len(options))))
