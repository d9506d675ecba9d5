"""Stage times: as the daemon runs them before and after a scenario, and as they were within it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.reality.house import House
from benchmarks.reality.plan import DeviceSettings, unhurried
from benchmarks.reality.real_run import RealRun, Say, inside, run_really
from benchmarks.reality.shaping import Shape
from edgeexit.decide.answer import Answer, Drop, Place
from edgeexit.decide.learner import Failed, Replied
from edgeexit.errors import DataError

# How long the daemon runs for its stages, before and after every scenario; some twenty frames each.
STAGES_SECONDS = 4.0
# Frames are never captured as closely as this.
SAME_FRAME_MS = 0.01


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Stage times of whole frames as the daemon itself runs them, around a scenario.

    Shapes: free_ms (N, K); busy_ms (M, K) on the busy board, None for a board that is never busy.
    """

    free_ms: tuple[tuple[float, ...], ...]
    busy_ms: tuple[tuple[float, ...], ...] | None

    def __add__(self, other: StageTimes) -> StageTimes:
        busy_ms = None if self.busy_ms is None or other.busy_ms is None else self.busy_ms + other.busy_ms
        return StageTimes(self.free_ms + other.free_ms, busy_ms)

    @property
    def slowdown(self) -> float:
        """Whole frames on the busy board over free ones; 1 where it was never busy."""
        if self.busy_ms is None:
            return 1.0
        return float(np.mean(np.sum(self.busy_ms, axis=1)) / np.mean(np.sum(self.free_ms, axis=1)))

    @property
    def free_draws(self) -> NDArray[np.float64]:
        """Shapes: (N, K)."""
        return np.asarray(self.free_ms, dtype=np.float64)

    @property
    def busy_draws(self) -> NDArray[np.float64]:
        """On the busy board, less how much slower whole frames are there. Shapes: (M, K)."""
        if self.busy_ms is None:
            return self.free_draws
        return np.asarray(self.busy_ms, dtype=np.float64) / self.slowdown


def daemon_stages(
    house: House, settings: DeviceSettings, folder: Path, say: Say, *, busy: bool
) -> StageTimes:
    """Stage times as the daemon runs them now, free and where wanted `busy`: all stages of every frame."""
    unstirred = unhurried(settings, "always-local", offload=False)

    def times(name: str) -> tuple[tuple[float, ...], ...]:
        run = run_really(house, unstirred, Shape(), folder / name, seconds=STAGES_SECONDS, say=say)
        return whole_frames(run)

    say("the daemon's own stages")
    free_ms = times("stages")
    if not busy:
        return StageTimes(free_ms, None)
    say("the same on the busy board")
    with house.busy():
        return StageTimes(free_ms, times("stages-busy"))


def whole_frames(run: RealRun) -> tuple[tuple[float, ...], ...]:
    """Stage times of the counted frames that ran all stages. Raises: DataError without one."""
    wanted = len(run.started.stage_ms)
    found = [
        tuple(times.values())
        for each in run.noted
        if each.captured_ms >= run.counted_ms and len(times := each.stage_ms) == wanted
    ]
    if not found:
        raise DataError("no frame ran all stages", file="notes.jsonl")
    return tuple(found)


def drawn_work(
    random: np.random.Generator,
    captured_ms: Sequence[float],
    stages: StageTimes,
    busy: Sequence[tuple[float, float]],
    slower: float,
) -> list[list[float]]:
    """Stage times of every frame, drawn from those measured around the run."""
    # The load's trace multiplies by the slowdown; what is drawn here is how stages spread around it.
    free, loaded = stages.free_draws, stages.busy_draws
    work_ms: list[list[float]] = []
    for at_ms in captured_ms:
        draws = loaded if inside(at_ms, busy) else free
        work_ms.append((slower * draws[random.integers(0, len(draws))]).tolist())
    return work_ms


def own_work(
    random: np.random.Generator,
    real: RealRun,
    stages: StageTimes,
    busy: Sequence[tuple[float, float]],
    slower: float,
) -> list[list[float]]:
    """Stage times of every frame as they were in the run; one that did not run takes another frame's time.

    That is drawn from frames under the same load, measured around the run where none of them ran it.
    """
    count = len(real.started.stage_ms)
    took: dict[tuple[float, int], float] = {}
    seen: dict[tuple[bool, int], list[float]] = {}
    for frame in real.noted:
        if frame.captured_ms < real.begin_ms:
            continue
        for stage, (began_ms, ended_ms) in frame.stages.items():
            loaded = inside(began_ms - real.begin_ms, busy)
            # The load's trace multiplies by the slowdown that is in force then.
            work_ms = slower * (ended_ms - began_ms) / (stages.slowdown if loaded else 1.0)
            took[frame.captured_ms, stage] = work_ms
            seen.setdefault((loaded, stage), []).append(work_ms)

    def drawn(loaded: bool, stage: int) -> float:
        values = seen.get((loaded, stage))
        if values is None:
            values = (stages.busy_draws if loaded else stages.free_draws)[:, stage].tolist()
        return values[int(random.integers(0, len(values)))]

    frames = sorted(each.captured_ms for each in real.records if isinstance(each, Answer | Drop))
    # A clock read twice rounds in its last digits.
    known = sorted({captured_ms for captured_ms, _ in took})
    all_ms: list[list[float]] = []
    for captured_ms in frames:
        at = bisect_left(known, captured_ms - SAME_FRAME_MS)
        own = known[at] if at < len(known) and known[at] <= captured_ms + SAME_FRAME_MS else None
        loaded = inside(captured_ms - real.begin_ms, busy)
        all_ms.append(
            [
                took[own, stage] if own is not None and (own, stage) in took else drawn(loaded, stage)
                for stage in range(count)
            ]
        )
    return all_ms


def own_service(
    random: np.random.Generator,
    real: RealRun,
    busy: Sequence[tuple[float, float]],
    gateway_stage_ms: Sequence[float],
    otherwise: Sequence[float],
) -> list[float]:
    """The gateway's time for every frame as it told it in the run, over that of `gateway_stage_ms`.

    How many stages a time is of is known of replies that became answers. Of the others it is as many as fit
    best to the times of those: all at most where there was a reply, fewer than all where there was none, for
    a gateway that has run the last stage replies. Without the requests taken back only quick ones would
    count. A frame of which the gateway told nothing takes the time of another one under the same load of the
    board, which computes on the same processor's other half; where there is none, one of `otherwise`.
    """
    captured_ms = {each.frame: each.captured_ms for each in real.answers}
    exits = {each.frame: each.exit for each in real.answers if each.place is Place.GATEWAY}
    told = [
        note[1]
        for frame in real.noted
        for note in frame.notes
        if isinstance(note, tuple)
        and isinstance(note[1], Replied | Failed)
        and note[1].compute_ms
        and note[1].frame in captured_ms
    ]
    own: dict[float, float] = {}
    seen: dict[bool, list[float]] = {}
    # The surest first: what is taken for usual comes from them.
    for each in sorted(told, key=lambda each: (each.frame not in exits, isinstance(each, Failed))):
        at_ms = captured_ms[each.frame]
        alike = seen.setdefault(inside(at_ms - real.begin_ms, busy), [])
        usual = float(np.median(alike or otherwise))
        whole_ms = np.cumsum(gateway_stage_ms[each.option.boundary :])  # (stages that may have run,)
        ran = exits.get(each.frame, each.option.boundary - 1) - each.option.boundary
        compute_ms = each.compute_ms or 0.0
        if ran < 0:
            may_have_run = whole_ms[: max(1, len(whole_ms) - 1)] if isinstance(each, Failed) else whole_ms
            ran = int(np.argmin(np.abs(np.log(compute_ms / (usual * may_have_run)))))
        own[at_ms] = compute_ms / float(whole_ms[ran])
        alike.append(own[at_ms])
    factors: list[float] = []
    for at_ms in sorted(each.captured_ms for each in real.records if isinstance(each, Answer | Drop)):
        values = seen.get(inside(at_ms - real.begin_ms, busy)) or otherwise
        factors.append(own.get(at_ms, values[int(random.integers(0, len(values)))]))
    return factors
