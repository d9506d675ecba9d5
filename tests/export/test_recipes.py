"""Every recipe goes the whole way at its tiny size: train, convert, and the bundle opens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from edgeexit.bundle import open_bundle
from edgeexit.cli.evaluation_report import measure_latency
from edgeexit.cli.main import build
from edgeexit.cli.recipe_flow import Choices, find_or_train, prepare
from edgeexit.cli.recipe_run import run
from edgeexit.errors import ConfigError
from edgeexit.models.attached import AttachedNetwork
from edgeexit.training.recipe import read_recipe
from edgeexit.training.stored import read_stored

ROOT = Path(__file__).parents[2]
EXPORT = ROOT / "export"

pytestmark = pytest.mark.convert


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.slow
@pytest.mark.litert
@pytest.mark.parametrize(
    ("name", "words", "exits"),
    [
        ("vit_tiny_canvas", (), "exits after blocks 1, 2"),
        ("vit_counting", (), "exits after blocks 1 (mlp), 2 (linear)"),
        ("deit_tiny_timm", ("--branch", "cnn_add"), "exits after blocks 1 (cnn_add), 3 (linear)"),
        ("dinov2_small_hf", (), "exits after blocks 1 (mlp), 3 (linear)"),
    ],
)
def test_the_tiny_size_goes_from_a_network_to_a_bundle(
    name: str, words: tuple[str, ...], exits: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = read_recipe(EXPORT / f"{name}.py")
    places = ("--tiny", "--out", str(tmp_path / "bundle"), "--work", str(tmp_path / "work"))
    code = run(recipe, (*places, *words))
    told = capfd.readouterr()
    assert code == 0, told.err
    assert "loss by exit" in told.out
    manifest = open_bundle(tmp_path / "bundle").manifest
    assert recipe.tiny is not None
    assert manifest.name == recipe.tiny.name
    assert manifest.stage_count == 2
    assert manifest.task == ("regression" if name == "vit_counting" else "classification")
    assert exits in manifest.provenance.network
    (checkpoint,) = (tmp_path / "work").glob("*.safetensors")
    stored = read_stored(checkpoint)
    assert stored.labels == manifest.labels
    assert stored.sha256 == manifest.provenance.checkpoint_sha256
    assert [path.suffix for path in (tmp_path / "work").glob("*.pt")] == []


@pytest.mark.slow
@pytest.mark.litert
def test_a_bundle_is_measured_exit_by_exit_and_only_with_its_own_weights(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = read_recipe(EXPORT / "vit_fashion.py")
    bundle, work = tmp_path / "bundle", tmp_path / "work"
    words = ("--tiny", "--work", str(work), "--report", str(tmp_path / "page"))
    assert run(recipe, (*words, "--out", str(bundle))) == 0
    assert "exit 1: " in capfd.readouterr().out
    report = json.loads((tmp_path / "page" / "evaluation.json").read_text())
    exits = report["latency"]["exits"]
    assert len(exits) == len(report["evaluation"]["exits"]) == 2
    assert 0 < exits[0]["until_ms"] < exits[1]["until_ms"]
    assert "<svg" in (tmp_path / "page" / "evaluation.html").read_text()
    done = CliRunner().invoke(
        build(), ["evaluate", str(recipe.file), "--tiny", "--work", str(work), "--bundle", str(bundle)]
    )
    assert done.exit_code == 0, done.stderr
    assert "its stage" in done.stdout
    with pytest.raises(ConfigError, match="of other weights"):
        measure_latency(bundle, checkpoint_sha256="0" * 64, threads=1)


def test_the_packaged_backbone_is_trained_without_being_touched(tmp_path: Path) -> None:
    recipe = read_recipe(EXPORT / "vit_small_focus.py")
    choices = Choices(tiny=True, work=tmp_path, samples=32, branch="linear")
    prepared = prepare(recipe, choices, lambda _: None)
    network = prepared.network
    assert isinstance(network, AttachedNetwork)
    before = [parameter.clone() for parameter in network.backbone_parameters()]
    branch = [parameter.clone() for parameter in network.branches[0].parameters()]
    find_or_train(prepared, choices, lambda _: None)
    after = list(network.backbone_parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not torch.equal(branch[-1], list(network.branches[0].parameters())[-1])
    assert read_stored(prepared.path).description.image_shape == (3, 28, 28)


@pytest.mark.parametrize("name", ["deit_tiny_timm", "dinov2_small_hf"])
def test_without_weights_a_recipe_says_how_to_get_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    recipe = read_recipe(EXPORT / f"{name}.py")
    assert run(recipe, ["--out", str(tmp_path / "bundle")]) == 2
    told = capsys.readouterr().err
    assert "error: no weights are given" in told
    assert "--download" in told
    assert run(recipe, ["--out", str(tmp_path / "bundle"), "--weights", str(tmp_path / "none")]) == 2
    assert "fix: " in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_a_recipe_is_a_program_of_its_own(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            str(EXPORT / "vit_fashion.py"),
            "--out",
            str(tmp_path / "b"),
            "--data",
            str(tmp_path),
        ],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=280,
    )
    assert done.returncode == 2
    assert "fix: sudo apt-get install dataset-fashion-mnist" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.process
@pytest.mark.parametrize(
    ("name", "reached"), [("vit_fashion_clutter", "loss by exit"), ("vit_tiny_canvas", "lower")]
)
def test_ctrl_c_ends_training_and_conversion_in_one_word(name: str, reached: str, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    words = ("--tiny", "--out", str(bundle), "--work", str(tmp_path / "work"))
    with subprocess.Popen(
        [sys.executable, str(EXPORT / f"{name}.py"), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert any(reached in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
    assert process.returncode == 130
    assert told.splitlines()[-1] == "interrupted"
    assert "Traceback" not in told
    assert not bundle.exists()


@pytest.mark.process
def test_a_reader_that_leaves_ends_a_recipe_quietly(tmp_path: Path) -> None:
    words = ("--tiny", "--out", str(tmp_path / "bundle"), "--work", str(tmp_path / "work"))
    with subprocess.Popen(
        [sys.executable, str(EXPORT / "vit_tiny_canvas.py"), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("data")
        process.stdout.close()  # as `python export/… | head -1`
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_a_place_that_cannot_be_written_is_said_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    recipe = read_recipe(EXPORT / "vit_tiny_canvas.py")
    assert (
        run(recipe, ["--tiny", "--out", str(tmp_path / "b"), "--work", str(tmp_path / "file" / "work")]) == 2
    )
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert "Not a directory" in told
