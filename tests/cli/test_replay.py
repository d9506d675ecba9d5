"""`edgeexit record`, `simulate` and `plan`: from a bundle and images to figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgeexit.bundle import Bundle
from edgeexit.replay.recording import load_recording

if TYPE_CHECKING:
    from tests.cli.conftest import Say

pytestmark = pytest.mark.litert


@pytest.fixture
def recorded(say: Say, tiny_bundle: Bundle, labelled: Path, tmp_path: Path) -> Path:
    """A recording of the tiny bundle."""
    file = tmp_path / "recorded.safetensors"
    assert say("record", tiny_bundle.path, labelled, "--out", file).code == 0
    return file


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    """Two networks: a steady one, and one that comes and goes."""
    folder = tmp_path / "traces"
    folder.mkdir()
    (folder / "steady.up").write_text("".join(f"{second} 8.0\n" for second in range(30)))
    (folder / "coming-and-going").write_text(
        "".join(f"{second} {4.0 if second % 4 else 0.01}\n" for second in range(30))
    )
    return folder


def test_record_keeps_every_exit_of_every_image(
    say: Say, tiny_bundle: Bundle, labelled: Path, tmp_path: Path
) -> None:
    file = tmp_path / "new" / "recorded.safetensors"
    said = say("record", tiny_bundle.path, labelled, "--out", file)
    assert said.code == 0
    assert "exit 2: quality 1.0000" in said.out
    assert "recording 16 of 16" in said.err
    recording = load_recording(file)
    assert (recording.sample_count, recording.stage_count) == (16, 3)
    assert recording.note.data == "labelled"
    assert recording.note.bundle_digest == tiny_bundle.digest


def test_record_limits_evenly_over_all_classes(
    say: Say, tiny_bundle: Bundle, labelled: Path, tmp_path: Path
) -> None:
    file = tmp_path / "r.safetensors"
    said = say("record", tiny_bundle.path, labelled, "--out", file, "--limit", 6, "--json", "--data", "few")
    summary = json.loads(said.out)
    assert summary["samples"] == 6
    assert len(summary["exit_quality"]) == 3
    recording = load_recording(file)
    assert recording.note.data == "few"
    assert len(set(recording.truth.tolist())) == 3


def test_record_says_what_is_wrong_with_a_folder(say: Say, tiny_bundle: Bundle, tmp_path: Path) -> None:
    words = ("--out", tmp_path / "r.safetensors")
    say("record", tiny_bundle.path, tmp_path / "none", *words).complains(2, "is no folder", "truth.json")
    say("record", tiny_bundle.path, tmp_path, *words).complains(2, "no labels", "fix: ")
    (tmp_path / "truth.json").write_text('{"a.png": "no such class"}')
    say("record", tiny_bundle.path, tmp_path, *words).complains(2, "'no such class' is no class")
    assert not (tmp_path / "r.safetensors").exists()


def test_simulate_writes_both_reports(say: Say, recorded: Path, traces: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    words = ("--frames", 60, "--policy", "always-offload", "--policy", "first-exit", "--out", out)
    said = say("simulate", recorded, "--traces", traces, *words)
    assert said.code == 0
    assert "steady.up" in said.out
    assert "gap closed" in said.out
    assert "report.html and report.json" in said.out
    rows = json.loads((out / "report.json").read_text())
    assert {row["trace"] for row in rows} == {"steady.up", "coming-and-going"}
    policies = {"hedged-gain", "anytime-local", "always-offload", "first-exit"}
    assert all(set(row["policies"]) == policies for row in rows)
    # A name that says uplink is taken as it is; anything else is scaled down.
    assert {row["trace"]: row["scale"] for row in rows}["steady.up"] == 1.0
    assert (out / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_simulate_is_the_same_for_the_same_seed(
    say: Say, recorded: Path, traces: Path, tmp_path: Path
) -> None:
    words = (
        *("--traces", traces, "--frames", 40, "--policy", "first-exit", "--json", "--out", tmp_path / "o"),
        *("--deadline-ms", "5,20", "--contention", "x1.8", "--outages", "each-minute", "--board", "this"),
    )
    first, again = say("simulate", recorded, *words), say("simulate", recorded, *words)
    assert first.code == 0
    assert first.out == again.out
    row = json.loads(first.out)[0]
    assert (row["deadlines"], row["contention"], row["outages"]) == ("redrawn-5/20", "x1.8", "each-minute")


def test_simulate_shows_what_notices_a_drift(say: Say, recorded: Path, traces: Path) -> None:
    words = ("--traces", traces, "--frames", 40, "--drift", 0.5, "--epsilon", 0.4, "--audit-fraction", 0.5)
    shown = say("simulate", recorded, *words)
    assert shown.code == 0, shown.err
    assert "steady.up" in shown.out
    rows = json.loads(say("simulate", recorded, *words, "--json").out)
    assert {row["began_at"] for row in rows} == {20}
    say("simulate", recorded, "--traces", traces, "--drift", 1.5).complains(
        2, "between 0 and 1", "give --drift"
    )
    for option in ("--epsilon", "--audit-fraction"):
        given = ("simulate", recorded, "--traces", traces, "--drift", 0.5, option, "nan")
        say(*given).complains(2, f"{option} is a share", f"give {option}")


def test_simulate_takes_published_costs(say: Say, recorded: Path, traces: Path, tmp_path: Path) -> None:
    words = ("--traces", traces, "--frames", 30, "--policy", "first-exit", "--out", tmp_path / "o", "--json")
    said = say("simulate", recorded, *words, "--costs", "vit-tiny", "--board", "raspberry-pi-5")
    assert said.code == 0
    # Three stages of some 50 ms in all: an answer of the first exit takes more than 10.
    assert json.loads(said.out)[0]["policies"]["first-exit"]["latency_p50_ms"] > 10.0


def test_simulate_takes_round_trips_and_devices_that_share_a_gateway(
    say: Say, recorded: Path, traces: Path, tmp_path: Path
) -> None:
    words = (
        "--traces",
        traces,
        "--frames",
        30,
        "--policy",
        "always-offload",
        "--out",
        tmp_path / "o",
        "--json",
    )
    costs = ("--costs", "vit-tiny", "--deadline-ms", "250")
    near = json.loads(say("simulate", recorded, *words, *costs, "--round-trip", "wifi-edge").out)
    far = json.loads(say("simulate", recorded, *words, *costs, "--round-trip", "120").out)
    for one, other in zip(near, far, strict=True):
        quick, slow = (row["policies"]["always-offload"]["latency_p50_ms"] for row in (one, other))
        assert slow > quick + 100.0
    shared = ("--devices", 3, "--workers", 2, "--queue", "first-come")
    crowd = say("simulate", recorded, *words, *costs, *shared)
    assert crowd.code == 0, crowd.err
    row = json.loads(crowd.out)[0]
    assert row["fleet"] == "3 on 2, first-come"
    assert row["frames"] == 3 * 30
    assert row["oracle_own_latencies"] is not None
    # Two of these payloads a second are more than such a radio may use: most are left out.
    dear = ("--power-mw", 1, "--board-mw", 4000, "--sending-mj-per-byte", 0.01, "--policy", "hedged-gain")
    saving = json.loads(say("simulate", recorded, *words, *costs, *dear, "--frames", 300).out)
    free = json.loads(
        say("simulate", recorded, *words, *costs, "--policy", "hedged-gain", "--frames", 300).out
    )
    for one, other in zip(saving, free, strict=True):
        spent, usual = (row["policies"]["hedged-gain"]["bytes_per_frame"] for row in (one, other))
        assert spent < 0.7 * usual


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--policy", "hedged-gian"), "did you mean hedged-gain?"),
        (("--deadline-ms", "5,x"), "such as --deadline-ms 60,100,150"),
        (("--deadline-ms", "0"), "a deadline of 0 ms"),
        (("--scale", "0"), "a scale of 0"),
        (("--scale", "nan"), "or 1 to take the rates as they are"),
        (("--bytes-per-s", "0"), "give --bytes-per-s in bytes"),
        (("--bytes-per-s", "inf"), "what may be sent on average"),
        (("--board", "raspbery-pi-4"), "did you mean raspberry-pi-4?"),
        (("--board", "generic-linux"), "cannot be played"),
        (("--costs", "vit-tiny", "--board", "this"), "raspberry-pi-5"),
        (("--contention", "much"), "known: none, x1.8"),
        (("--outages", "each-minut"), "did you mean each-minute?"),
        (("--deadlines", "tigth"), "did you mean tight?"),
        (("--round-trip", "wifi-egde"), "did you mean wifi-edge?"),
        (("--round-trip", "-3"), "more than 0"),
        (("--queue", "last-come"), "first-come"),
        (("--power-mw", "0"), "--power-mw is a power"),
        (("--power-mw", "100", "--board-mw", "-1"), "--board-mw is a power"),
        (("--sending-mj-per-byte", "0.01"), "add --power-mw"),
        (("--power-mw", "100", "--sending-mj-per-byte", "-1"), "zero or more"),
    ],
)
def test_simulate_refuses_words_that_mean_nothing(
    say: Say, recorded: Path, traces: Path, words: tuple[str, ...], complaint: str
) -> None:
    say("simulate", recorded, "--traces", traces, *words).complains(2, complaint)


def test_simulate_refuses_files_that_are_something_else(
    say: Say, recorded: Path, traces: Path, image: Path, tmp_path: Path
) -> None:
    say("simulate", image, "--traces", traces).complains(2, "is not a recording", "edgeexit record")
    say("simulate", recorded, "--traces", tmp_path / "none").complains(2, "no such folder")
    (traces / "worse").write_text("0 1.0\n1 -3\n")
    for given in (traces, traces / "worse"):
        say("simulate", recorded, "--traces", given).complains(2, f"{traces / 'worse'}:2")


def test_plan_from_given_figures(say: Say) -> None:
    words = ("--devices", 2000, "--frames-per-s", 2, "--offload-fraction", 0.2, "--service-ms", "4,5,6")
    said = say("plan", *words, "--target-p99-ms", 30, "--json")
    found = json.loads(said.out)
    assert found["requests_per_s"] == pytest.approx(800.0)
    # 800 requests of 5 ms keep four workers busy.
    assert found["enough"]["gateways"] > 4
    assert found["enough"]["stay_p99_ms"] <= 30.0
    told = say("plan", *words, "--target-p99-ms", 30, "--workers", 4, "--one-queue")
    assert "gateways needed: " in told.out
    assert "tried " in told.err


def test_plan_from_a_replay(say: Say, recorded: Path, traces: Path) -> None:
    (traces / "coming-and-going").unlink()
    words = (
        *("--devices", 5000, "--frames-per-s", 2, "--recording", recorded, "--traces", traces),
        *("--costs", "vit-tiny", "--board", "raspberry-pi-4", "--target-p99-ms", 50, "--json"),
    )
    found = json.loads(say("plan", *words).out)
    # Over 8 Mbit/s an image of 15 kB is there in time, and the board needs 200 ms for the whole network.
    assert 0.1 * 10_000 < found["requests_per_s"] <= 10_000
    assert found["enough"]["gateways"] > 1


def test_plan_from_what_a_device_wrote(say: Say, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    offload = {
        "type": "offload", "frame": 0, "boundary": 0, "codec": "u8", "uplink_bytes": 100,
        "outcome": "used", "reason": "gain", "elapsed_ms": 9.0, "queue_ms": 0.5, "compute_ms": 6.0,
    }  # fmt: skip
    drop = {"type": "drop", "source": "x", "reason": "replaced"}
    lines = [json.dumps({**drop, "frame": n, "captured_ms": 100.0 * n}) for n in range(11)]
    results.write_text("\n".join([*lines, *[json.dumps(offload)] * 5]) + "\n")
    words = ("--devices", 100, "--results", results, "--target-p99-ms", 40)
    found = json.loads(say("plan", *words, "--json").out)
    # Ten frames a second, five of eleven offloaded.
    assert found["requests_per_s"] == pytest.approx(100 * 10 * 5 / 11)
    results.write_text(lines[0] + "\n")
    say("plan", *words).complains(2, "says too little")


def test_plan_says_what_it_must_know(say: Say, recorded: Path) -> None:
    words = ("--devices", 100, "--target-p99-ms", 40)
    say("plan", *words).complains(2, "frames_per_s is unknown", "--results")
    say("plan", *words, "--recording", recorded).complains(2, "--traces DIR")
    say("plan", *words, "--recording", recorded, "--traces", recorded.parent).complains(2, "a frame rate")
    figures = ("--frames-per-s", 2, "--offload-fraction", 0.5, "--service-ms", "50")
    say("plan", *words, *figures).complains(2, "cannot be kept", "the service alone")
    say("plan", "--devices", 100, "--target-p99-ms", 0, *figures).complains(2, "a p99 of 0 ms")
    say("plan", *words, *figures[:2], "--offload-fraction", 2, *figures[4:]).complains(2, "offload_fraction")
