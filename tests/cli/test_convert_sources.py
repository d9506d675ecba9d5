"""`edgeexit convert`: every kind of source, and the plan that is shown before anything is done."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from edgeexit.bundle import open_bundle
from edgeexit.models import timm_models
from edgeexit.models.torchvision_operators import make_importable
from edgeexit.models.vit import ViTConfig, vit

if TYPE_CHECKING:
    from tests.cli.conftest import Say

pytestmark = pytest.mark.convert

LABELS = ("dark", "light")
CONFIG = ViTConfig(
    img_size=8, patch_size=4, in_chans=1, num_classes=2, embed_dim=16, depth=2, num_heads=2,
    exits=(1, 2), mean=(0.5,), std=(0.3,), head_hidden_dims=(),
)  # fmt: skip

MODULE = """
from torch import nn

class Stage(nn.Module):
    def __init__(self, takes, gives, channels):
        super().__init__()
        self.takes, self.gives = takes, gives
        self.conv = nn.Conv2d(*channels, 3, stride=2)
        self.head = nn.Linear(channels[1], 2)

    def forward(self, state):
        features = self.conv(state[self.takes]).relu()
        return ({} if self.gives is None else {self.gives: features}), self.head(features.mean((2, 3)))

class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList((Stage("image", "a", (3, 4)), Stage("a", None, (4, 8))))

class Sized(Own):
    image_shape = (3, 16, 16)

class Uneven(Own):
    def __init__(self):
        super().__init__()
        self.stages[1].head = nn.Linear(8, 5)

def unsound():
    raise OSError("no such weights")

def wanting(path):
    return Own()

def linear():
    return nn.Linear(2, 2)

number = 3
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Sixty-four colour images of two classes."""
    random = np.random.default_rng(0)
    for number in range(64):
        light = number % 2
        pixels = random.integers(100 * light, 120 + 100 * light, (20, 24, 3)).astype(np.uint8)
        place = tmp_path / "photos" / LABELS[light]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number:02d}.png")
    return tmp_path / "photos"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a module of the user's own, of another name each time."""
    module = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(MODULE)
    (tmp_path / f"{module}_unfinished.py").write_text("import no_such_package\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / module


@pytest.mark.litert
def test_a_function_of_a_module_becomes_a_bundle(say: Say, here: Path, photos: Path) -> None:
    plan = say("convert", f"{here.name}:Sized", "--out", "own", "--dry-run")
    assert plan.code == 0, plan.err
    assert "3 × 16 × 16" in plan.out
    assert not Path("own").exists()
    said = say("convert", f"{here.name}:Own", "--image", "3x16x16", "--data", photos, "--out", "own")
    assert said.code == 0, said.err
    assert said.err.index("share  what") < said.err.index("lower                 0/2"), "the plan comes first"
    manifest = open_bundle(Path("own")).manifest
    assert manifest.labels == LABELS
    assert f"{here.name}:Own" in manifest.provenance.network
    assert manifest.provenance.recipe_sha256 == hashlib.sha256(MODULE.encode()).hexdigest()
    assert say("run", "own", next(photos.glob("light/*.png"))).code == 0


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("Own", ("takes is not known", "--image 3x224x224")),
        ("nothing", ("has no nothing", "Own, Sized")),
        ("number", ("number is a int",)),
        ("wanting", ("wants arguments", "'path'")),
        ("unsound", ("OSError: no such weights", "line ")),
        ("linear", ("gives a Linear", "attach_exits")),
    ],
)
def test_a_factory_that_gives_no_network_is_told_why(
    say: Say, here: Path, source: str, words: tuple[str, ...]
) -> None:
    said = say("convert", f"{here.name}:{source}", "--out", "b")
    assert said.code == 2
    assert said.err.startswith("error: ")
    assert "fix: " in said.err
    for word in words:
        assert word in said.err


def test_a_module_that_is_not_there_and_one_that_cannot_be_imported(say: Say, here: Path) -> None:
    say("convert", "no_module_of_mine:make", "--out", "b").complains(
        2, "there is no module no_module_of_mine", str(here.parent)
    )
    say("convert", f"{here.name}_unfinished:make", "--out", "b").complains(
        2, "needs no_such_package, which is not installed"
    )
    words = ("--image", "3x2x2", "--out", "b")
    say("convert", f"{here.name}:Own", *words).complains(2, "fails on an image of 3 × 2 × 2", "line ")
    say("convert", f"{here.name}:Uneven", "--image", "3x16x16", "--out", "b").complains(
        2, "give 2, 5 numbers"
    )
    say("convert", f"{here.name}:Own", "--image", "3x16", "--out", "b").complains(2, "--image 3x224x224")


def test_weights_alone_need_a_family_and_its_settings(say: Say, tmp_path: Path, photos: Path) -> None:
    network = vit(CONFIG, seed=1)
    weights = tmp_path / "w.pt"
    torch.save({"epoch": 3, "model": {f"module.{k}": v for k, v in network.state_dict().items()}}, weights)
    config = tmp_path / "vit.json"
    config.write_bytes(msgspec.json.encode(CONFIG))
    out = ("--data", photos, "--out", tmp_path / "b", "--dry-run", "--json")
    said = say("convert", weights, "--family", "vit", "--config", config, *out)
    assert said.code == 0, said.err
    plan = json.loads(said.out)
    assert [stage["macs"] > 0 for stage in plan["stages"]] == [True, True]
    assert plan["image"] == [1, 1, 8, 8]
    assert not (tmp_path / "b").exists()
    say("convert", weights, *out[:4]).complains(2, "no usable checkpoint")
    say("convert", weights, "--family", "vit", *out[:4]).complains(2, "--config FILE")
    say("convert", weights, "--config", config, *out[:4]).complains(2, "--config goes with --family")
    say("convert", weights, "--family", "vitt", "--config", config, *out[:4]).complains(2, "no family 'vitt'")


@pytest.fixture(scope="module")
def tiny_timm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small ViT as timm stores it, weights and all."""
    make_importable()
    import timm
    from timm.models import save_for_hf

    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 16, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 2}
    model = timm.create_model("vit_tiny_patch16_224", **sizes)
    folder = tmp_path_factory.mktemp("timm") / "mine"
    save_for_hf(model, folder, model_args=sizes)
    return folder


def few_of(photos: Path, count: int) -> Path:
    """A folder with the first images of each class."""
    for label in LABELS:
        (photos.parent / "few" / label).mkdir(parents=True)
        for path in sorted((photos / label).iterdir())[:count]:
            shutil.copy(path, photos.parent / "few" / label)
    return photos.parent / "few"


@pytest.mark.slow
@pytest.mark.litert
def test_new_exits_are_trained_once_and_converted(
    say: Say, tiny_timm: Path, photos: Path, tmp_path: Path
) -> None:
    words = ("convert", f"timm:{tiny_timm}", "--after", 1, "--data", photos, "--out", tmp_path / "b")
    untrained = say(*words)
    assert untrained.code == 2
    assert "never trained: 0" in untrained.err
    assert "--train" in untrained.err
    assert not (tmp_path / "b").exists()
    few = say(*words, "--train", "--data", few_of(photos, 8))
    assert few.code == 2
    assert "held out of training, at least 8 are needed" in few.err
    train = (*words, "--train", "--train-samples", 64, "--work", tmp_path / "work", "--variants", "f32")
    said = say(*train)
    assert said.code == 0, said.err
    manifest = open_bundle(tmp_path / "b").manifest
    assert manifest.labels == LABELS
    assert isinstance(manifest.provenance.checkpoint_sha256, str)
    (weights,) = (tmp_path / "work").glob("*.safetensors")
    again = say(*train)
    assert again.code == 0
    assert "train      already done" in again.err
    assert "already converted" in again.out
    stored = say("convert", weights, "--data", photos, "--out", tmp_path / "c", "--dry-run")
    assert stored.code == 0, stored.err
    assert "after blocks 1 (mlp), 3 (its own head)" in stored.out


@pytest.mark.slow
@pytest.mark.litert
def test_a_published_model_learns_values_and_its_boundary_is_packed(
    say: Say, tiny_timm: Path, photos: Path, tmp_path: Path
) -> None:
    rows = [f"{path},{10 + index % 5}" for index, path in enumerate(sorted(photos.glob("*/*.png")))]
    values = tmp_path / "values.csv"
    values.write_text("\n".join(("image,value", *rows)))
    words = (
        *("convert", f"timm:{tiny_timm}", "--after", 1, "--task", "regression", "--out", tmp_path / "b"),
        *("--variants", "f32", "--codecs", "raw,pool4-int8,bottleneck2", "--bottleneck-samples", 64),
    )
    say(*words, "--data", photos, "--train").complains(2, "no values to learn", "csv:FILE")
    train = (*words, "--data", f"csv:{values}", "--train", "--train-epochs", 1, "--work", tmp_path / "work")
    said = say(*train)
    assert said.code == 0, said.err
    assert "bottleneck 1" in said.err
    manifest = open_bundle(tmp_path / "b").manifest
    assert (manifest.task, manifest.labels) == ("regression", ())
    assert [each.codec for each in manifest.boundaries[1].codecs] == ["raw", "pool4-int8", "bottleneck2"]


def test_a_bottleneck_needs_images_to_learn_from(
    say: Say, tiny_timm: Path, photos: Path, tmp_path: Path
) -> None:
    words = ("convert", f"timm:{tiny_timm}", "--after", 1, "--data", photos, "--out", tmp_path / "b")
    shown = say(*words, "--codecs", "raw,pool4,bottleneck2", "--dry-run")
    assert shown.code == 0, shown.err
    assert "pool4-int4" in shown.out
    assert "trained on 20,000 images" in shown.out
    drawn = ("convert", "timm:vit_tiny_patch16_224", "--random-weights", "--image", "3x32x32", *words[2:])
    said = say(*drawn, "--codecs", "raw,bottleneck2")
    assert said.code == 2
    assert "nothing to learn from" in said.err
    assert "--data imagefolder:FOLDER" in said.err
    said = say(*words, "--codecs", "raw,merge8")
    assert said.code == 2
    assert "no boundary can travel as merge8-int8" in said.err
    assert "4 patches" in said.err
    say(*words, "--codecs", "raw,merge7").complains(2, "did you mean merge8")
    assert not (tmp_path / "b").exists()


def test_a_published_model_is_not_fetched_unless_asked(say: Say, photos: Path, tmp_path: Path) -> None:
    words = ("--data", photos, "--out", tmp_path / "b", "--dry-run")
    say("convert", "timm:vit_tiny_patch16_224", *words).complains(2, "--after 3,6,9")
    exits = ("--after", "3,6")
    say("convert", "timm:vit_tiny_patch16_223", *words, *exits).complains(
        2, "did you mean vit_tiny_patch16_224"
    )
    said = say("convert", "hf:nobody/nothing-of-this-name", *words, *exits)
    said.complains(2, "not on this machine", "--download")
    both = ("--download", "--random-weights")
    say("convert", "timm:vit_tiny_patch16_224", *words, *exits, *both).complains(2, "more than one place")
    shown = say("convert", "timm:vit_tiny_patch16_224", *words, *exits, "--random-weights", "--json")
    assert shown.code == 0, shown.err
    plan = json.loads(shown.out)
    same = [timm_models.random_weights("vit_tiny_patch16_224", seed=seed).state_dict() for seed in (3, 3, 4)]
    assert all(torch.equal(same[0][name], same[1][name]) for name in same[0])
    assert not torch.equal(same[0]["patch_embed.proj.weight"], same[2]["patch_embed.proj.weight"])
    assert plan["untrained"] == [0, 1, 2]
    assert plan["stages"][1]["tensors"] == ["tokens[1, 197, 192] float32"]
    assert {"codec": "int8", "payload_bytes": 38_000} in [
        each | {"payload_bytes": round(each["payload_bytes"], -3)} for each in plan["stages"][1]["codecs"]
    ]


def test_a_recipe_that_was_never_trained_says_how_to(say: Say, tmp_path: Path) -> None:
    export = Path(__file__).parents[2] / "export"
    words = (
        export / "vit_fashion_clutter.py",
        "--tiny",
        "--work",
        tmp_path / "work",
        "--out",
        tmp_path / "b",
    )
    shown = say("convert", *words, "--dry-run")
    assert shown.code == 0, shown.err
    assert "never trained: 0, 1" in shown.out
    said = say("convert", *words)
    assert said.code == 2
    assert "edgeexit train" in said.err
    assert not (tmp_path / "b").exists()
    say("convert", *words, "--family", "vit").complains(2, "--family says nothing here", "a recipe")
    (tmp_path / "bad.py").write_text("def recipe():\n    return 1 / 0\n")
    say("convert", tmp_path / "bad.py", "--out", tmp_path / "b").complains(2, "line 2", "ZeroDivisionError")
