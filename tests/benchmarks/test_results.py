from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks import results


@dataclass(frozen=True)
class Measured:
    ratio_p50: float


def test_the_last_line_and_the_file_hold_the_same_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    results.publish("overhead", Measured(1.01))
    results.publish("overhead", Measured(1.02))
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    stored = json.loads((tmp_path / "results" / "overhead.json").read_text())
    assert printed == stored
    assert stored["ratio_p50"] == 1.02
    assert stored["benchmark"] == "overhead"
    assert stored["environment"]["cores"] >= 1
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["overhead.json"]


def test_what_is_no_record_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    with pytest.raises(TypeError, match="record"):
        results.publish("overhead", [1, 2])
    assert not (tmp_path / "results").exists()
