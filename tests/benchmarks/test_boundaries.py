"""Accuracy against bytes: the quick run is whole; the ratio is of the cheapest within half a point."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import boundaries
from benchmarks._boundaries_page import Published, plot, table
from benchmarks.boundaries import Result, Row, main, summary

pytestmark = pytest.mark.convert


def row(boundary: int, codec: str, mean_bytes: int, lost_points: float) -> Row:
    return Row(boundary, codec, mean_bytes, mean_bytes, 0.6, lost_points, 0.1)


def test_the_ratio_is_of_the_cheapest_within_half_a_point() -> None:
    rows = (
        row(0, "jpeg5", 100, 3.0),
        row(0, "webp30", 400, 0.5),
        row(0, "jpeg95", 900, 0.0),
        row(1, "raw", 9000, 0.0),
        row(1, "bottleneck2", 50, 0.6),
        row(2, "bottleneck8", 120, -0.1),
    )
    result = summary("task", 10, (0.5, 0.6), rows)
    assert (result.best_image, result.best_boundary) == ("webp30", "bottleneck8 at boundary 2")
    assert result.bytes_ratio_at_half_point == 0.3
    assert summary("task", 10, (0.5,), rows[:1]).bytes_ratio_at_half_point is None


@pytest.mark.slow
def test_a_quick_run_sends_every_boundary_in_every_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    published: list[tuple[str, object]] = []
    monkeypatch.setattr(boundaries, "publish", lambda name, result: published.append((name, result)))
    assert main(["--quick", "--work", str(tmp_path)]) == 0
    ((name, result),) = published
    assert name == "boundaries_quick"
    assert isinstance(result, Result)
    ways = {(each.boundary, each.codec) for each in result.rows}
    assert {(0, "u8"), (0, "jpeg10"), (0, "webp1 at half size")} <= ways
    for boundary in (1, 2):
        assert {(boundary, "raw"), (boundary, "int4-token-zstd"), (boundary, "pool4-int4")} <= ways
        learnt = {each.codec: each for each in result.rows if each.boundary == boundary}
        assert learnt["bottleneck2"].mean_bytes < learnt["bottleneck8"].mean_bytes
        assert learnt["raw"].lost_points == 0.0
        ideal = learnt["bottleneck8"].ideal_bytes
        assert ideal is not None
        assert ideal <= learnt["bottleneck8"].mean_bytes
    # Trained weights are found again.
    assert main(["--quick", "--work", str(tmp_path)]) == 0
    assert published[1] == published[0]
    assert "quarter" not in capsys.readouterr().err.rpartition("sent 30 of 30")[2]
    page = Published(
        task=result.task,
        samples=result.samples,
        accuracy_by_exit=result.accuracy_by_exit,
        rows=result.rows,
        best_image=result.best_image,
        best_image_bytes=result.best_image_bytes,
        best_boundary=result.best_boundary,
        best_boundary_bytes=result.best_boundary_bytes,
        bytes_ratio_at_half_point=result.bytes_ratio_at_half_point,
        environment={},
    )
    assert table(page).count("\n| 1 |") == len([each for each in result.rows if each.boundary == 1])
    assert plot(page).startswith("<svg")
