"""A kept selection is believed only where it is sound and holds for what is asked."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeexit.runner.report import (
    SELECTION_SCHEMA,
    SelectionKey,
    SelectionReport,
    VariantReport,
    read_report,
    write_report,
)

KEY = SelectionKey(
    schema=SELECTION_SCHEMA,
    bundle_digest="ab" * 32,
    runtime="ai-edge-litert",
    runtime_version="2.3.0",
    machine="aarch64 4",
    threads=1,
    first=0,
    stop=2,
    prefer=None,
)


def entry(variant: str, *, why: str | None) -> VariantReport:
    return VariantReport(
        stage=0,
        variant=variant,
        passed=why is None,
        why=why,
        max_abs_diff=0.5,
        tolerance=0.1,
        agreement=None,
        best_ms=1.0,
        median_ms=1.25,
    )


REPORT = SelectionReport(
    key=KEY,
    chosen=("f32", "int8"),
    median_ms=(1.5, 2.5),
    variants=(entry("f32", why=None), entry("int8", why="outputs differ")),
    elapsed_ms=12.0,
)


def test_a_report_comes_back_as_it_was(tmp_path: Path) -> None:
    assert write_report(tmp_path / "a" / "selection.json", REPORT)
    assert read_report(tmp_path / "a" / "selection.json", KEY) == REPORT


def test_the_rejected_are_listed() -> None:
    assert [report.variant for report in REPORT.rejected()] == ["int8"]


@pytest.mark.parametrize(
    "key",
    [
        msgspec.structs.replace(KEY, bundle_digest="cd" * 32),
        msgspec.structs.replace(KEY, runtime="tflite-runtime"),
        msgspec.structs.replace(KEY, runtime_version="2.4.0"),
        msgspec.structs.replace(KEY, machine="aarch64 2"),
        msgspec.structs.replace(KEY, threads=4),
        msgspec.structs.replace(KEY, first=1),
        msgspec.structs.replace(KEY, schema=SELECTION_SCHEMA + 1),
        msgspec.structs.replace(KEY, prefer="int8"),
    ],
)
def test_a_report_holds_for_its_key_alone(tmp_path: Path, key: SelectionKey) -> None:
    write_report(tmp_path / "selection.json", REPORT)
    assert read_report(tmp_path / "selection.json", key) is None


@pytest.mark.parametrize(
    "report",
    [
        msgspec.structs.replace(REPORT, chosen=("f32",)),
        msgspec.structs.replace(REPORT, median_ms=(1.0,)),
        msgspec.structs.replace(REPORT, median_ms=(1.0, -2.0)),
        msgspec.structs.replace(REPORT, median_ms=(1.0, float("nan"))),
    ],
)
def test_a_report_that_is_not_sound_is_ignored(tmp_path: Path, report: SelectionReport) -> None:
    write_report(tmp_path / "selection.json", report)
    assert read_report(tmp_path / "selection.json", KEY) is None


def test_no_report_or_a_directory_is_no_report(tmp_path: Path) -> None:
    assert read_report(tmp_path / "nowhere.json", KEY) is None
    assert read_report(tmp_path, KEY) is None


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_damage_gives_no_report_or_a_sound_one(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "selection.json"
    write_report(path, REPORT)
    sound = path.read_bytes()
    index = data.draw(st.integers(0, len(sound)))
    patch = data.draw(st.binary(max_size=6))
    path.write_bytes(sound[:index] + patch + sound[index + len(patch) :])
    report = read_report(path, KEY)
    assert report is None or (report.key == KEY and len(report.chosen) == 2)
