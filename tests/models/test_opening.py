"""Models from disk: they become what they were, damaged or foreign files are refused, nothing is fetched."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from edgeexit.errors import CannotCut, ConfigError, DataError
from edgeexit.models.attach import attach_exits
from edgeexit.models.attached import AttachedNetwork
from edgeexit.models.protocol import run_exits
from edgeexit.models.torchvision_operators import make_importable

if TYPE_CHECKING:
    from tests.models.conftest import MakeModel

# timm's own architecture for tests: 160 pixels, 64 wide, a few blocks.
ARCHITECTURE = "test_vit"


def same(one: AttachedNetwork, other: AttachedNetwork) -> bool:
    backbone = one.config.backbone
    image = torch.rand(1, backbone.in_chans, backbone.image_height, backbone.image_width)
    outputs = zip(run_exits(one, image), run_exits(other, image), strict=True)
    return one.config == other.config and all(torch.equal(a, b) for a, b in outputs)


@pytest.fixture(scope="module")
def registered() -> nn.Module:
    """A model of timm's test architecture with five classes."""
    make_importable()
    import timm

    model: nn.Module = timm.create_model(ARCHITECTURE, num_classes=5)
    return model.eval()


@pytest.fixture
def folder(hugging_face_model: MakeModel, tmp_path: Path) -> Path:
    """A classifier as save_pretrained writes it."""
    model = hugging_face_model("ViTForImageClassification")
    model.save_pretrained(tmp_path / "vit")  # type: ignore[operator]
    return tmp_path / "vit"


@pytest.mark.parametrize(
    "name", ["ViTForImageClassification", "DeiTForImageClassificationWithTeacher", "Dinov2WithRegistersModel"]
)
def test_a_folder_of_transformers_becomes_the_model_again(
    hugging_face_model: MakeModel, tmp_path: Path, name: str
) -> None:
    model = hugging_face_model(name)
    model.save_pretrained(tmp_path)  # type: ignore[operator]
    classes = 7 if name.endswith("Model") else None
    assert same(attach_exits(tmp_path, [3], classes=classes), attach_exits(model, [3], classes=classes))


def test_torch_files_of_transformers_are_read_too(folder: Path, hugging_face_model: MakeModel) -> None:
    weights = load_file(folder / "model.safetensors")
    expected = attach_exits(folder, [3])
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    assert same(attach_exits(str(folder), [3]), expected)


@pytest.mark.parametrize("kind", ["safetensors", "torch", "torch, nested"])
def test_an_architecture_of_timm_takes_its_checkpoint(
    registered: nn.Module, tmp_path: Path, kind: str
) -> None:
    weights = registered.state_dict()
    file = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    if kind == "safetensors":
        save_file(weights, file)
    else:
        torch.save({"model": weights} if "nested" in kind else weights, file)
    network = attach_exits(ARCHITECTURE, [2], checkpoint=file)
    assert network.config.answer.classes == 5
    assert same(network, attach_exits(registered, [2]))


def test_a_folder_of_timm_becomes_the_model_again(registered: nn.Module, tmp_path: Path) -> None:
    from timm.models import save_for_hf

    save_for_hf(registered, tmp_path, safe_serialization=True)
    assert same(attach_exits(tmp_path, [2]), attach_exits(registered, [2]))


class Trap:
    """Unpickling it would make a folder."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.place),)


def test_nothing_is_unpickled(folder: Path, tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    file = tmp_path / "w.pth"
    torch.save({"head.weight": Trap(trap)}, file)
    with pytest.raises(DataError, match="no usable checkpoint"):
        attach_exits(ARCHITECTURE, [2], checkpoint=file)
    (folder / "model.safetensors").unlink()
    torch.save({"x": Trap(trap)}, folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="no usable model"):
        attach_exits(folder, [2])
    assert not trap.exists()


def test_damaged_and_foreign_checkpoints_of_timm_are_refused(registered: nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    save_file(registered.state_dict(), file)
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"\xff" * 100):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match="no usable checkpoint") as caught:
            attach_exits(ARCHITECTURE, [2], checkpoint=file)
        assert caught.value.file == str(file)
    weights = registered.state_dict()
    del weights["blocks.1.attn.qkv.weight"]
    save_file(weights, file)
    with pytest.raises(DataError, match=r"blocks\.1\.attn\.qkv\.weight"):
        attach_exits(ARCHITECTURE, [2], checkpoint=file)
    with pytest.raises(DataError, match="no such file"):
        attach_exits(ARCHITECTURE, [2], checkpoint=tmp_path / "none")
    with pytest.raises(ConfigError, match="knows no architecture 'vit_enormous'"):
        attach_exits("vit_enormous", [2], checkpoint=file)


def test_damaged_and_foreign_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    file = folder / "model.safetensors"
    whole = load_file(file)
    lacking = {name: tensor for name, tensor in whole.items() if name != "classifier.weight"}
    save_file(lacking, file, metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"no fitting weights for classifier\.weight"):
        attach_exits(folder, [2])
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match="no usable model"):
        attach_exits(folder, [2])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["ViTForMaskedImageModeling"]}))
    with pytest.raises(CannotCut, match="its class is none of"):
        attach_exits(folder, [2])
    for text, complaint in (("{}", "names no model"), ("{", "cannot be read"), (" " * 2**21, "is refused")):
        (folder / "config.json").write_text(text)
        with pytest.raises(DataError, match=complaint):
            attach_exits(folder, [2])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="holds no model"):
        attach_exits(empty, [2])


def test_a_folder_of_timm_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architecture": "test_vit", "pretrained_cfg": {}}')
    with pytest.raises(DataError, match="no usable checkpoint"):
        attach_exits(tmp_path, [2])


def test_nothing_is_fetched_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("facebook/dinov2-small", "deit_tiny_patch16_224", "no/such/folder"):
        with pytest.raises(ConfigError, match="neither a folder nor a file") as caught:
            attach_exits(name, [3])
        assert caught.value.why == "nothing is fetched unless it is asked for"
    file = tmp_path / "w.safetensors"
    save_file({"x": torch.zeros(1)}, file)
    with pytest.raises(ConfigError, match="does not say of which model"):
        attach_exits(file, [3])
    # When asked for, it is the library that looks, and here it may not.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError, match="dinov2-of-nobody is no usable model"):
        attach_exits("somebody/dinov2-of-nobody", [3], download=True)
    with pytest.raises(DataError, match="cannot be fetched"):
        attach_exits("vit_tiny_patch16_224.augreg_in21k_ft_in1k", [3], download=True)
