"""`edgeexit convert`: from weights and a folder of images to a bundle that runs."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from edgeexit.bundle import open_bundle
from edgeexit.models.attach import attach_exits
from edgeexit.models.vit import ViTConfig, vit
from edgeexit.training.checkpoint import save_checkpoint
from edgeexit.training.stored import describing_notes

if TYPE_CHECKING:
    from tests.cli.conftest import Say

pytestmark = pytest.mark.convert

LABELS = ("dark", "light")


@dataclass(frozen=True, slots=True)
class Given:
    """What a user has: weights and images."""

    weights: Path
    images: Path


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    """A network of random weights, large enough to differ, and sixty-four colour images of 12 by 10."""
    folder = tmp_path_factory.mktemp("given")
    network = vit(
        ViTConfig(
            img_size=8, patch_size=4, in_chans=1, num_classes=2, embed_dim=16, depth=2, num_heads=2,
            exits=(1, 2), mean=(0.5,), std=(0.3,), head_hidden_dims=(),
        ),
        seed=3,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    save_checkpoint(network, folder / "w.safetensors", key="k", notes=describing_notes(network))
    random = np.random.default_rng(0)
    for number in range(64):
        light = number % 2
        pixels = random.integers(100 * light, 120 + 100 * light, (10, 12, 3)).astype(np.uint8)
        place = folder / "images" / LABELS[light]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number:02d}.png")
    return Given(folder / "w.safetensors", folder / "images")


@pytest.mark.slow
@pytest.mark.litert
def test_convert_makes_a_bundle_and_does_not_do_it_twice(say: Say, given: Given, tmp_path: Path) -> None:
    out = tmp_path / "shade"
    words = ("convert", given.weights, "--data", given.images, "--out", out, "--test", given.images)
    first = say(*words, "--json", "--licence", "MIT")
    assert first.code == 0, first.err
    report = json.loads(first.out)
    assert report["name"] == "shade"
    assert report["test_samples"] == 64
    assert [variant["name"] for variant in report["stages"][0]["variants"]] == ["f32", "int8"]
    assert "lower" in first.err
    bundle = open_bundle(out)
    assert bundle.digest == report["digest"]
    assert bundle.manifest.labels == LABELS
    assert bundle.manifest.provenance.licence == "MIT"
    assert bundle.manifest.provenance.checkpoint_sha256 is not None

    again = say(*words, "--licence", "MIT")
    assert again.code == 0
    assert "already converted" in again.out
    assert "accuracy on: test, 64 samples" in again.out
    image = next(given.images.glob("light/*.png"))
    assert say("run", out, image).code == 0


@pytest.mark.slow
@pytest.mark.litert
def test_convert_takes_a_backbone_with_branches_that_give_values(
    say: Say, given: Given, tmp_path: Path
) -> None:
    network = attach_exits(
        vit(
            ViTConfig(
                img_size=8, patch_size=4, in_chans=1, num_classes=2, embed_dim=16, depth=2, num_heads=2,
                exits=(2,), mean=(0.5,), std=(0.3,), head_hidden_dims=(),
            ),
            seed=3,
        ),
        [1],
        "cnn_project",
        final="mlp",
        task="regression",
        value_offset=2.0,
    )  # fmt: skip
    weights = tmp_path / "w.safetensors"
    save_checkpoint(network, weights, key="k", notes=describing_notes(network))
    truth = {path.relative_to(given.images).as_posix(): index % 5 for index, path in _numbered(given.images)}
    images = tmp_path / "valued"
    shutil.copytree(given.images, images)
    (images / "truth.json").write_text(json.dumps(truth))
    out = tmp_path / "values"
    said = say("convert", weights, "--data", images, "--out", out, "--json", "--variants", "f32")
    assert said.code == 0, said.err
    assert json.loads(said.out)["task"] == "regression"
    manifest = open_bundle(out).manifest
    assert manifest.task == "regression"
    assert manifest.labels == ()
    assert manifest.exits[0].output.name == "value_spread"
    assert "after blocks 1 (cnn_project), 2 (mlp)" in manifest.provenance.network
    answered = say("run", out, next(given.images.glob("light/*.png")), "--json")
    assert answered.code == 0, answered.err
    assert json.loads(answered.out)["exit"] in (0, 1)

    (images / "truth.json").write_text(json.dumps(dict.fromkeys(truth, 3)))
    same = say("convert", weights, "--data", images, "--out", out)
    assert same.code == 2
    assert "do not differ in their values" in same.err
    assert "--error-scale" in same.err


def _numbered(images: Path) -> list[tuple[int, Path]]:
    return list(enumerate(sorted(images.glob("*/*.png"))))


def test_convert_refuses_what_it_cannot_use(say: Say, given: Given, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "b")
    weights, images = given.weights, ("--data", given.images)
    nowhere = tmp_path / "nowhere"
    say("convert", nowhere, *images, *out).complains(2, "nothing that can be converted", "module:factory")
    said = say("convert", f"{nowhere}.safetensors", *images, *out)
    said.complains(2, "no usable checkpoint", "no such file")
    image = next(given.images.glob("*/*.png"))
    say("convert", image, *images, *out).complains(2, "no usable checkpoint")
    say("convert", weights, "--data", nowhere, *out).complains(2, "is no folder")
    empty = tmp_path / "empty"
    empty.mkdir()
    said = say("convert", weights, "--data", empty, *out)
    assert said.code == 2
    assert "no labels for the images" in said.err
    assert "fix: " in said.err
    labels = tmp_path / "labels.txt"
    labels.write_text("one\n\ntwo\nthree\n")
    say("convert", weights, *images, *out, "--labels", labels).complains(2, "3 labels for 2 classes")
    say("convert", weights, *images, *out, "--labels", nowhere).complains(2, "nowhere cannot be read")
    say("convert", weights, *images, *out, "--name", "a b").complains(2, "name: ")
    say("convert", weights, *images, *out, "--version", "1").complains(2, "version: ")
    say("convert", weights, *images, *out, "--after", 3).complains(2, "--after says nothing here", "--family")
    say("convert", weights, *images, *out, "--variants", "f32,int9").complains(2, "'int9'", "int8")
    say("convert", weights, *images, *out, "--codecs", "raw,int").complains(2, "'int'", "did you mean int8")
    say("convert", weights, *images, *out, "--back-end", "onnxtf").complains(2, "did you mean onnx2tf")
    say("convert", weights, *images, *out, "--tiny").complains(2, "--tiny goes with a recipe")
    say("convert", weights, *images, *out, "--train").complains(2, "nothing to train here")
    few = say("convert", weights, *images, *out, "--calibrate", 4)
    assert few.code == 2
    assert "at least 8 are needed" in few.err
    without = say("convert", weights, *out)
    assert without.code == 2
    assert "no images are given" in without.err
    assert not (tmp_path / "b").exists()


def test_truth_must_name_classes_of_the_network(say: Say, given: Given, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("L", (8, 8)).save(folder / "a.png")
    (folder / "truth.json").write_text('{"a.png": 7}')
    said = say("convert", given.weights, "--data", folder, "--out", tmp_path / "b")
    assert said.code == 2
    assert "a.png is of no known class" in said.err
    (folder / "truth.json").write_text('{"gone.png": 1}')
    said = say("convert", given.weights, "--data", folder, "--out", tmp_path / "b")
    assert said.code == 2
    assert "gone.png cannot be read" in said.err
