"""The recipes for published backbones go the whole way on small ones, and ask for weights otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeexit.bundle import open_bundle
from edgeexit.training.stored import read_stored

ROOT = Path(__file__).parents[2]
RECIPES = ("deit_tiny_timm", "dinov2_small_hf")

pytestmark = pytest.mark.convert


def run_recipe(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "export" / f"{name}.py"), "--threads", "1", *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        timeout=300,
    )


@pytest.mark.slow
@pytest.mark.litert
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", RECIPES)
def test_the_tiny_size_goes_from_a_backbone_to_a_bundle(name: str, tmp_path: Path) -> None:
    words = ("--tiny", "--out", str(tmp_path / "bundle"), "--work", str(tmp_path / "work"))
    done = run_recipe(name, *words, "--branch", "cnn_add")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "loss by exit" in done.stdout
    manifest = open_bundle(tmp_path / "bundle").manifest
    assert manifest.stage_count == 2
    assert "exits after blocks 1 (cnn_add), 3 (linear)" in manifest.provenance.network
    (checkpoint,) = (tmp_path / "work").glob("*.safetensors")
    stored = read_stored(checkpoint)
    assert stored.labels == manifest.labels
    assert stored.sha256 == manifest.provenance.checkpoint_sha256


@pytest.mark.parametrize("name", RECIPES)
def test_without_weights_the_recipe_says_how_to_get_them(name: str, tmp_path: Path) -> None:
    done = run_recipe(name, "--out", str(tmp_path / "bundle"))
    assert done.returncode == 1
    assert "what: no weights are given" in done.stderr
    assert "--download" in done.stderr
    assert "Traceback" not in done.stderr
    lost = run_recipe(name, "--out", str(tmp_path / "bundle"), "--checkpoint", str(tmp_path / "none"))
    assert lost.returncode == 1
    assert "fix: " in lost.stderr
    assert "Traceback" not in lost.stderr
