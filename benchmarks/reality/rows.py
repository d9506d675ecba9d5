"""One scenario, for real and in replay, and everything measured before it: a row of the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.reality.apart import Apart, Shifted, apart
from benchmarks.reality.compare import Compared, Figures, compare, figures_of, pooled
from benchmarks.reality.house import House
from benchmarks.reality.isolation import Isolated, isolate, measure_stages, record_subject
from benchmarks.reality.observed import seen_after_pause_ms, stages_seen
from benchmarks.reality.plan import DeviceSettings, Pace, Plan, settings_of
from benchmarks.reality.real_run import SETTLE_S, RealRun, run_really
from benchmarks.reality.redriven import Inputs, Mind, inputs
from benchmarks.reality.replayed import SEEDS, Charged, Replayed, mean_restart_ms, replay_run
from benchmarks.reality.shaper import Stats
from benchmarks.reality.stages import StageTimes, daemon_stages
from benchmarks.reality.subjects import Subject
from benchmarks.reality.waking import Waking, wake_times
from edgeexit.device.config import PolicyConfig
from edgeexit.device.policy import choose_policy
from edgeexit.replay.frames import RunRows, rows_of_records
from edgeexit.replay.recording import Recording

# A packet that is this late may cost one frame of several hundred; beyond it a run says nothing. The
# worst of recorded runs was 26 ms, so the bound can be kept on a quiet machine.
LATENESS_BOUND_MS = 40.0
# One packet in a hundred may be a tick late: that moves no figure by as much as its bound.
LATE_SHARE_BOUND = 0.01

# Replays that are charged with all overheads but one, to tell what that one explains.
LACKING = {
    "overhead_ms": Charged(overhead=False),
    "encode_ms": Charged(encoding=False),
    "result_bytes": Charged(results=False),
    "envelope_bytes": Charged(envelope=False),
    "hand_over_ms": Charged(hand_over=False),
    "restart_ms": Charged(restart=False),
    "reconnect_ms": Charged(reconnect=False),
    "waking_ms": Charged(waking=False),
    "all": Charged(False, False, False, False, False, False, False, False),
}

# The same scenario on stage times measured around it instead of those of the very run.
MEASURED_APART = Charged(own_times=False)

# Errors as large as those by which the inputs are known: the board's drift between two measurements of it,
# and how much later than the link's rate says the shaper may let a payload's last packet go.
WRONG = {
    "stages 3 % slower": Charged(slower=1.03),
    "exchanges 2 ms longer": Charged(exchange_more_ms=2.0),
    "both": Charged(slower=1.03, exchange_more_ms=2.0),
}


@dataclass(frozen=True, slots=True)
class SubjectFigures:
    """What was measured of a subject apart from the scenarios. Units: as in Isolated; medians."""

    about: str
    factor: float | None
    full_ms: float
    stage_ms: tuple[float, ...]
    overhead_ms: float
    decision_ms: float
    encode_ms: float
    result_bytes: int
    envelope_bytes: int
    hand_over_ms: float
    hand_over_p90_ms: float
    service_ms: float


@dataclass(frozen=True, slots=True)
class Row:
    """One scenario.

    `compared` has replays on the stage times of the real run; `compared_apart`, on those that the daemon had
    before and after it, and `agrees_apart` says whether these agree as well. `without` is how far the mean
    latency of all replays would be from the real one, were one overhead not charged; `shifted`, what all
    replays would give more with an input a little wrong. `stages`: median stage times before, within and
    after the run, on the free and on the busy board.
    Units: waking_ms, how late the deadline timer woke before the run, on the board as busy as it gets,
    median and nine tenths; after_pause_ms, what an exchange took more after a pause,
    expected_after_pause_ms by arithmetic; worst_lateness_ms and late_share, of the shaper's packets;
    stolen_share, of processor time, what the host of this machine took for other guests.
    """

    name: str
    subject: str
    link: str
    seconds: float
    accepted: bool
    agrees: bool
    compared: tuple[Compared, ...]
    agrees_apart: bool
    compared_apart: tuple[Compared, ...]
    real: Figures
    replayed: Figures
    without: dict[str, float]
    apart: Apart
    inputs: Inputs
    shifted: dict[str, Shifted]
    stages: dict[str, tuple[float | None, ...]]
    waking_ms: tuple[float, float]
    after_pause_ms: float | None
    expected_after_pause_ms: float
    worst_lateness_ms: float
    late_share: float
    stolen_share: float


@dataclass(frozen=True, slots=True)
class Ready:
    """A subject with all that was measured of it."""

    subject: Subject
    pace: Pace
    state: Path
    recording: Recording
    isolated: Isolated


Say = Callable[[str, str], None]


def get_ready(house: House, subject: Subject, work: Path, say: Say) -> Ready:
    """Everything about a subject that is measured apart from the scenarios."""
    folder = work / subject.name
    state = folder / "state"
    state.mkdir(parents=True, exist_ok=True)
    say(subject.name, "stage times in isolation")
    measured = measure_stages(house, subject, state, subject.target_ms)
    pace = Pace(subject.kind, float(np.median(np.sum(measured.samples_ms, axis=1))))
    say(subject.name, f"recording {len(subject.truth)} images")
    recording = record_subject(subject, state)
    isolated = isolate(house, subject, pace, measured, folder, partial(say, subject.name))
    return Ready(subject, pace, state, recording, isolated)


def rows(house: House, plans: Sequence[Plan], ready: Ready, work: Path, say: Say) -> list[Row]:
    """Run scenarios of one subject for real, then in replay; stages are measured before and after each."""
    done: list[Row] = []
    before = _stages(house, plans[0], ready, work, say)
    waking = _waking(house, plans, before, ready, work, say)
    for plan in plans:
        real, stolen_share = _run(house, plan, ready, work, say)
        after = _stages(house, plan, ready, work, say)
        done.append(_row(real, stolen_share, before, after, waking, plan, ready, say))
        before = after
    return done


def _settings(ready: Ready) -> DeviceSettings:
    return settings_of(ready.subject, ready.state, ready.isolated.factor, ready.pace)


def _stages(house: House, plan: Plan, ready: Ready, work: Path, say: Say) -> StageTimes:
    folder = work / ready.subject.name
    return daemon_stages(house, _settings(ready), folder, partial(say, plan.name), busy=bool(plan.busy))


def _waking(
    house: House, plans: Sequence[Plan], stages: StageTimes, ready: Ready, work: Path, say: Say
) -> Waking:
    folder, busy = work / ready.subject.name, any(plan.busy for plan in plans)
    return wake_times(house, _settings(ready), stages, folder, partial(say, ready.subject.name), busy=busy)


def _run(house: House, plan: Plan, ready: Ready, work: Path, say: Say) -> tuple[RealRun, float]:
    """The real run, and the share of processor time that the host took meanwhile."""
    stolen_before, all_before = _processor_time()
    real = run_really(
        house,
        _settings(ready),
        plan.shape,
        work / ready.subject.name / plan.name,
        seconds=plan.seconds,
        say=partial(say, plan.name),
        plan=plan,
    )
    stolen_after, all_after = _processor_time()
    return real, round((stolen_after - stolen_before) / max(1, all_after - all_before), 4)


def _row(
    real: RealRun,
    stolen_share: float,
    before: StageTimes,
    after: StageTimes,
    waking: Waking,
    plan: Plan,
    ready: Ready,
    say: Say,
) -> Row:
    subject, isolated, settings = ready.subject, ready.isolated, _settings(ready)
    around = before + after
    settle_ms = 1000.0 * SETTLE_S
    really = rows_of_records("real", real.records, subject.truth)
    truly = figures_of(really, counted_ms=real.counted_ms)

    def noted_runs(charged: Charged) -> list[Replayed]:
        return replay_run(real, plan, settings, ready.recording, isolated, around, waking, charged=charged)

    def runs_of(charged: Charged) -> list[RunRows]:
        return [each.rows for each in noted_runs(charged)]

    def figures_together(runs: Sequence[RunRows]) -> Figures:
        return figures_of(pooled(runs), counted_ms=settle_ms, runs=SEEDS)

    def replayed(charged: Charged) -> Figures:
        return figures_together(runs_of(charged))

    def beside(runs: Sequence[RunRows]) -> tuple[Compared, ...]:
        single = [figures_of(run, counted_ms=settle_ms) for run in runs]
        return tuple(compare(truly, figures_together(runs), single))

    noted = noted_runs(Charged())
    runs = [each.rows for each in noted]
    together = figures_together(runs)
    compared, compared_apart = beside(runs), beside(runs_of(MEASURED_APART))
    done = Row(
        name=plan.name,
        subject=subject.name,
        link=plan.about,
        seconds=plan.seconds,
        accepted=_accepted(real.link_after),
        agrees=all(figure.agrees for figure in compared),
        compared=compared,
        agrees_apart=all(figure.agrees for figure in compared_apart),
        compared_apart=compared_apart,
        real=truly,
        replayed=together,
        without={
            name: round(abs(truly.latency_mean_ms - replayed(charged).latency_mean_ms), 2)
            for name, charged in LACKING.items()
        },
        apart=apart(really, runs, really_from_ms=real.counted_ms, replayed_from_ms=settle_ms),
        inputs=inputs(
            real.noted,
            [each.noted for each in noted],
            _mind(real, ready),
            counted_ms=real.counted_ms,
            begin_ms=real.begin_ms,
        ),
        shifted={name: _shifted(replayed(charged), together) for name, charged in WRONG.items()},
        stages=stages_seen(real, before, after),
        waking_ms=_most_waking(waking),
        after_pause_ms=seen_after_pause_ms(real),
        expected_after_pause_ms=round(mean_restart_ms(real, plan, settings), 2),
        worst_lateness_ms=round(real.link_after.worst_lateness_ms, 2),
        late_share=round(real.link_after.late_share, 5),
        stolen_share=stolen_share,
    )
    for figure in compared:
        verdict = "agrees" if figure.agrees else "DIFFERS"
        say(
            plan.name,
            f"{figure.figure:<46} {figure.real:9.2f} and {figure.replayed:9.2f} {figure.unit:<2} "
            f"({figure.low:.2f} to {figure.high:.2f}), "
            f"{figure.difference:.2f} of {figure.bound:.2f}: {verdict}",
        )
    apart_too = sum(figure.agrees for figure in compared_apart)
    say(plan.name, f"on stage times measured around it {apart_too} of {len(compared_apart)} figures agree")
    if not done.accepted:
        say(plan.name, f"rejected: a packet was {done.worst_lateness_ms:.0f} ms late")
    return done


def _mind(real: RealRun, ready: Ready) -> Mind:
    manifest, variants = ready.subject.bundle.manifest, real.started.variants
    return Mind(
        lambda: choose_policy(PolicyConfig(), manifest, variants),
        real.started.stage_ms,
        ready.recording.prior_quality,
    )


def _shifted(wrong: Figures, right: Figures) -> Shifted:
    return Shifted(
        offloaded=round(100.0 * (wrong.offloaded_fraction - right.offloaded_fraction), 2),
        right=round(100.0 * (wrong.correct_by_deadline_fraction - right.correct_by_deadline_fraction), 2),
    )


def _most_waking(waking: Waking) -> tuple[float, float]:
    late_ms = waking.free_ms if waking.busy_ms is None else waking.busy_ms
    return round(float(np.median(late_ms)), 2), round(float(np.percentile(late_ms, 90)), 2)


def _accepted(link: Stats) -> bool:
    return link.worst_lateness_ms <= LATENESS_BOUND_MS and link.late_share <= LATE_SHARE_BOUND


def _processor_time() -> tuple[int, int]:
    """Ticks that the host took from this machine, and ticks in all, since it started."""
    with open("/proc/stat", encoding="utf-8") as file:
        ticks = [int(word) for word in file.readline().split()[1:9]]
    return ticks[7], sum(ticks)


def subject_figures(ready: Ready) -> SubjectFigures:
    """Its medians."""
    isolated = ready.isolated
    sent = min(isolated.options, key=lambda each: each.payload_bytes)
    return SubjectFigures(
        about=ready.subject.about,
        factor=None if isolated.factor is None else round(isolated.factor, 2),
        full_ms=round(ready.pace.full_ms, 2),
        stage_ms=tuple(round(each, 2) for each in isolated.stage_ms),
        overhead_ms=round(isolated.overhead_ms, 2),
        decision_ms=round(isolated.decision_ms, 3),
        encode_ms=round(sent.encode_ms, 3),
        result_bytes=isolated.result_bytes,
        envelope_bytes=isolated.envelope_bytes,
        hand_over_ms=round(float(np.median(isolated.hand_over_ms)), 2),
        hand_over_p90_ms=round(float(np.percentile(isolated.hand_over_ms, 90)), 2),
        service_ms=round(float(np.median(isolated.service_ms)), 2),
    )
