from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeexit.decide.answer import Answer, Drop, OffloadOutcome, OffloadRecord, Place, Record
from edgeexit.errors import DataError
from edgeexit.replay.deadlines import DeadlineSchedule
from edgeexit.replay.formats.steps import Steps
from edgeexit.replay.frames import figures, rows_of_records
from edgeexit.replay.outages import Outage, OutageKind
from edgeexit.replay.plots_run import Mark
from edgeexit.replay.recorded_run import (
    RunSetting,
    gateway_stage_times,
    replay_fixed_policies,
    seen_deadlines,
    seen_overhead_ms,
)
from edgeexit.replay.recording import Recording
from edgeexit.replay.run_report import RunAbout, write_run_report
from edgeexit.replay.traces import LinkTrace


def answer(
    frame: int,
    *,
    latency_ms: float = 50.0,
    deadline_ms: float = 100.0,
    place: Place = Place.DEVICE,
    label: int = 0,
) -> Answer:
    return Answer(
        frame=frame,
        source=f"imagined/{frame}",
        label=label,
        score=0.9,
        quality=0.8,
        output=(1.0, 0.0),
        exit=1 if place is Place.DEVICE else 3,
        place=place,
        captured_ms=5000.0 + 200.0 * frame,
        latency_ms=latency_ms,
        deadline_ms=deadline_ms,
        reason="deadline",
        stages_run=2,
        offloads=1,
        uplink_bytes=1000,
        link_up=True,
        decision_us=(10.0, 20.0, 30.0),
    )


def offload(frame: int, outcome: OffloadOutcome, compute_ms: float | None = 6.0) -> OffloadRecord:
    return OffloadRecord(frame, 0, "u8", 1000, outcome, "gateway", 40.0, 1.0, compute_ms)


RECORDS: list[Record] = [
    answer(0),
    answer(1, place=Place.GATEWAY, label=1),
    answer(3, latency_ms=120.0),
    Drop(2, "imagined/2", 5400.0, "replaced"),
    offload(0, OffloadOutcome.LATE),
    offload(1, OffloadOutcome.USED),
    offload(3, OffloadOutcome.FAILED, None),
    offload(3, OffloadOutcome.UNUSED),
]
TRUTH = {"imagined/0": 0.0, "imagined/1": 0.0, "imagined/3": 0.0}


def test_a_run_is_counted_as_its_records_say() -> None:
    run = figures(rows_of_records("run", RECORDS, TRUTH))
    assert (run.frames, run.answered, run.late) == (4, 3, 1)
    assert run.dropped == {"replaced": 1}
    assert run.on_time_fraction == pytest.approx(2 / 4)
    assert run.correct_by_deadline_fraction == pytest.approx(1 / 4)
    assert run.answers == {"device": {"1": 2}, "gateway": {"3": 1}}
    assert (run.offloads.sent, run.offloads.used, run.offloads.late, run.offloads.failed) == (4, 1, 1, 1)
    assert run.uplink_bytes == 3000
    assert run.latency_ms is not None
    assert run.latency_ms.p50 == 50.0
    assert run.decision_us_p50 == 20.0


def test_what_was_taken_back_is_counted_with_its_bytes() -> None:
    told = replace(offload(0, OffloadOutcome.CANCELLED, None), uplink_bytes=1080, later_bytes=80)
    dropped = replace(offload(3, OffloadOutcome.CANCELLED, None), uplink_bytes=0, later_bytes=-1000)
    in_vain = replace(offload(1, OffloadOutcome.USED), uplink_bytes=1080, later_bytes=80)
    run = figures(rows_of_records("run", [*RECORDS[:4], told, in_vain, dropped], TRUTH))
    assert (run.offloads.sent, run.offloads.used, run.offloads.cancelled) == (3, 1, 2)
    assert run.uplink_bytes == 3000 + 80 + 80 - 1000


def test_late_answers_of_a_run_are_told_apart_by_what_made_them_late() -> None:
    late = answer(1, latency_ms=120.0)
    records: list[Record] = [
        replace(answer(0), network_ms=40.0),
        late,  # of a device that did not tell
        replace(late, frame=2, network_ms=5.0),
        replace(late, frame=3, network_ms=50.0),
        replace(late, frame=4, network_ms=50.0, cut=True),
    ]
    run = figures(rows_of_records("run", records, TRUTH))
    assert run.late == 4
    assert run.late_by == {"late-compute": 1, "late-network": 1, "late-cut": 1}


def test_what_is_unknown_is_none() -> None:
    run = figures(rows_of_records("run", RECORDS, {}))
    assert run.correct_by_deadline_fraction is None
    empty = figures(rows_of_records("run", [], {}))
    assert (empty.frames, empty.latency_ms, empty.decision_us_p50) == (0, None, None)


def test_a_gateways_speed_comes_from_its_replies() -> None:
    assert gateway_stage_times(RECORDS, (10.0, 20.0)) == pytest.approx((2.0, 4.0))
    assert gateway_stage_times([], (10.0, 20.0)) == (10.0, 20.0)


def test_what_a_frame_costs_outside_its_stages_is_read_off_local_answers() -> None:
    early = [replace(answer(frame, latency_ms=24.0), offloads=0, reason="confident") for frame in range(3)]
    slow = replace(answer(4, latency_ms=99.0), offloads=0, reason="deadline")
    assert seen_overhead_ms([*early, slow, answer(5)], (10.0, 10.0, 10.0)) == pytest.approx(4.0)
    assert seen_overhead_ms([], (10.0,)) == 0.0


def test_budgets_can_be_read_off_the_answers() -> None:
    answers = [answer(0), answer(1, deadline_ms=50.0), answer(2, deadline_ms=50.0), answer(3)]
    schedule = seen_deadlines(answers)
    assert [schedule.latency_ms(each.captured_ms) for each in answers] == [100.0, 50.0, 50.0, 100.0]
    with pytest.raises(DataError):
        seen_deadlines([])


def run_records(recording: Recording, count: int = 200) -> list[Record]:
    random = np.random.default_rng(3)
    made: list[Record] = []
    for frame in range(count):
        budget_ms = 120.0 if frame % 50 < 25 else 260.0
        if frame % 40 == 7:
            made.append(Drop(frame, f"imagined/{frame}", 5000.0 + 200.0 * frame, "replaced"))
            continue
        remote = frame % 3 == 0
        made.append(
            answer(
                frame,
                latency_ms=float(random.uniform(0.4, 1.02)) * budget_ms,
                deadline_ms=budget_ms,
                place=Place.GATEWAY if remote else Place.DEVICE,
                label=int(recording.answers[frame, 3 if remote else 1]),
            )
        )
        if remote:
            made.append(offload(frame, OffloadOutcome.USED))
    return made


def setting(**changes: object) -> RunSetting:
    plain = {
        "stage_ms": (49.3,) * 4,
        "gateway_stage_ms": (1.0,) * 4,
        "deadlines": DeadlineSchedule((0.0, 20_000.0), (220.0, 120.0)),
        "uplink": LinkTrace("steady", Steps((0.0, 1000.0), (1e6,))),
        "rtt_ms": 20.0,
        "link_origin_ms": 4900.0,
        "overhead_ms": 0.0,
    }
    plain.update(changes)
    return RunSetting(**plain)  # type: ignore[arg-type]


def test_fixed_policies_meet_the_same_frames_and_budgets(recording: Recording) -> None:
    records = run_records(recording)
    runs = {
        name: figures(rows) for name, rows in replay_fixed_policies(records, recording, setting()).items()
    }
    assert set(runs) == {"first-exit", "always-local", "always-offload"}
    assert all(run.frames == 200 for run in runs.values())
    first = runs["first-exit"]
    assert first.answers["device"] == {"0": 200}
    assert first.correct_by_deadline_fraction == pytest.approx(float(recording.quality[:200, 0].mean()))
    local = runs["always-local"]
    # Four stages take 197 ms: in time under 220 ms of budget, never under 120 ms.
    assert local.on_time_fraction == pytest.approx(75 / 200, abs=0.03)
    offloaded = runs["always-offload"]
    assert offloaded.answers["gateway"] == {"3": 200}
    assert offloaded.uplink_bytes == 200 * 15_000
    assert offloaded.on_time_fraction > 0.95


def test_an_outage_of_the_run_is_met_by_the_replay_too(recording: Recording) -> None:
    outage = Outage(15_000.0, 20_000.0, OutageKind.LINK)
    calm = replay_fixed_policies(run_records(recording), recording, setting())["always-offload"]
    cut = replay_fixed_policies(run_records(recording), recording, setting(outages=(outage,)))[
        "always-offload"
    ]
    assert figures(cut).on_time_fraction < figures(calm).on_time_fraction - 0.05


def test_a_run_of_other_images_cannot_be_replayed(recording: Recording) -> None:
    with pytest.raises(DataError):
        replay_fixed_policies([Drop(0, "elsewhere.png", 0.0, "replaced")], recording, setting())


def test_the_report_is_json_and_one_page_that_fetches_nothing(tmp_path: Path, recording: Recording) -> None:
    records = run_records(recording)
    truth = {source: float(recording.truth[index]) for index, source in enumerate(recording.sources)}
    run = rows_of_records("run", records, truth)
    baselines = replay_fixed_policies(records, recording, setting())
    about = RunAbout("Demo <run>", "bundle", "board", "link", "hedged-gain", 4, ("A remark.",))
    own = write_run_report(
        tmp_path, run, about=about, baselines=baselines, marks=[Mark(15_000.0, 20_000.0, "link cut")]
    )
    report = json.loads((tmp_path / "report.json").read_text())
    wanted = {
        *("frames", "answered", "dropped", "late", "on_time_fraction", "correct_by_deadline_fraction"),
        *("answers", "offloads", "uplink_bytes", "latency_ms", "decision_us_p50"),
    }
    assert wanted < set(report)
    assert report["frames"] == own.frames == 200
    assert set(report["baselines"]) == set(baselines)
    assert all(wanted <= set(each) for each in report["baselines"].values())
    html = (tmp_path / "report.html").read_text()
    assert html.count("<svg") == 5
    assert "Demo &lt;run&gt;" in html
    fetched = re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?(?!#)([^"\')\s>]+)', html)
    assert [each for each in fetched if not each.startswith("#")] == []
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]
