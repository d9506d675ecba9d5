"""One short scenario, really run and replayed: broker, gateway, link and device, each where it belongs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.reality.compare import figures_of, pooled
from benchmarks.reality.house import House
from benchmarks.reality.isolation import Isolated, record_subject
from benchmarks.reality.measuring import Request
from benchmarks.reality.plan import DeviceSettings, Pace, Plan, settings_of, unhurried, write_steady
from benchmarks.reality.real_run import (
    BUSY,
    CUT,
    FREE,
    RESTORED,
    SETTLE_S,
    RealRun,
    run_really,
)
from benchmarks.reality.redriven import Mind, inputs
from benchmarks.reality.replayed import SEEDS, Charged, replay_run
from benchmarks.reality.shaping import Shape
from benchmarks.reality.stages import StageTimes, whole_frames
from benchmarks.reality.subjects import Kind, Subject
from benchmarks.reality.waking import Waking
from edgeexit.bundle import Bundle
from edgeexit.decide.answer import Answer, Drop, Place
from edgeexit.device.config import PolicyConfig
from edgeexit.device.policy import choose_policy
from edgeexit.replay.frames import rows_of_records

pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.broker, pytest.mark.litert]

SECONDS = 4.0
IMAGES = 12
WAKING = Waking((0.1, 0.3), (1.0, 4.0))


@pytest.fixture(scope="module")
def subject(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(1)
    truth = {f"{index:02d}.png": float(random.integers(0, 3)) for index in range(IMAGES)}
    for name in truth:
        Image.fromarray(random.integers(0, 256, (8, 8)).astype(np.uint8)).save(folder / name)
    return Subject("tiny", Kind.COMPUTING, tiny_bundle, folder, truth, None, "noise")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reality")
    (folder / "state").mkdir()
    return folder


@pytest.fixture(scope="module")
def house(subject: Subject, work: Path) -> Iterator[House]:
    with House(work, [subject.bundle]) as standing:
        yield standing


@pytest.fixture(scope="module")
def settings(subject: Subject, work: Path) -> DeviceSettings:
    return settings_of(subject, work / "state", None, Pace(Kind.COMPUTING, full_ms=40.0))


@pytest.fixture(scope="module")
def plan(work: Path) -> Plan:
    trace = work / "link.trace"
    write_steady(trace, mbps=4.0)
    shape = Shape(up_trace=str(trace), delay_ms=5.0)
    return Plan("rough", shape, SECONDS, "4 Mbit/s", cut=(0.5, 0.7), busy=((0.1, 0.3),))


@pytest.fixture(scope="module")
def real(house: House, settings: DeviceSettings, plan: Plan, work: Path) -> RealRun:
    said: list[str] = []
    run = run_really(house, settings, plan.shape, work / "rough", seconds=SECONDS, say=said.append, plan=plan)
    assert said
    return run


def test_what_was_planned_was_done_and_every_frame_is_accounted_for(real: RealRun) -> None:
    assert [change.what for change in real.changes] == [BUSY, FREE, CUT, RESTORED]
    at_ms = [change.at_ms for change in real.changes]
    assert at_ms == sorted(at_ms)
    frames = [each.captured_ms for each in real.counted if isinstance(each, Answer | Drop)]
    assert frames
    assert min(frames) >= real.begin_ms + 1000.0 * SETTLE_S
    assert max(frames) < real.end_ms
    assert real.link_after.up.lost > 0
    assert real.link_after.up.bytes > real.link_before.up.bytes


def test_an_image_went_through_the_link_and_came_back(
    house: House, settings: DeviceSettings, plan: Plan, work: Path
) -> None:
    run = run_really(
        house,
        unhurried(settings, "always-offload", offload=True),
        plan.shape,
        work / "exchanges",
        seconds=1.0,
        say=lambda _: None,
    )
    remote = [each for each in run.answers if each.place is Place.GATEWAY]
    assert remote
    # Two ways of five milliseconds each.
    assert all(each.latency_ms >= 10.0 for each in remote)


def test_every_frame_of_the_run_is_noted_with_its_stages(real: RealRun) -> None:
    answers = {each.frame: each for each in real.answers}
    noted = [each for each in real.noted if each.captured_ms >= real.begin_ms]
    assert {each.frame for each in noted} == set(answers)
    assert real.noted[0].frame == 0
    for frame in noted:
        answer = answers[frame.frame]
        assert frame.captured_ms == pytest.approx(answer.captured_ms, abs=1e-3)
        assert [f"{each.action.value}:{each.reason}" for each in frame.decisions] == list(answer.route)
        assert sorted(frame.stage_ms) == list(range(len(frame.stage_ms)))
        # A stage may be running when its frame is answered by the timer or by a reply.
        assert len(frame.stage_ms) >= answer.stages_run
    assert all(len(each) == len(real.started.stage_ms) for each in whole_frames(real))


def test_the_same_run_is_replayed(
    house: House, real: RealRun, settings: DeviceSettings, plan: Plan, subject: Subject, work: Path
) -> None:
    measured = house.measure(
        Request(
            bundle=str(subject.bundle.path),
            state=str(settings.state),
            images=tuple(str(subject.images / name) for name in subject.truth),
            target_ms=None,
        )
    )
    assert measured.factor is None
    assert len(measured.samples_ms) == IMAGES
    isolated = Isolated(
        factor=None,
        stage_ms=measured.stage_ms,
        options=(),
        overhead_ms=1.0,
        decision_ms=0.05,
        result_bytes=300,
        envelope_bytes=150,
        hand_over_ms=(1.0, 2.0),
        service_ms=(0.5, 1.0),
        gateway_stage_ms=measured.stage_ms,
    )
    around = StageTimes(free_ms=measured.samples_ms, busy_ms=measured.samples_ms)
    recording = record_subject(subject, settings.state)
    runs = replay_run(real, plan, settings, recording, isolated, around, WAKING, charged=Charged())
    assert len(runs) == SEEDS
    # The recorded stages are those of the real run, wherever both ran them.
    really = {each.captured_ms - real.begin_ms: each.stage_ms for each in real.noted}
    compared = 0
    for frame in runs[0].noted:
        own = really.get(frame.captured_ms, {})
        for stage, took_ms in frame.stage_ms.items():
            if stage in own:
                assert took_ms == pytest.approx(own[stage], abs=1e-3)
                compared += 1
    assert compared
    manifest = subject.bundle.manifest
    mind = Mind(
        lambda: choose_policy(PolicyConfig(), manifest, real.started.variants),
        real.started.stage_ms,
        recording.prior_quality,
    )
    found = inputs(
        real.noted, [each.noted for each in runs], mind, counted_ms=real.counted_ms, begin_ms=real.begin_ms
    )
    assert 0.0 < found.repeated <= 1.0
    apart = replay_run(
        real, plan, settings, recording, isolated, around, WAKING, charged=Charged(own_times=False)
    )
    assert [len(each.rows.rows) for each in apart] == [len(each.rows.rows) for each in runs]
    truly = figures_of(rows_of_records("real", real.records, subject.truth), counted_ms=real.counted_ms)
    replayed = figures_of(pooled([each.rows for each in runs]), counted_ms=1000.0 * SETTLE_S, runs=SEEDS)
    assert replayed.frames == truly.frames
    for figures in (truly, replayed):
        assert sum(figures.shares.values()) == pytest.approx(1.0, abs=0.01)
        assert 0.0 <= figures.on_time_fraction <= 1.0
