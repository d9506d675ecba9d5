"""The benchmark of decisions, run short: its keys, and what it says where there is nothing to run on."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import decision_quality
from benchmarks.decision_inputs import boards_of, links_of
from edgeexit.errors import EdgeExitError
from edgeexit.replay.hindsight import FEW_THRESHOLDS
from edgeexit.replay.recording import RecordedOption, load_recording, save_recording
from edgeexit.replay.scenarios import standard_grid
from edgeexit.replay.synthetic import synthetic_recording


def arguments(folder: Path, **changes: object) -> argparse.Namespace:
    plain = {
        "traces": folder / "traces",
        "seed": 3,
        "seeds": 1,
        "frames": 30,
        "recording": folder / "recording.safetensors",
        "full": False,
        "development": False,
        "processes": 1,
    }
    return argparse.Namespace(**{**plain, **changes})


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    options = (
        RecordedOption(boundary=0, codec="u8", payload_bytes=2000, quality_cost=0.0),
        RecordedOption(boundary=1, codec="int8", payload_bytes=5000, quality_cost=0.01),
    )
    recording = synthetic_recording(options=options, stage_ms=(0.5,) * 4, samples=400)
    save_recording(recording, tmp_path / "recording.safetensors")
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / "packets.up").write_text("\n".join(str(stamp) for stamp in range(1, 1000)))
    return tmp_path


def test_rows_are_the_same_whoever_computes_them(prepared: Path) -> None:
    recording = load_recording(prepared / "recording.safetensors")
    links, _ = links_of(prepared / "traces", development=False, full=False)
    rows = standard_grid(boards_of(recording)[:1], links[:1], frames=20)[:2]
    study = decision_quality.Study(rows, recording, (1,), (), FEW_THRESHOLDS)
    assert study.figures(2) == study.figures(1)


def test_its_result_has_the_keys_that_others_read(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(decision_quality, "TIMED_FRAMES", 50)
    # So few frames settle nothing: no row is run longer here.
    monkeypatch.setattr(decision_quality, "settled", lambda row: True)
    result = decision_quality.measure(arguments(prepared))
    for key in (
        *("scenarios", "mean_gap_closed", "min_gap_closed", "worst_loss_points", "late_network"),
        *("late_fraction", "beaten_by", "decision_us_p50", "estimator_us_p50"),
    ):
        assert hasattr(result, key)
    assert result.evaluation_traces[0] == "packets.up"
    assert result.scenarios[0].scale == 1.0
    assert result.late_network == 0
    assert result.decision_us_p50 > 0.0
    boards = {row.board for row in result.scenarios}
    assert boards == {"vit-tiny-pi-4", "vit-tiny-pi-5", "demo-pi-4"}
    assert "packets.up" in capsys.readouterr().out


def test_a_row_is_run_longer_where_chance_leaves_its_target_open(prepared: Path) -> None:
    recording = load_recording(prepared / "recording.safetensors")
    links, _ = links_of(prepared / "traces", development=False, full=False)
    rows = standard_grid(boards_of(recording)[:1], links[:1], frames=60)[:1]
    study = decision_quality.Study(rows, recording, (1,), (2,), FEW_THRESHOLDS)
    figures = study.row(0)
    open_yet = replace(figures, gap_points=0.5, gain_points=-0.1, gain_low=-0.3, gain_high=0.1)
    assert not decision_quality.settled(open_yet)
    assert decision_quality.settled(replace(open_yet, gain_low=-0.19))
    assert decision_quality.settled(replace(open_yet, gain_low=-0.5, gain_high=-0.3))
    wide = replace(figures, gap_points=2.0, gap_closed=0.9, gap_closed_error=0.05)
    assert not decision_quality.settled(wide)
    assert not decision_quality.settled(replace(wide, gap_closed=0.8))
    assert decision_quality.settled(replace(wide, gap_closed_error=0.02))
    assert figures.seeds in (2, 2 * decision_quality.LONGER)


def test_a_missing_recording_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(EdgeExitError) as caught:
        decision_quality.measure(arguments(tmp_path))
    assert caught.value.fix is not None
    assert "edgeexit record" in caught.value.fix


def test_a_bad_trace_is_told_with_file_and_line_and_a_way_out(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = prepared / "traces" / "bad"
    bad.write_text("0 1.0\n1 -3\n")
    given = ("--traces", str(bad), "--recording", str(prepared / "recording.safetensors"))
    monkeypatch.setattr("sys.argv", ["decision_quality", *given])
    with pytest.raises(SystemExit) as ended:
        decision_quality.main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert f"{bad}:2" in said
    assert "why: bandwidth -3 is negative" in said
    assert "fix: correct line 2" in said
