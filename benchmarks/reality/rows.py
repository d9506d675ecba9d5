"""One scenario, for real and in replay, and everything measured before it: a row of the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.reality.apart import Apart, Shifted, apart
from benchmarks.reality.compare import Compared, Figures, compare, figures_of, pooled
from benchmarks.reality.house import House
from benchmarks.reality.isolation import Isolated, isolate, measure_stages, record_subject
from benchmarks.reality.observed import drift, seen_after_pause_ms
from benchmarks.reality.plan import Pace, Plan, settings_of
from benchmarks.reality.real_run import SETTLE_S, run_really
from benchmarks.reality.replayed import SEEDS, Charged, mean_restart_ms, replay_run
from benchmarks.reality.shaper import Stats
from benchmarks.reality.subjects import Subject
from edgeexit.replay.frames import rows_of_records
from edgeexit.replay.recording import Recording

# A packet that is this late may cost one frame of several hundred; beyond it a run says nothing. The
# worst of recorded runs was 26 ms, so the bound can be kept on a quiet machine.
LATENESS_BOUND_MS = 40.0
# One packet in a hundred may be a tick late: that moves no figure by as much as its bound.
LATE_SHARE_BOUND = 0.01

# Replays that are charged with all overheads but one, to tell what that one explains.
LACKING = {
    "overhead_ms": Charged(overhead=False),
    "result_bytes": Charged(results=False),
    "envelope_bytes": Charged(envelope=False),
    "hand_over_ms": Charged(hand_over=False),
    "restart_ms": Charged(restart=False),
    "reconnect_ms": Charged(reconnect=False),
    "all": Charged(False, False, False, False, False, False),
}

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
    daemon_factors: tuple[float, ...]
    busy_slowdown: float
    overhead_ms: float
    decision_ms: float
    result_bytes: int
    envelope_bytes: int
    hand_over_ms: float
    hand_over_p90_ms: float
    service_ms: float


@dataclass(frozen=True, slots=True)
class Row:
    """One scenario.

    `without` is how far the mean latency of all replays would be from the real one, were one overhead not
    charged; `shifted`, what all replays would give more with an input a little wrong. `drift`: how much
    slower the board was than when it was measured.
    Units: after_pause_ms, what an exchange took more after a pause, expected_after_pause_ms by arithmetic;
    worst_lateness_ms and late_share, of the shaper's packets; stolen_share, of processor time, what
    the host of this machine took for other guests.
    """

    name: str
    subject: str
    link: str
    seconds: float
    accepted: bool
    agrees: bool
    compared: tuple[Compared, ...]
    real: Figures
    replayed: Figures
    without: dict[str, float]
    apart: Apart
    shifted: dict[str, Shifted]
    drift: float | None
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
    isolated = isolate(house, subject, pace, measured, recording, folder, partial(say, subject.name))
    return Ready(subject, pace, state, recording, isolated)


def row(house: House, plan: Plan, ready: Ready, work: Path, say: Say) -> Row:
    """Run one scenario for real, then in replay."""
    subject, isolated = ready.subject, ready.isolated
    settings = settings_of(subject, ready.state, isolated.factor, ready.pace)
    stolen_before, all_before = _processor_time()
    real = run_really(
        house,
        settings,
        plan.shape,
        work / subject.name / plan.name,
        seconds=plan.seconds,
        say=partial(say, plan.name),
        plan=plan,
    )
    stolen_after, all_after = _processor_time()
    settle_ms = 1000.0 * SETTLE_S
    really = rows_of_records("real", real.records, subject.truth)
    truly = figures_of(really, counted_ms=real.counted_ms)

    def replayed(charged: Charged) -> Figures:
        runs = replay_run(real, plan, settings, ready.recording, isolated, charged=charged)
        return figures_of(pooled(runs), counted_ms=settle_ms, runs=SEEDS)

    runs = replay_run(real, plan, settings, ready.recording, isolated, charged=Charged())
    together = figures_of(pooled(runs), counted_ms=settle_ms, runs=SEEDS)
    compared = tuple(compare(truly, together, [figures_of(run, counted_ms=settle_ms) for run in runs]))
    done = Row(
        name=plan.name,
        subject=subject.name,
        link=plan.about,
        seconds=plan.seconds,
        accepted=_accepted(real.link_after),
        agrees=all(figure.agrees for figure in compared),
        compared=compared,
        real=truly,
        replayed=together,
        without={
            name: round(abs(truly.latency_mean_ms - replayed(charged).latency_mean_ms), 2)
            for name, charged in LACKING.items()
        },
        apart=apart(really, runs, really_from_ms=real.counted_ms, replayed_from_ms=settle_ms),
        shifted={name: _shifted(replayed(charged), together) for name, charged in WRONG.items()},
        drift=drift(real, isolated),
        after_pause_ms=seen_after_pause_ms(real),
        expected_after_pause_ms=round(mean_restart_ms(real, plan, settings), 2),
        worst_lateness_ms=round(real.link_after.worst_lateness_ms, 2),
        late_share=round(real.link_after.late_share, 5),
        stolen_share=round((stolen_after - stolen_before) / max(1, all_after - all_before), 4),
    )
    for figure in compared:
        verdict = "agrees" if figure.agrees else "DIFFERS"
        say(
            plan.name,
            f"{figure.figure:<46} {figure.real:9.2f} and {figure.replayed:9.2f} {figure.unit:<2} "
            f"({figure.low:.2f} to {figure.high:.2f}), "
            f"{figure.difference:.2f} of {figure.bound:.2f}: {verdict}",
        )
    if not done.accepted:
        say(plan.name, f"rejected: a packet was {done.worst_lateness_ms:.0f} ms late")
    return done


def _shifted(wrong: Figures, right: Figures) -> Shifted:
    return Shifted(
        offloaded=round(100.0 * (wrong.offloaded_fraction - right.offloaded_fraction), 2),
        right=round(100.0 * (wrong.correct_by_deadline_fraction - right.correct_by_deadline_fraction), 2),
    )


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
    return SubjectFigures(
        about=ready.subject.about,
        factor=None if isolated.factor is None else round(isolated.factor, 2),
        full_ms=round(ready.pace.full_ms, 2),
        stage_ms=tuple(round(float(each), 2) for each in np.median(isolated.samples_ms, axis=0)),
        daemon_factors=tuple(round(each, 3) for each in isolated.daemon_factors),
        busy_slowdown=round(isolated.busy_slowdown, 3),
        overhead_ms=round(isolated.overhead_ms, 2),
        decision_ms=round(isolated.decision_ms, 3),
        result_bytes=isolated.result_bytes,
        envelope_bytes=isolated.envelope_bytes,
        hand_over_ms=round(float(np.median(isolated.hand_over_ms)), 2),
        hand_over_p90_ms=round(float(np.percentile(isolated.hand_over_ms, 90)), 2),
        service_ms=round(float(np.median(isolated.service_ms)), 2),
    )
