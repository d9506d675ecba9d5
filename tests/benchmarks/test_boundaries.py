"""Accuracy against bytes: the quick run is whole; the ratio is of the cheapest within half a point."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import boundaries
from benchmarks._boundaries_page import Published, plot, table
from benchmarks._boundaries_rows import Result, Row, left_behind, summary
from benchmarks._canvas import trained
from benchmarks.boundaries import QUICKLY, bottleneck_of, main
from edgeexit.training.data import fashion_mnist

pytestmark = pytest.mark.convert


def row(boundary: int, codec: str, mean_bytes: int, lost_points: float) -> Row:
    return Row(boundary, codec, mean_bytes, mean_bytes, 0.6, lost_points, 0.1, None, 1_000)


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


def test_a_way_that_was_not_sent_with_all_canvases_is_never_the_cheapest() -> None:
    few = replace(row(1, "bottleneck2", 50, 0.0), samples=400)
    rows = (row(0, "webp30", 400, 0.0), row(1, "int4", 300, 0.0), few)
    assert summary("task", 1_000, (0.5, 0.6), rows).best_boundary == "int4 at boundary 1"


def test_ways_are_left_that_lose_too_much_or_are_far_larger_than_others_of_their_boundary() -> None:
    rows = (
        row(0, "jpeg5", 100, 0.71),
        row(0, "webp30", 400, 0.69),
        row(0, "jpeg85", 1_000, 0.0),
        row(0, "u8", 1_001, 0.0),
        row(1, "raw", 9_000, 0.0),
        row(1, "bottleneck2", 50, 2.0),
    )
    assert left_behind(rows) == {(0, "jpeg5"), (0, "u8"), (1, "bottleneck2")}


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
    assert {(0, "u8"), (0, "jpeg10"), (0, "webp85 at 3/4 size"), (0, "webp1 at half size")} <= ways
    assert {(1, "raw"), (1, "int4-token-zstd"), (1, "pool4-int4")} <= ways
    assert (1, "merge8-int4") in ways
    learnt = {each.codec: each for each in result.rows if each.boundary == 1}
    assert learnt["bottleneck2"].mean_bytes < learnt["bottleneck8"].mean_bytes
    assert learnt["raw"].lost_points == 0.0
    ideal = learnt["bottleneck8"].ideal_bytes
    assert ideal is not None
    assert ideal <= learnt["bottleneck8"].mean_bytes
    # Trained weights are found again.
    assert "bottleneck 1: 100%" in capsys.readouterr().err
    items = fashion_mnist().train.take(slice(0, QUICKLY.items))
    network = trained(QUICKLY.size, items, tmp_path, tell=boundaries.say)
    bottleneck_of(network, 1, QUICKLY, items, tmp_path)
    assert capsys.readouterr().err == ""
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
    ways_table = table(page).partition("All ways")[2]
    assert ways_table.count("\n| 1 |") == len([each for each in result.rows if each.boundary == 1])
    assert plot(page).startswith("<svg")
