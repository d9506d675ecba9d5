"""`edgeexit inspect`, `run` and `flash` on good bundles and on bad ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import pytest

from edgeexit.bundle import Bundle
from edgeexit.bundle.encoding import digest_of, encode_manifest
from edgeexit.bundle.manifest import RiskControl

if TYPE_CHECKING:
    from tests.cli.conftest import Say


RISKS: tuple[Literal["accuracy-drop", "inconsistency"], ...] = ("accuracy-drop", "inconsistency")


@pytest.fixture
def copied(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    """A bundle that may be damaged."""
    shutil.copytree(tiny_bundle.path, tmp_path / "copied")
    return tmp_path / "copied"


def test_inspect_shows_stages_exits_and_boundaries(say: Say, tiny_bundle: Bundle) -> None:
    said = say("inspect", tiny_bundle.path)
    assert said.code == 0
    assert tiny_bundle.digest in said.out
    for word in ("stages", "exits", "boundaries", "int8", "all digests verified"):
        assert word in said.out


def test_inspect_loses_no_digit_on_a_narrow_terminal(
    say: Say, tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = say("inspect", tiny_bundle.path)
    stages = said.out[said.out.index("stages;") : said.out.index("exits, on")]
    assert "…" not in stages
    for stage in tiny_bundle.manifest.stages:
        assert f" {stage.parameters:,} " in stages
        for variant in stage.variants:
            assert f" {variant.blob.size_bytes:,} " in stages
            assert all(f" {runtime} " in stages for runtime in variant.runtimes)


def test_inspect_shows_every_guarantee(
    say: Say, copied: Path, tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    controls = tuple(
        RiskControl(
            variant="f32",
            method="learn-then-test",
            risk=risk,
            epsilon=0.02,
            delta=0.1,
            samples=500,
            thresholds=(0.9, 2.0, 0.0),
            empirical_risk=0.01,
            data=data,
        )
        for risk, data in zip(RISKS, ("held out [half]", "night"), strict=False)
    )
    manifest = msgspec.structs.replace(tiny_bundle.manifest, risk_controls=controls)
    (copied / "manifest.json").write_bytes(encode_manifest(manifest))
    (copied / "manifest.json.sha256").write_text(f"{digest_of(manifest)}  manifest.json\n", encoding="ascii")
    said = say("inspect", copied)
    assert said.code == 0, said.err
    for word in (
        "accuracy-drop",
        "inconsistency",
        "never",
        "[1] held out [half], n = 500",
        "[2] night, n = 500",
    ):
        assert word in said.out


def test_inspect_prints_json_alone(say: Say, tiny_bundle: Bundle) -> None:
    said = say("inspect", tiny_bundle.path, "--json")
    shown = json.loads(said.out)
    assert shown["digest"] == tiny_bundle.digest
    assert len(shown["manifest"]["stages"]) == 3
    assert said.err == ""


def test_a_missing_bundle(say: Say, tmp_path: Path, image: Path) -> None:
    for words in (
        ("inspect", "nowhere"),
        ("run", "nowhere", image),
        ("flash", "--root", tmp_path, "nowhere"),
    ):
        say(*words).complains(4, "no bundle at nowhere")


def test_a_tampered_bundle_is_named_and_refused(say: Say, copied: Path, image: Path, tmp_path: Path) -> None:
    blob = next((copied / "blobs" / "sha256").iterdir())
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    for words in (("inspect", copied), ("run", copied, image), ("flash", "--root", tmp_path / "b", copied)):
        say(*words).complains(4, blob.name, "changed after the bundle was made")
    assert not (tmp_path / "b").exists()


def test_a_bundle_that_lost_a_file(say: Say, copied: Path) -> None:
    (copied / "golden" / "golden.safetensors").unlink()
    say("inspect", copied).complains(4, "golden.safetensors", "missing")


def test_errors_as_json_leave_standard_output_empty(say: Say) -> None:
    said = say("inspect", "nowhere", "--json")
    assert said.code == 4
    assert said.out == ""
    assert json.loads(said.err)["error"] == "BundleError"


@pytest.mark.litert
def test_run_answers_with_exit_place_and_route(say: Say, tiny_bundle: Bundle, image: Path) -> None:
    said = say("run", tiny_bundle.path, image)
    assert said.code == 0
    assert image.parent.name in said.out
    assert "on device" in said.out
    assert "route: " in said.out


@pytest.mark.litert
def test_run_prints_json_alone(say: Say, tiny_bundle: Bundle, image: Path) -> None:
    said = say("run", tiny_bundle.path, image, "--json", "--budget-ms", 5000)
    answer = json.loads(said.out)
    assert tiny_bundle.manifest.labels[answer["label"]] == image.parent.name
    assert answer["place"] == "device"
    assert answer["deadline_ms"] == 5000.0
    assert answer["latency_ms"] <= 5000.0


@pytest.mark.litert
def test_run_says_why_it_cannot(say: Say, tiny_bundle: Bundle, image: Path, tmp_path: Path) -> None:
    bundle = tiny_bundle.path
    text = tmp_path / "text.png"
    text.write_text("no picture")
    say("run", bundle, tmp_path / "gone.png").complains(2, "gone.png cannot be read")
    say("run", bundle, text).complains(2, "text.png", "no image")
    say("run", bundle, image, "--budget-ms", 0).complains(2, "budget of 0")
    say("run", bundle, image, "--budget-ms", "nan").complains(2, "budget of nan")
    say("run", bundle, image, "--variant", "f99").complains(1, "'f99'", "f32, int8")
    say("run", bundle, image, "--broker", "http://x").complains(2, "not a broker", "mqtt://")
    say("run", bundle, image, "--broker", "mqtt://127.0.0.1:1").complains(3, "no broker at 127.0.0.1:1")


def test_flash_onto_a_folder_twice(say: Say, tiny_bundle: Bundle, tmp_path: Path) -> None:
    board = tmp_path / "board"
    first = say("flash", "--root", board, tiny_bundle.path)
    assert first.code == 0
    assert f"now runs {tiny_bundle.digest[:12]}" in first.out
    second = say("flash", "--root", board, tiny_bundle.path)
    assert second.code == 0
    assert "already current" in second.out
    assert second.err == ""
    report = json.loads(say("flash", "--root", board, tiny_bundle.path, "--json").out)
    assert report["already_current"] is True
    assert report["sent_bytes"] == 0


def test_flash_wants_a_board_or_a_folder_and_not_both(say: Say, tiny_bundle: Bundle, tmp_path: Path) -> None:
    say("flash", tiny_bundle.path).complains(2, "nothing to flash", "edgeexit flash pi@")
    say("flash", "pi@board", tiny_bundle.path, "--root", tmp_path).complains(2, "together")


def test_flash_says_that_a_board_is_not_there(say: Say, tiny_bundle: Bundle) -> None:
    say("flash", "pi@127.0.0.1:1", tiny_bundle.path).complains(3, "cannot reach pi@127.0.0.1")


def test_flash_refuses_a_configuration_that_the_daemon_would_refuse(
    say: Say, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    config = tmp_path / "device.toml"
    config.write_text('[source]\nkind = "directory"\npaht = "x"\n')
    words = ("flash", "--root", tmp_path / "board", "--config", config, tiny_bundle.path)
    say(*words).complains(2, "source.paht", "did you mean source.path?")
    assert not (tmp_path / "board").exists()
