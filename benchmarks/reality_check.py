"""Reality check: the same scenario once for real and once in replay, compared.

    python -m benchmarks.reality_check [--seconds S] [--seed N] [--traces DIR] [--only NAME ...]

For real: the device daemon in a network namespace of its own; broker and gateway in another; between them
a shaper with the rates, delays and outages of the scenario; processor time through control groups. In
replay: the same frames, budgets, link and load, on costs measured apart. It needs root, `ip`, TUN devices
and a cpu controller; nothing of it leaves this machine, and everything is removed at the end.

Targets: every scenario accepted, `agrees` true throughout. docs/reality_check.md explains what differs.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

import numpy as np

from benchmarks._vit_tiny import BUILD
from benchmarks.reality.compare import (
    Bounds,
    Differences,
    Figures,
    agreement,
    differences,
    figures_of,
    worst_points,
)
from benchmarks.reality.house import House
from benchmarks.reality.isolation import Isolated, isolate, measure_stages, record_subject
from benchmarks.reality.namespaces import require_root
from benchmarks.reality.plan import (
    BUSY_SHARE,
    COMPUTING,
    NAMES,
    PLAYED,
    Plan,
    computing_plans,
    pace_of,
    played_plans,
    rate_mbps,
    smallest_payload,
    trace_plans,
)
from benchmarks.reality.real_run import SETTLE_S, RealRun, run_really, settings_of
from benchmarks.reality.replayed import (
    SEEDS,
    Charged,
    Drift,
    Reconnection,
    drift,
    pooled,
    reconnection,
    replay_run,
)
from benchmarks.reality.subjects import Subject, computing_subject, played_subject
from benchmarks.results import publish
from edgeexit.errors import ConfigError, EdgeExitError
from edgeexit.replay.frames import RunRows, rows_of_records
from edgeexit.replay.recording import Recording

WORK = BUILD.parent / "reality_check"
DEMO = BUILD.parent / "demo"
SECONDS = 65.0
# A packet that is this late may cost one frame in several hundred; beyond it a run says nothing.
LATENESS_BOUND_MS = 40.0
LATE_SHARE_BOUND = 0.01
# So many runs that were rejected are done once more: what made packets late may be over.
SPARE_RUNS = 1

# Replays that are charged with all overheads but one, to tell what that one explains.
LACKING = {
    "overhead_ms": Charged(overhead=False),
    "result_bytes": Charged(results=False),
    "envelope_bytes": Charged(envelope=False),
    "hand_over_ms": Charged(hand_over=False),
    "reconnect_ms": Charged(reconnect=False),
    "all": Charged(False, False, False, False, False),
}


@dataclass(frozen=True, slots=True)
class ShaperFigures:
    """How well the shaper kept to its link. Units: worst_lateness_ms; late_share, over 4 ms late."""

    worst_lateness_ms: float
    late_share: float
    priority: str
    queue_drops: int


@dataclass(frozen=True, slots=True)
class SubjectFigures:
    """What was measured of a subject apart from the scenarios. Units: as in Isolated; medians."""

    about: str
    factor: float | None
    stage_ms: tuple[float, ...]
    wall_stage_ms: tuple[float, ...]
    overhead_ms: float
    decision_ms: float
    result_bytes: int
    envelope_bytes: int
    hand_over_ms: float
    hand_over_p90_ms: float
    service_ms: float
    busy_slowdown: float | None


@dataclass(frozen=True, slots=True)
class Row:
    """One scenario.

    `without` holds how far reality and replay would be apart, in points, were one measured overhead not
    charged. `spread_points` is how far the replays of different draws are from each other. `drift` tells how
    much slower the board was during the run than when it was measured.
    """

    name: str
    subject: str
    link: str
    seconds: float
    accepted: bool
    real: Figures
    replayed: Figures
    differences: Differences
    agrees: dict[str, bool]
    spread_points: float
    without: dict[str, float]
    reconnection: Reconnection | None
    drift: Drift | None
    shaper: ShaperFigures


@dataclass(frozen=True, slots=True)
class Result:
    """Units: points, hundredths of all frames; lateness_bound_ms, beyond which a run is rejected."""

    worst_difference_points: float
    agrees: bool
    accepted: bool
    scenarios: tuple[Row, ...]
    bounds: Bounds
    lateness_bound_ms: float
    late_share_bound: float
    subjects: dict[str, SubjectFigures]
    broker: str
    congestion_control: str | None
    contention: str
    seed: int


@dataclass(frozen=True, slots=True)
class Ready:
    """A subject with all that was measured of it."""

    kind: str
    subject: Subject
    state: Path
    recording: Recording
    isolated: Isolated


def main() -> None:
    """Run the check and publish."""
    parser = argparse.ArgumentParser(description="the same scenario for real and in replay")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each scenario")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--traces", type=Path, help="also run traces of this folder")
    parser.add_argument("--only", nargs="*", help="scenarios to run: steady mobile outage contention")
    parser.add_argument("--demo", type=Path, default=DEMO, help="where `edgeexit demo` keeps what it made")
    parser.add_argument("--lateness-ms", type=float, default=LATENESS_BOUND_MS)
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        result = check(
            seconds=options.seconds,
            seed=options.seed,
            traces=options.traces,
            only=options.only,
            demo=options.demo,
            lateness_ms=options.lateness_ms,
        )
    except EdgeExitError as error:
        fix = "" if error.fix is None else f"\n  fix: {error.fix}"
        sys.exit(f"error: {error}{fix}")
    except KeyboardInterrupt:
        sys.exit("interrupted; everything was removed")
    publish("reality_check", result)


def check(
    *,
    seconds: float,
    seed: int,
    traces: Path | None,
    only: Sequence[str] | None,
    demo: Path,
    lateness_ms: float,
) -> Result:
    """All scenarios. Raises: EdgeExitError, with the fix, where this machine cannot do it."""
    require_root()
    WORK.mkdir(parents=True, exist_ok=True)
    say, spare = Say(), Spare(SPARE_RUNS)
    subjects = _subjects(only, traces, demo, say)
    say("house", "namespaces, shaper, control groups, broker, gateway")
    with House(WORK, [each.bundle for each in subjects.values()]) as house:
        rows: list[Row] = []
        measured: dict[str, SubjectFigures] = {}
        for kind, subject in subjects.items():
            ready = _get_ready(house, kind, subject, say)
            measured[subject.name] = _subject_figures(ready)
            plans = _plans(ready, seconds, seed, traces, only)
            rows += [_row(house, plan, ready, lateness_ms, spare, say) for plan in plans]
        return Result(
            worst_difference_points=max(worst_points(row.differences) for row in rows),
            agrees=all(all(row.agrees.values()) for row in rows),
            accepted=all(row.accepted for row in rows),
            scenarios=tuple(rows),
            bounds=Bounds(),
            lateness_bound_ms=lateness_ms,
            late_share_bound=LATE_SHARE_BOUND,
            subjects=measured,
            broker=house.broker_kind,
            congestion_control=house.namespaces.congestion_control,
            contention=f"{house.device_group.kind}, {BUSY_SHARE:g} of a core",
            seed=seed,
        )


def _subjects(only: Sequence[str] | None, traces: Path | None, demo: Path, say: Say) -> dict[str, Subject]:
    """The subjects that the wanted scenarios need. Raises: ConfigError for a name that is none."""
    known = [name for names in NAMES.values() for name in names]
    for name in only or ():
        if name not in known:
            raise ConfigError(f"no scenario {name}", key="only", fix=f"known: {', '.join(known)}")
    subjects: dict[str, Subject] = {}
    for kind, names in NAMES.items():
        if only is None or set(only) & set(names) or (traces is not None and kind == PLAYED):
            say("subject", f"bundle and images of the {kind} board")
            subjects[kind] = played_subject(demo, WORK) if kind == PLAYED else computing_subject(WORK)
    return subjects


def _plans(
    ready: Ready, seconds: float, seed: int, traces: Path | None, only: Sequence[str] | None
) -> list[Plan]:
    mbps = rate_mbps(ready.subject.bundle, ready.isolated.full_ms)
    if ready.kind == COMPUTING:
        plans = computing_plans(WORK, mbps=mbps, seconds=seconds)
    else:
        plans = played_plans(WORK, mbps=mbps, seconds=seconds, seed=seed)
    if only is not None:
        plans = [plan for plan in plans if plan.name in only]
    if traces is not None and ready.kind == PLAYED:
        plans += trace_plans(traces, WORK, mbps=mbps, seconds=seconds, seed=seed)
    return plans


def _get_ready(house: House, kind: str, subject: Subject, say: Say) -> Ready:
    """Everything about a subject that is measured apart from the scenarios."""
    folder = WORK / subject.name
    state = folder / "state"
    state.mkdir(parents=True, exist_ok=True)
    say(subject.name, "stage times in isolation")
    measured = measure_stages(house, subject, state)
    say(subject.name, f"recording {len(subject.truth)} images")
    recording = record_subject(subject, state)
    isolated = isolate(
        house,
        subject,
        kind,
        measured,
        recording,
        state,
        folder,
        busy=kind == COMPUTING,
        say=say.about(subject.name),
    )
    return Ready(kind, subject, state, recording, isolated)


def _row(house: House, plan: Plan, ready: Ready, lateness_ms: float, spare: Spare, say: Say) -> Row:
    """Run one scenario for real, again where the shaper was late, then in replay."""
    pace = pace_of(ready.kind, ready.isolated.full_ms)
    settings = settings_of(ready.subject, ready.state, ready.isolated.factor, pace)
    while True:
        folder = WORK / ready.subject.name / plan.name.replace(" ", "-")
        real = run_really(
            house, settings, plan.shape, folder, seconds=plan.seconds, say=say.about(plan.name), plan=plan
        )
        shaper = _shaper_figures(real)
        accepted = shaper.worst_lateness_ms <= lateness_ms and shaper.late_share <= LATE_SHARE_BOUND
        if accepted or not spare.take():
            break
        say(plan.name, f"rejected, once more: a packet was {shaper.worst_lateness_ms:.0f} ms late")

    def replays(charged: Charged) -> list[RunRows]:
        return replay_run(real, plan, settings, ready.recording, ready.isolated, charged=charged)

    runs = replays(Charged())
    compare = partial(differences, payload_bytes=smallest_payload(ready.subject.bundle))
    rows = rows_of_records("real", real.records, ready.subject.truth)
    truly = figures_of(rows, counted_ms=real.counted_ms)
    settle_ms = 1000.0 * SETTLE_S
    replayed = figures_of(pooled(runs), counted_ms=settle_ms, runs=SEEDS)
    apart = compare(truly, replayed)
    each = [figures_of(run, counted_ms=settle_ms) for run in runs]
    seen = reconnection(real)
    row = Row(
        name=plan.name,
        subject=ready.subject.name,
        link=plan.about,
        seconds=plan.seconds,
        accepted=accepted,
        real=truly,
        replayed=replayed,
        differences=apart,
        agrees=agreement(truly, apart, Bounds()),
        spread_points=max(worst_points(compare(one, other)) for one in each for other in each),
        without={
            name: worst_points(compare(truly, figures_of(pooled(replays(charged)), counted_ms=settle_ms)))
            for name, charged in LACKING.items()
        },
        reconnection=seen,
        drift=drift(real, ready.isolated),
        shaper=shaper,
    )
    say(
        plan.name,
        f"on time {truly.on_time_fraction:.3f} and {replayed.on_time_fraction:.3f} in replay, "
        f"right by the deadline {truly.correct_by_deadline_fraction:.3f} and "
        f"{replayed.correct_by_deadline_fraction:.3f}; "
        + (", ".join(name for name, agrees in row.agrees.items() if not agrees) or "nothing")
        + " out of bounds",
    )
    return row


def _shaper_figures(real: RealRun) -> ShaperFigures:
    after = real.link_after
    return ShaperFigures(
        worst_lateness_ms=round(after.worst_lateness_ms, 2),
        late_share=round(after.late_share, 5),
        priority=after.priority,
        queue_drops=after.up.dropped + after.down.dropped,
    )


def _subject_figures(ready: Ready) -> SubjectFigures:
    isolated = ready.isolated
    return SubjectFigures(
        about=ready.subject.about,
        factor=None if isolated.factor is None else round(isolated.factor, 2),
        stage_ms=tuple(round(each, 2) for each in isolated.stage_ms),
        wall_stage_ms=tuple(round(float(each), 2) for each in np.median(isolated.samples_ms, axis=0)),
        overhead_ms=round(isolated.overhead_ms, 2),
        decision_ms=round(isolated.decision_ms, 3),
        result_bytes=isolated.result_bytes,
        envelope_bytes=isolated.envelope_bytes,
        hand_over_ms=round(float(np.median(isolated.hand_over_ms)), 2),
        hand_over_p90_ms=round(float(np.percentile(isolated.hand_over_ms, 90)), 2),
        service_ms=round(float(np.median(isolated.service_ms)), 2),
        busy_slowdown=None if isolated.busy_samples_ms is None else round(isolated.busy_slowdown, 3),
    )


class Spare:
    """Runs that may be done once more, in the whole check."""

    def __init__(self, left: int) -> None:
        self._left = left

    def take(self) -> bool:
        """Take one, where one is left."""
        self._left -= 1
        return self._left >= 0


class Say:
    """Prints a line of progress: seconds since the start, the part, what it does."""

    def __init__(self) -> None:
        self._begun_s = time.monotonic()

    def __call__(self, part: str, what: str) -> None:
        """Print one line."""
        print(f"{time.monotonic() - self._begun_s:5.0f} s  {part:<12} {what}", flush=True)

    def about(self, part: str) -> Callable[[str], None]:
        """The same, for one part."""
        return partial(self, part)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """A signal to end is as good as Ctrl-C; everything is removed on the way out, and a second one waits."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
