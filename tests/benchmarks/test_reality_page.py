"""The page of the reality check: its tables come out of the very rows that were published."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec

from benchmarks.reality.apart import Apart, Shifted
from benchmarks.reality.compare import QUANTILES, Compared, Figures
from benchmarks.reality.page import Published, plot, tables
from benchmarks.reality.redriven import Inputs
from benchmarks.reality.rows import Row, SubjectFigures

FIGURES = Figures(
    frames=300,
    on_time_fraction=0.99,
    correct_by_deadline_fraction=0.8,
    offloaded_fraction=0.5,
    gateway_fraction=0.4,
    shares={"device/0": 0.6, "gateway/3": 0.4},
    bytes_per_frame=20_000.0,
    latency_mean_ms=50.0,
    latency_p95_ms=80.0,
    latency_ms=tuple(float(each) for each in QUANTILES),
    late_by={"late-compute": 0.01},
)
ON_TIME = Compared("on time", "%", 99.0, 98.0, 97.0, 98.5, 0.5, 2.0, agrees=True)
ROW = Row(
    name="steady",
    subject="played",
    link="5 Mbit/s up",
    seconds=60.0,
    accepted=True,
    agrees=True,
    compared=(ON_TIME,),
    agrees_apart=False,
    compared_apart=(replace(ON_TIME, replayed=91.0, low=91.0, high=92.0, difference=7.0, agrees=False),),
    real=FIGURES,
    replayed=FIGURES,
    without={"overhead_ms": 1.0},
    apart=Apart(0.1, 0.2, 0.0, 1.0, 2.0),
    inputs=Inputs(0.9986, 54.14, 56.33, {"link": 59.45, "encoding": 53.22}),
    shifted={"both": Shifted(-0.2, 0.1)},
    stages={"before": (30.0, 31.5), "within": (30.2, None)},
    waking_ms=(0.2, 0.5),
    after_pause_ms=None,
    expected_after_pause_ms=0.0,
    worst_lateness_ms=3.0,
    late_share=0.0,
    stolen_share=0.0,
)
BUSY = replace(ROW, name="contention", stages={**ROW.stages, "within, busy": (70.0, 71.0)})
SUBJECT = SubjectFigures("a board", 12.5, 100.0, (50.0, 50.0), 1.1, 0.04, 0.9, 300, 200, 1.2, 1.5, 8.8)


def published() -> Published:
    """As `publish` writes a result, with more beside it, and as the page reads it."""
    whole = {"scenarios": (ROW, BUSY), "subjects": {"played": SUBJECT}, "seed": 1, "agrees": True}
    return msgspec.convert(json.loads(msgspec.json.encode(whole)), Published)


def test_what_was_published_is_read_again_whole() -> None:
    result = published()
    assert result.scenarios == (ROW, BUSY)
    assert result.subjects == {"played": SUBJECT}


def test_every_figure_stands_in_its_table() -> None:
    made = tables(published())
    assert "### steady: agrees" in made
    # Beside the judged replay stands the one on stages measured apart, marked where it disagrees.
    assert "| on time, % | 99.0 | 98.0 | 97.0 to 98.5 | 0.5 | 2.0 | 91.0 | 7.0 **!** |" in made
    assert "| steady | 30, 31.5 | 30.2, – | – |" in made
    assert "| contention | 30, 31.5 | 30.2, – | 70, 71 |" in made
    assert "| steady | 54.1 | 56.3 | 59.5 | 53.2 | 99.86 % |" in made
    assert "| encode_ms | 0.9 |" in made
    for table in made.split("\n\n"):
        lines = [line for line in table.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1, table


def test_the_plot_has_both_worlds() -> None:
    drawn = plot(published())
    assert drawn.lstrip().startswith("<?xml") or "<svg" in drawn
