"""The demo's recipe goes the whole way, finds its work again, and says what is wrong in words."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeexit.bundle import open_bundle
from edgeexit.training.recipe import read_recipe

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "export" / "vit_fashion_clutter.py"


def run_recipe(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(RECIPE), *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=600,
    )


@pytest.mark.convert
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_tiny_size_goes_from_items_to_a_bundle(tmp_path: Path) -> None:
    words = (
        *("--tiny", "--out", str(tmp_path / "bundle"), "--work", str(tmp_path / "work")),
        *("--images", str(tmp_path / "images"), "--image-count", "20"),
    )
    first = run_recipe(*words)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "fashion-mnist" in first.stdout
    bundle = open_bundle(tmp_path / "bundle")
    manifest = bundle.manifest
    assert manifest.stage_count == 4
    assert len(manifest.labels) == 10
    assert all([v.name for v in stage.variants] == ["f32", "int8"] for stage in manifest.stages)
    assert [tensor.name for tensor in manifest.boundaries[0].tensors] == ["image"]
    # Chance is one in ten, give or take 0.012 on 600 canvases: whatever the machine's speed, it must
    # have learned something.
    assert manifest.exits[-1].accuracy_float > 0.16

    names = sorted(path.name for path in (tmp_path / "images").glob("*.png"))
    assert len(names) == 20
    assert all(re.fullmatch(r"\d{5}-\d\.png", name) for name in names)
    with Image.open(tmp_path / "images" / names[0]) as image:
        assert image.mode == "L"
        assert np.asarray(image).shape == (manifest.preprocessing.height, manifest.preprocessing.width)

    second = run_recipe(*words)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "already done" in second.stdout
    assert open_bundle(tmp_path / "bundle").digest == bundle.digest


@pytest.mark.convert
def test_without_fashion_mnist_digits_stand_in_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeexit.training.recipe_data.FASHION_MNIST_ROOT", tmp_path)
    told: list[str] = []
    data = read_recipe(RECIPE).data(None, told.append)
    assert "digits" in data.name
    assert data.classes == tuple("0123456789")
    assert "dataset-fashion-mnist" in told[0]
    assert all(line.startswith("warning") for line in told)


@pytest.mark.convert
def test_a_wrong_data_directory_is_said_in_words(tmp_path: Path) -> None:
    done = run_recipe("--data", str(tmp_path), "--out", str(tmp_path / "bundle"))
    assert done.returncode == 2
    assert "error: train-images-idx3-ubyte is missing" in done.stderr
    assert "fix: sudo apt-get install dataset-fashion-mnist" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "bundle").exists()
