"""`edgeexit train` and `edgeexit evaluate`, as a user meets them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from edgeexit.training.stored import read_stored

if TYPE_CHECKING:
    from tests.cli.conftest import Say

pytestmark = pytest.mark.convert

RECIPE = Path(__file__).parents[1] / "data" / "sides_recipe.py"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def pictures(root: Path, *, classes: tuple[str, ...] = ("dark", "light"), each: int = 20) -> Path:
    random = np.random.default_rng(0)
    for index, name in enumerate(classes):
        for number in range(each):
            shade = 120 * index
            pixels = random.integers(shade, shade + 100, (10, 12, 3)).astype(np.uint8)
            place = root / name / f"{number:02d}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(place)
    return root


def weights_of(path: Path) -> list[torch.Tensor]:
    return list(read_stored(path).network.stages.state_dict().values())


def test_a_folder_of_ones_own_is_trained_on_and_evaluated(say: Say, tmp_path: Path) -> None:
    photos = pictures(tmp_path / "photos")
    (photos / "dark" / "broken.jpg").write_bytes(b"no picture")
    word = f"imagefolder:{photos}"
    out = tmp_path / "own.safetensors"
    done = say("train", RECIPE, "--data", word, "--epochs", 12, "--out", out, "--randaugment", 1, "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["classes"] == ["dark", "light"]
    assert report["skipped_images"] == 1
    assert "broken.jpg" in done.err
    assert "1 images of photos could not be read" in done.err
    assert report["trained"]["samples"] >= 12 * 28
    lines = [json.loads(line) for line in out.with_suffix(".jsonl").read_text().splitlines()]
    assert lines[-1]["fraction"] == 1.0
    assert len(lines[-1]["losses"]) == 3

    judged = say("evaluate", out, "--data", word, "--out", tmp_path / "page", "--json")
    assert judged.code == 0, judged.err
    found = json.loads(judged.out)
    assert found["evaluation"]["held_out_samples"] == found["evaluation"]["test_samples"] == 6
    assert found["evaluation"]["exits"][-1]["accuracy"] == 1.0
    assert len(found["evaluation"]["budgeted"]) == 39
    assert found["skipped_images"] == 1
    assert {path.name for path in (tmp_path / "page").iterdir()} == {
        f"evaluation.{suffix}" for suffix in ("json", "svg", "png", "html")
    }
    assert "<svg" in (tmp_path / "page" / "evaluation.html").read_text()


def test_finished_weights_are_found_again_and_a_recipe_names_its_newest(say: Say, tmp_path: Path) -> None:
    words = ("--work", tmp_path, "--seconds", 60)
    assert "not trained yet" in say("evaluate", RECIPE, "--work", tmp_path).err
    first = say("train", RECIPE, *words, "--tensorboard", tmp_path / "board")
    assert first.code == 0, first.err
    assert "loss by exit" in first.err
    (events,) = (tmp_path / "board").iterdir()
    assert b"loss/exit_2" in events.read_bytes()
    again = say("train", RECIPE, *words)
    assert "already done" in again.err
    assert again.out == first.out
    judged = say("evaluate", RECIPE, "--work", tmp_path)
    assert judged.code == 0, judged.err
    assert "exit 2:" in judged.out
    anew = say("train", RECIPE, *words, "--no-resume")
    assert "already done" not in anew.err


@pytest.mark.parametrize(
    "words",
    [
        ("--method", "frozen"),
        ("--method", "layer-wise"),
        ("--method", "backbone-first", "--distil"),
        ("--rescale", "--optimizer", "sgd", "--learning-rate", 0.05),
        ("--weigh", "--optimizer", "sgd", "--learning-rate", 0.05),
        ("--maps", "own"),
        ("--maps", "last", "--method", "joint"),
        ("--cutmix", 1.0, "--mixup", 0.2),
        ("--after", "1,2", "--branch", "mlp_mixer"),
    ],
)
def test_every_way_of_training_is_reached_by_its_option(
    say: Say, tmp_path: Path, words: tuple[object, ...]
) -> None:
    done = say("train", RECIPE, "--work", tmp_path, "--epochs", 0.5, "--json", *words)
    assert done.code == 0, done.err
    assert json.loads(done.out)["trained"]["samples"] == 128
    plain = say("train", RECIPE, "--work", tmp_path, "--epochs", 0.5, "--json")
    assert json.loads(plain.out)["trained"] is not None  # other settings, other weights
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (("train", "nowhere.py"), 2, "there is no such Python file"),
        (("train", RECIPE, "--after", "1,9"), 2, "do not fit a model of 3 blocks"),
        (("train", RECIPE, "--after", "one"), 2, "--after one names no blocks"),
        (("train", RECIPE, "--branch", "mpl"), 2, "branch 'mpl' is unknown"),
        (("train", RECIPE, "--data", "zip:photos"), 2, "data of the kind 'zip' are unknown"),
        (("train", RECIPE, "--data", "imagefolder:nowhere"), 2, "nowhere is no folder"),
        (("train", RECIPE, "--data", "csv:nowhere.csv"), 2, "nowhere.csv cannot be read"),
        (("train", RECIPE, "--data", "cifar10:nowhere"), 2, "cannot be read"),
        (("train", RECIPE, "--data", "idx:nowhere"), 2, "is missing"),
        (("train", RECIPE, "--device", "cuda:99"), 2, "there is no cuda:99 here"),
        (("train", RECIPE, "--device", "toaster"), 2, "toaster is no device"),
        (("train", RECIPE, "--tiny"), 2, "has no tiny size"),
        (("train", RECIPE, "--weights", "w.pt"), 2, "starts from nothing"),
        (("train", RECIPE, "--weigh"), 2, "its pseudo-update is a step of SGD"),
        (("train", RECIPE, "--learning-rate", "-1"), 2, "learning_rate must be over 0"),
        (("train", RECIPE, "--mixup", "1000"), 2, "mixup_alpha"),
        (("evaluate", "nowhere.safetensors", "--recipe", RECIPE), 2, "there is no such file"),
        (("evaluate", RECIPE), 2, "not trained yet"),
    ],
)
def test_what_is_used_wrongly_is_said_in_words(
    say: Say,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[object, ...],
    code: int,
    complaint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = say(*words)
    assert done.code == code, done
    assert complaint in done.err
    assert "error: " in done.err
    assert "Traceback" not in done.err
    assert done.out == ""


def test_a_recipe_that_fails_is_told_with_its_line(say: Say, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import math\n\n\ndef recipe() -> float:\n    return 1 / 0\n")
    say("train", broken).complains(2, "no usable recipe", "line 5: ZeroDivisionError")
    broken.write_text("def recipe(:\n")
    say("train", broken).complains(2, "line 1: SyntaxError")
    broken.write_text("recipe = 3\n")
    say("train", broken).complains(2, "it has no function recipe()")


def test_a_loss_that_is_no_number_ends_in_words(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIDES_NAN", "1")
    done = say("train", RECIPE, "--work", tmp_path)
    assert done.code == 1
    assert "training diverged at batch 0" in done.err
    assert not list(tmp_path.glob("*.safetensors"))


def test_values_are_trained_for_but_not_mixed(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIDES_VALUES", "1")
    assert "values cannot be mixed" in say("train", RECIPE, "--work", tmp_path, "--mixup", 0.2).err
    done = say("train", RECIPE, "--work", tmp_path, "--json", "--epochs", 12)
    assert done.code == 0, done.err
    assert json.loads(done.out)["task"] == "regression"
    judged = json.loads(say("evaluate", RECIPE, "--work", tmp_path, "--json").out)
    assert judged["evaluation"]["exits"][-1]["mean_absolute_error"] < 0.3


def test_weights_and_data_must_belong_together(say: Say, tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    assert say("train", RECIPE, "--out", weights, "--epochs", 0.2).code == 0
    three = pictures(tmp_path / "three", classes=("a", "b", "c"), each=5)
    done = say("evaluate", weights, "--data", f"imagefolder:{three}")
    assert done.code == 2
    assert "three has 3 classes, the network answers 2 classes" in done.err
    others = pictures(tmp_path / "others", each=5)
    done = say("evaluate", weights, "--data", f"imagefolder:{others}")
    assert "other classes than the network" in done.err
    assert "no data are given" in say("evaluate", weights).err
    weights.write_bytes(weights.read_bytes()[:-100])
    done = say("evaluate", weights, "--recipe", RECIPE)
    assert done.code == 2
    assert "no usable checkpoint" in done.err
    assert "Traceback" not in done.err
    # Training again replaces what is damaged, and says so.
    again = say("train", RECIPE, "--out", weights, "--epochs", 0.2)
    assert again.code == 0
    assert "training again" in again.err


@pytest.mark.process
@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same_weights(
    say: Say,
    start: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ("--seed", 3, "--mixup", 0.2, "--ema", 0.9, "--threads", 1, "--snapshot-seconds", 0)
    whole = tmp_path / "whole.safetensors"
    assert say("train", RECIPE, *words, "--out", whole).code == 0
    cut = tmp_path / "cut.safetensors"
    snapshot = cut.with_suffix(".snapshot.pt")
    monkeypatch.setenv("SIDES_PAUSE_S", "0.2")
    process = start("train", RECIPE, *words, "--out", cut)
    try:
        until_s = time.monotonic() + 90
        while not snapshot.exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until_s
            time.sleep(0.02)
        time.sleep(0.5)  # some more batches, so that it dies anywhere in one
        assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.communicate()
    assert not cut.exists()
    monkeypatch.delenv("SIDES_PAUSE_S")
    done = say("train", RECIPE, *words, "--out", cut, "--json")
    assert done.code == 0, done.err
    assert "going on from" in done.err
    assert json.loads(done.out)["trained"]["samples"] == 960
    assert all(torch.equal(a, b) for a, b in zip(weights_of(whole), weights_of(cut), strict=True))
    assert not snapshot.exists()
    lines = [json.loads(line)["samples"] for line in cut.with_suffix(".jsonl").read_text().splitlines()]
    assert lines[-1] == 960
