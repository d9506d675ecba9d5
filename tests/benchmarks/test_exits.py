"""The ranking of exits, run tiny: its keys, what a killed run keeps, and the arithmetic of its claims."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from benchmarks import results
from benchmarks.exits import __main__ as exits
from benchmarks.exits import page
from benchmarks.exits.branches import SEVEN
from benchmarks.exits.cells import Cells
from benchmarks.exits.methods import MethodCell, at_share
from benchmarks.exits.settings import FULL, FULL_MINUTES, FULL_SEEDS, PARTS, QUICK, within
from benchmarks.exits.short import branch_table
from benchmarks.exits.summary import BranchRow, Figure, figure, keys, method_rows
from benchmarks.exits.timing import BLOCK, timed_parts
from benchmarks.exits.ways import EVERY_WAY, WAYS, compared
from edgeexit.errors import DataError
from edgeexit.models.branch_config import AnswerConfig
from edgeexit.training.report import ExitQuality


def numbers(value: object) -> Iterator[float]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, float):
        yield value
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for each in value:
            yield from numbers(each)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_has_its_keys_and_a_second_one_makes_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(exits, "FOLDER", tmp_path / "cells")
    exits.main(["--quick", "--untimed", "--longer", "--seeds", "2"])
    published = json.loads((tmp_path / "results" / "exits-quick-2-seeds-longer.json").read_text())
    for key in (
        *("seeds", "branches", "methods", "final_exit_loss_points", "loss_at_53_percent_points"),
        "best_method_gain_points",
    ):
        assert published[key] is not None, key
    assert published["seeds"] == [0, 1]
    for task, quality in (("classification", "accuracy"), ("regression", "mae")):
        rows = [row for row in published["branches"] if row["task"] == task]
        assert {(row["branch"], row["after"]) for row in rows} == {
            (kind, after) for kind in SEVEN for after in QUICK.ends
        }
        assert all(row[quality]["sd"] is not None and len(row[quality]["each"]) == 2 for row in rows)
        assert all(row["macs_to_exit"] > row["macs"] > 0 and row["parameters"] > 0 for row in rows)
    assert [row["method"] for row in published["methods"]] == [way.name for way in EVERY_WAY]
    joint = published["methods"][0]
    assert joint["gain_points"]["each"] == [0.0, 0.0]
    assert len({tuple(each["macs"] for each in row["exits"]) for row in published["methods"]}) == 1
    equal = {way.name for way in WAYS if way.factor == 1.0}
    alike = [row for row in published["methods"] if row["method"] in equal]
    assert len({(row["samples"], row["updates"]) for row in alike}) == 1
    assert all(math.isfinite(number) for number in numbers(published))

    cells = sorted((tmp_path / "cells").glob("*.json"))
    written = [path.stat().st_mtime_ns for path in cells]
    lost = next(index for index, path in enumerate(cells) if path.name.startswith("classification"))
    cells[lost].unlink()  # as if the run had been killed before it
    exits.main(["--quick", "--untimed", "--seeds", "2", "--part", "branches-classification"])
    assert sorted((tmp_path / "cells").glob("*.json")) == cells
    again = [path.stat().st_mtime_ns for path in cells]
    assert [index for index, time_ns in enumerate(again) if time_ns != written[index]] == [lost]
    part = tmp_path / "results" / "exits-quick-2-seeds-branches-classification.json"
    assert [row["accuracy"] for row in json.loads(part.read_text())["branches"]] == [
        row["accuracy"] for row in published["branches"] if row["task"] == "classification"
    ]

    made = page.tables(msgspec.convert(published, page.Published))
    assert "cnn_project" in made
    assert "joint_sgd_seconds" in made
    for plot in (page.branch_plot, page.method_plot, page.gain_plot, page.learning_plot):
        assert plot(msgspec.convert(published, page.Published)).startswith("<svg")
    capsys.readouterr()


def test_a_damaged_cell_is_named(tmp_path: Path) -> None:
    cells = Cells(tmp_path, lambda _: None)
    assert cells.once("one", [1], int, lambda: 7) == 7
    assert cells.once("one", [1], int, lambda: 8) == 7
    assert cells.once("one", [2], int, lambda: 8) == 8
    cells.path("one", [1]).write_bytes(b"{")
    with pytest.raises(DataError, match="no usable result"):
        cells.once("one", [1], int, lambda: 9)


def test_minutes_decide_how_much_is_trained() -> None:
    for part in PARTS:
        assert within(FULL_MINUTES[part], part, FULL_SEEDS[part]).network_samples == FULL.network_samples
        shorter = within(FULL_MINUTES[part] / 4, part, FULL_SEEDS[part])
        assert shorter.network_samples < FULL.network_samples / 3
        assert within(FULL_MINUTES[part] / 4, part, 1).network_samples > shorter.network_samples
        assert within(0.001, part, 9).branch_samples >= FULL.batch_size
    # The same test for everybody, however long was trained.
    assert within(1.0, "methods", 3).test == FULL.test


def test_only_the_whole_run_is_the_published_one() -> None:
    def name(
        parts: Sequence[str] = PARTS,
        *,
        methods: Sequence[str] | None = None,
        seeds: int | None = None,
        minutes: float | None = None,
        longer: bool = False,
        quick: bool = False,
    ) -> str:
        return exits.result_name(
            parts, methods=methods, seeds=seeds, minutes=minutes, longer=longer, quick=quick
        )

    assert name() == "exits"
    others = [name(quick=True), name(minutes=10.0), name(seeds=2), name(longer=True), name(["methods"])]
    others.append(name(["methods"], methods=["frozen"]))
    assert len({"exits", *others}) == 7


def test_a_method_comes_with_what_it_is_compared_with() -> None:
    assert [way.name for way in compared(["frozen"])] == ["joint", "frozen"]
    assert [way.name for way in compared(["l2w_den"])] == ["joint", "joint_sgd", "l2w_den"]
    assert [way.name for way in compared(["self_distillation_longer"])] == [
        "joint_longer",
        "self_distillation_longer",
    ]


def test_rankings_of_two_runs_stand_side_by_side() -> None:
    def row(branch: str, after: int, mae: float) -> BranchRow:
        return BranchRow("regression", branch, after, None, figure([mae]), 1, 2, 3, None, None, None, 1.0)

    long = [row("mlp", 1, 0.5), row("vit", 1, 0.4), row("resmlp", 1, 0.6)]
    lines = branch_table("regression", long, [row("mlp", 1, 0.3), row("vit", 1, 0.2), row("resmlp", 1, 0.1)])
    assert lines[2:] == [
        "| mlp | 2 → 3 |",
        "| vit | 1 → 2 |",
        "| resmlp | 3 → 1 |",
        "| *rank correlation* | -0.50 |",
    ]


def test_accuracy_at_a_share_lies_on_the_line_between_points() -> None:
    curve = ((100.0, 0.5), (300.0, 0.9), (200.0, 0.8))
    assert at_share(curve, 0.5, 400.0) == pytest.approx(0.8)
    assert at_share(curve, 0.375, 400.0) == pytest.approx(0.65)
    # Nothing is promised beyond what was measured.
    assert at_share(curve, 0.1, 400.0) == pytest.approx(0.5)
    assert at_share(curve, 1.0, 400.0) == pytest.approx(0.9)


def test_spread_over_seeds_is_unknown_with_one() -> None:
    assert figure([1.0]) == Figure(1.0, None, (1.0,))
    assert figure([1.0, 3.0]) == Figure(2.0, 1.414, (1.0, 3.0))


def cell(mid: float, last: float, held_out: float) -> MethodCell:
    exit_quality = ExitQuality(100, last, None, None, 0.0)
    return MethodCell(64, 1, 1.0, (exit_quality,), ((100.0, mid),), (mid,) * 5, (last,), held_out, ())


def test_methods_are_chosen_by_what_was_held_out_and_paired_by_seed() -> None:
    plain = [cell(0.60, 0.62, 0.60), cell(0.70, 0.72, 0.70)]
    found: dict[str, list[MethodCell]] = {way.name: plain for way in WAYS}
    # Better held out, though not in the test: it is the one that is told of.
    found["self_distillation"] = [cell(0.61, 0.63, 0.66), cell(0.69, 0.71, 0.76)]
    found["cam_distillation"] = [cell(0.80, 0.80, 0.50), cell(0.80, 0.80, 0.50)]
    found["l2w_den"] = [cell(0.50, 0.50, 0.50), cell(0.62, 0.62, 0.50)]
    # The best of all held out, but with more canvases than it is compared on.
    found["joint_sgd_seconds"] = [cell(0.90, 0.90, 0.90), cell(0.90, 0.90, 0.90)]
    same = [cell(0.64, 0.64, 0.64), cell(0.74, 0.74, 0.74)]
    alone = {"alone": same, "alone_longer": same}
    rows = method_rows(alone, found)
    told = keys(rows)
    assert (told.best_method, told.best_taught) == ("self_distillation", "self_distillation")
    assert told.best_method_gain_points.each == pytest.approx((1.0, -1.0))
    assert told.final_exit_loss_points.each == pytest.approx((1.0, 3.0))
    assert told.loss_at_53_percent_points.each == pytest.approx((2.0, 2.0))
    assert told.weighting_gain_points.each == pytest.approx((-10.0, -8.0))


@pytest.mark.convert
@pytest.mark.litert
@pytest.mark.slow
def test_a_branch_is_timed_beside_a_block(tmp_path: Path) -> None:
    said: list[str] = []
    settings = replace(QUICK, ends=(1, 4))
    answers = {"regression": AnswerConfig("regression")}
    timed = timed_parts(settings, answers, tmp_path, said.append, kinds=("mlp",), rounds=3)
    assert {(each.part, each.task) for each in timed} == {
        ("embedding", None),
        ("block", None),
        ("mlp", "regression"),
    }
    assert all(each.ms > 0.0 and each.ratio > 0.0 for each in timed)
    assert next(each.ratio for each in timed if each.part == BLOCK) == 1.0
    assert "converted mlp for regression" in said
