"""A conversion that is asked for a mixture: times given from a board decide, and the bundle says so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgeexit.bundle import open_bundle
from edgeexit.cli.conversion import read_times
from edgeexit.convert.conversion import convert
from edgeexit.convert.plan import ConversionPlan
from edgeexit.convert.report import render
from edgeexit.errors import ConfigError, DataError

if TYPE_CHECKING:
    from tests.convert.conftest import Converted

pytestmark = [pytest.mark.convert, pytest.mark.litert]


def test_times_of_a_board_decide_which_variant_is_preferred(converted: Converted, tmp_path: Path) -> None:
    times = (("f32", (5.0, 5.0, 5.0)), ("int8", (1.0, 9.0, None)))
    plan = replace(converted.plan, mixture_loss=0.5, mixture_times=times)
    report = convert(
        converted.network,
        plan,
        calibration=converted.calibration,
        test=None,
        out=tmp_path / "mixed",
        lowering=converted.lowering,
    )
    assert report.mixture == ("int8", "f32", "f32")
    assert "preferred by stage: int8, f32, f32" in render(report)
    bundle = open_bundle(tmp_path / "mixed")
    assert [stage.preferred for stage in bundle.manifest.stages] == ["int8", "f32", "f32"]
    assert open_bundle(converted.out).manifest.stages[0].preferred != "int8", "nothing is preferred unasked"


@pytest.mark.parametrize("loss", [-0.1, 1.0, float("nan")])
def test_a_loss_that_is_no_share_is_refused(tiny_plan: ConversionPlan, loss: float) -> None:
    with pytest.raises(ConfigError, match="mixture_loss"):
        replace(tiny_plan, mixture_loss=loss)


def test_times_come_from_the_table_that_bench_prints(tmp_path: Path) -> None:
    row = {
        "stage": 0,
        "variant": "f32",
        "precision": "f32",
        "size_bytes": 1,
        "passed": True,
        "why": None,
        "max_abs_diff": 0.0,
        "tolerance": 0.1,
        "agreement": 1.0,
        "best_ms": 2.0,
        "median_ms": 3.0,
        "chosen": True,
    }
    table = {
        "bundle": "b",
        "digest": "d",
        "machine": "m",
        "runtime": "r",
        "runtime_version": "1",
        "beside": None,
        "threads": 1,
        "elapsed_ms": 1.0,
        "note": None,
        "failure": None,
        "rows": [row, row | {"variant": "int8", "passed": False}, row | {"stage": 1, "median_ms": 4.0}],
    }
    (tmp_path / "times.json").write_text(json.dumps(table))
    assert read_times(tmp_path / "times.json") == (("f32", (3.0, 4.0)), ("int8", (None, None)))
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(DataError, match="holds no times"):
        read_times(tmp_path / "other.json")
    with pytest.raises(DataError, match="holds no times"):
        read_times(tmp_path / "absent.json")
