"""Grids, studies and their report, on a few short rows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeexit.decide.policies.hindsight import static_rules
from edgeexit.errors import TraceError
from edgeexit.replay.contenders import FLOOR, OWN, contenders, network_profile, static_threshold
from edgeexit.replay.delays import constant_delay
from edgeexit.replay.formats.steps import Steps
from edgeexit.replay.hindsight import best_static_rule
from edgeexit.replay.links import Link, by_part, is_uplink, read_links, unlimited, wifi_30
from edgeexit.replay.outcome import LATE_NETWORK
from edgeexit.replay.profile import CostProfile
from edgeexit.replay.recording import Recording
from edgeexit.replay.scenarios import BANDS, PI_4_MS, Board, GridRow, grid_row, standard_grid, vit_tiny
from edgeexit.replay.showcase import most_telling, showcase, strongest
from edgeexit.replay.simulator import simulate
from edgeexit.replay.study import HINDSIGHT, RULE_FOR_ALL, run_study, with_rule_for_all
from edgeexit.replay.study_figures import RowFigures
from edgeexit.replay.study_report import write_study_report
from edgeexit.replay.traces import LinkTrace
from edgeexit.replay.world import world_of


@pytest.fixture(scope="module")
def figures(recording: Recording) -> list[RowFigures]:
    return run_study(rows_of(recording), recording, seeds=(1, 2))


def rows_of(recording: Recording) -> list[GridRow]:
    profile = vit_tiny(recording, "pi", PI_4_MS)
    return [
        grid_row(profile, wifi_30(), board="pi", frames=150),
        grid_row(profile, unlimited(), board="pi", frames=150, contention="x1.8", outages="gateway-dead"),
    ]


def test_a_study_holds_every_policy_between_floor_and_oracles(figures: list[RowFigures]) -> None:
    for row in figures:
        assert set(row.policies) == {*contenders(), HINDSIGHT}
        assert row.frames == 300
        assert row.floor < row.oracle_latency <= row.oracle_relaxed + 0.01
        assert all(each.objective <= row.oracle_correctness + 1e-9 for each in row.policies.values())
        own = row.policies[OWN]
        assert row.gain_points == pytest.approx(100.0 * (own.objective - row.floor))
        assert row.gain_low <= row.gain_points <= row.gain_high
        assert row.late_network == 0
        beaten = {each.baseline for each in row.beaten_by}
        ahead = {name for name, each in row.policies.items() if each.objective > own.objective + 1e-9}
        assert beaten == ahead - {OWN}
        assert all(each.points > 0.0 for each in row.beaten_by)


def test_decisions_that_take_no_time_lose_nothing_on_the_edge_of_a_budget(recording: Recording) -> None:
    """Two stages of 49.3 ms end just before or after 97.9 ms: what two decisions take decides about many."""
    profile = replace(vit_tiny(recording, "pi", PI_4_MS), decision_ms=1.0)
    slow = Link("slow", LinkTrace("slow", Steps((0.0, 1000.0), (10_000.0,))), constant_delay(40.0))
    row = grid_row(profile, slow, board="pi", frames=300, deadlines="middle")
    made = contenders()
    few = {name: made[name] for name in (OWN, FLOOR)}
    figure = run_study([row], recording, seeds=(1, 2), policies=few, hindsight=False)[0]
    assert figure.gap_closed is not None
    assert figure.gap_closed_free_decisions is not None
    assert figure.gap_closed < figure.gap_closed_free_decisions


def test_one_static_rule_for_all_rows_is_no_better_than_the_best_of_each(
    recording: Recording, figures: list[RowFigures]
) -> None:
    rows = rows_of(recording)
    for before, after in zip(figures, with_rule_for_all(rows, figures, recording, seeds=(1, 2)), strict=True):
        assert set(after.policies) == {*before.policies, RULE_FOR_ALL}
        best = after.policies[HINDSIGHT].objective
        assert after.policies[RULE_FOR_ALL].objective <= best + 0.02


def test_more_seeds_go_to_the_gap_and_to_whatever_may_be_ahead(recording: Recording) -> None:
    made = contenders()
    few = {name: made[name] for name in (OWN, FLOOR, "alert", "always-offload+fallback")}
    row = rows_of(recording)[:1]
    plain = run_study(row, recording, seeds=(1,), policies=few, hindsight=False)[0]
    more = run_study(row, recording, seeds=(1,), more_seeds=(2, 3), policies=few, hindsight=False)[0]
    assert more.frames == 3 * plain.frames
    assert more.policies["alert"].objective == plain.policies["alert"].objective
    assert more.policies["always-offload+fallback"] == plain.policies["always-offload+fallback"]
    assert all(each.frames in (plain.frames, more.frames) for each in more.beaten_by)
    assert more.gap_error < plain.gap_error


def test_the_policy_closes_most_of_a_wide_gap(figures: list[RowFigures]) -> None:
    wifi = figures[0]
    assert wifi.gap_points > 5.0
    assert wifi.gap_closed is not None
    assert wifi.gap_closed > 0.85


def test_the_same_seeds_give_the_same_study(recording: Recording) -> None:
    made = contenders()
    few = {name: made[name] for name in (OWN, FLOOR, "spinn")}
    first, second = (
        run_study(rows_of(recording)[:1], recording, seeds=(3,), policies=few, hindsight=False)
        for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize("name", sorted(contenders()))
def test_every_contender_finishes_a_rough_run(recording: Recording, name: str) -> None:
    profile = vit_tiny(recording, "pi", PI_4_MS)
    row = grid_row(profile, wifi_30(), board="pi", frames=120, contention="x3", outages="each-minute")
    run = simulate(row.scenario, recording, contenders()[name], 1)
    assert run.policy.startswith(name.removesuffix("+fallback").removesuffix("-dynamic")[:5])
    if name.endswith("+fallback") or name in (OWN, FLOOR):
        assert not (run.fates == LATE_NETWORK).any()


def test_the_best_static_rule_is_the_best_of_all_that_were_tried(recording: Recording) -> None:
    profile = vit_tiny(recording, "pi", PI_4_MS)
    row = grid_row(profile, wifi_30(), board="pi", frames=120)
    worlds = [world_of(row.scenario, recording, 1)]
    best = best_static_rule(worlds, thresholds=(0.7, 0.95))
    assert best.rule in static_rules(4, thresholds=(0.7, 0.95))
    floor = simulate(row.scenario, recording, contenders()[FLOOR], 1)
    assert best.outcomes[0].value.mean() >= floor.value.mean() - 0.02


def test_a_static_threshold_costs_at_most_a_point(recording: Recording) -> None:
    threshold = static_threshold(recording)
    reached = recording.scores >= threshold
    reached[:, -1] = True
    stops = reached.argmax(axis=1)
    quality = recording.quality[np.arange(recording.sample_count), stops].mean()
    assert quality >= recording.quality[:, -1].mean() - 0.01
    assert (stops < recording.stage_count - 1).any()


def test_published_policies_know_the_profile(profile: CostProfile, recording: Recording) -> None:
    known = network_profile(profile, recording)
    assert known.cuts() == (0, 1)
    assert known.accuracy == recording.prior_quality


def test_a_grid_names_its_rows_apart_and_keeps_frames_apart(recording: Recording) -> None:
    boards = [Board("a", vit_tiny(recording, "a", 200.0)), Board("b", vit_tiny(recording, "b", 50.0), "wide")]
    links = [wifi_30(), unlimited()]
    few = standard_grid(boards, links, frames=40)
    full = standard_grid(boards, links, frames=40, full=True)
    for rows in (few, full):
        names = [row.scenario.name for row in rows]
        assert len(set(names)) == len(names)
    assert len(full) > len(few)
    for row in full:
        full_ms = sum(row.scenario.profile.stage_ms)
        assert row.scenario.period_ms > max(max(band) for band in BANDS.values()) * full_ms


def test_payloads_of_vit_tiny_answer_like_recorded_ones(recording: Recording) -> None:
    profile = vit_tiny(recording, "pi", PI_4_MS)
    assert [option.boundary for option in profile.options] == [0, 1]
    assert [option.payload_bytes for option in profile.options] == [15_000, 37_824]
    assert sum(profile.stage_ms) == pytest.approx(PI_4_MS)


def test_folders_of_traces_are_parted_and_scaled(tmp_path: Path) -> None:
    for name in ("a.up", "b.up", "c.up"):
        (tmp_path / name).write_text("1\n2\n3\n")
    (tmp_path / "lte").mkdir()
    (tmp_path / "lte" / "one").write_text("0 8\n1 8\n")
    links = read_links(tmp_path)
    assert {link.name: link.development for link in links} == {
        "a.up": True,
        "b.up": False,
        "c.up": True,
        "lte/one": False,
    }
    scales = {link.name: link.trace.scale for link in links}
    assert scales["a.up"] == 1.0
    assert scales["lte/one"] == pytest.approx(1.0 / 3.0)
    assert [link.name for link in by_part(links, development=False, per_folder=1)] == ["b.up", "lte/one"]
    assert len(by_part(links, development=True, per_folder=None)) == 2
    with pytest.raises(TraceError):
        by_part([], development=True, per_folder=1)


def test_a_single_file_is_a_link_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "ride.txt").write_text("0 8\n1 8\n")
    (link,) = read_links(tmp_path / "ride.txt")
    assert link.name == "ride.txt"
    assert not link.development


@pytest.mark.parametrize(
    ("name", "up"),
    [("x.up", True), ("Verizon-up", True), ("lte_uplink_3", True), ("x.down", False), ("cup", False)],
)
def test_uplinks_are_told_by_name(name: str, up: bool) -> None:
    assert is_uplink(Path(name)) is up


def test_the_report_is_json_and_one_page(
    tmp_path: Path, recording: Recording, figures: list[RowFigures]
) -> None:
    rows = rows_of(recording)
    shown = showcase(rows[most_telling(figures)], recording, seed=1, names=strongest(figures, 2))
    assert set(shown.runs) == {OWN, FLOOR, *strongest(figures, 2)} - {HINDSIGHT}
    write_study_report(
        tmp_path, figures, title="Study", subtitle="two rows", shown=shown, remarks=["Scaled."]
    )
    report = json.loads((tmp_path / "report.json").read_text())
    assert [row["scenario"] for row in report] == [row.scenario for row in figures]
    html = (tmp_path / "report.html").read_text()
    assert html.count("<svg") == 5
    assert "Scaled." in html
    write_study_report(tmp_path, figures[:1], title="Study", subtitle="one row")
    with pytest.raises(ValueError, match="at least one"):
        write_study_report(tmp_path, [], title="", subtitle="")


def test_a_study_without_a_gap_is_reported_too(tmp_path: Path, figures: list[RowFigures]) -> None:
    none = replace(figures[0], gap_closed=None, gap_closed_low=None, gap_closed_high=None)
    write_study_report(tmp_path, [none], title="Study", subtitle="nothing to win")
    assert "Gap closed, by scenario" not in (tmp_path / "report.html").read_text()
