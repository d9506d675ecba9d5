"""A checkpoint with its description needs nothing else to become the same network again."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edgeexit.errors import DataError
from edgeexit.models.description import describe
from edgeexit.models.protocol import run_exits
from edgeexit.models.vit import VisionTransformer, ViTConfig, vit
from edgeexit.training.checkpoint import load_checkpoint, save_checkpoint
from edgeexit.training.stored import LABELS_NOTE, NETWORK_NOTE, describing_notes, read_stored

CONFIG = ViTConfig(
    img_size=8, patch_size=4, in_chans=1, num_classes=3, embed_dim=8, depth=2, num_heads=2,
    exits=(1, 2), mean=(0.4,), std=(0.3,), head_hidden_dims=(4,), stem_dims=(4,),
)  # fmt: skip
LABELS = ("a", "b", "c")


@pytest.fixture
def network() -> VisionTransformer:
    return vit(CONFIG, seed=1)


def test_the_same_network_comes_back(tmp_path: Path, network: VisionTransformer) -> None:
    path = tmp_path / "c.safetensors"
    notes = {"samples": "3"} | describing_notes(network, labels=LABELS)
    digest = save_checkpoint(network, path, key="k", notes=notes)
    stored = read_stored(path)
    assert stored.sha256 == digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert stored.labels == LABELS
    assert stored.description.image_shape == (1, 8, 8)
    image = torch.rand(2, 1, 8, 8)
    network.eval()
    stored.network.stages.eval()
    for one, other in zip(run_exits(network, image), run_exits(stored.network, image), strict=True):
        assert torch.equal(one, other)
    # The recipe's own way of loading is not disturbed by the notes.
    assert load_checkpoint(vit(CONFIG, seed=2), path, key="k") == digest


@pytest.mark.parametrize("note", ["", "{", '{"a": 1}', "[1, 2]", "x" * 2_000_000])
def test_labels_that_cannot_be_read_are_none(tmp_path: Path, network: VisionTransformer, note: str) -> None:
    path = tmp_path / "c.safetensors"
    save_checkpoint(network, path, key="k", notes={NETWORK_NOTE: describe(network), LABELS_NOTE: note})
    assert read_stored(path).labels == ()


def test_files_of_another_kind_are_refused(tmp_path: Path, network: VisionTransformer) -> None:
    path = tmp_path / "c.safetensors"
    with pytest.raises(DataError, match="no such file"):
        read_stored(path)
    with pytest.raises(DataError, match="no such file"):
        read_stored(tmp_path)
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(DataError, match="no usable checkpoint"):
        read_stored(path)
    save_checkpoint(network, path, key="k", notes={})
    with pytest.raises(DataError, match="does not say what network") as caught:
        read_stored(path)
    assert caught.value.fix is not None


def test_weights_of_another_network_are_refused(tmp_path: Path, network: VisionTransformer) -> None:
    path = tmp_path / "c.safetensors"
    wider = describe(vit(replace(CONFIG, num_classes=4), seed=0))
    save_checkpoint(network, path, key="k", notes={NETWORK_NOTE: wider})
    with pytest.raises(DataError, match="another shape"):
        read_stored(path)
    deeper = describe(vit(replace(CONFIG, depth=3, exits=(1, 3)), seed=0))
    save_checkpoint(network, path, key="k", notes={NETWORK_NOTE: deeper})
    with pytest.raises(DataError, match="other tensors"):
        read_stored(path)
    save_checkpoint(network, path, key="k", notes={NETWORK_NOTE: '{"family": "x", "config": {}}'})
    with pytest.raises(DataError, match="'x' is unknown"):
        read_stored(path)


def test_a_file_that_asks_for_much_gets_no_memory(tmp_path: Path) -> None:
    # A description of several gigabytes with a tensor of four bytes.
    huge = describe(vit(CONFIG, seed=0)).replace('"embed_dim":8', '"embed_dim":65536')
    path = tmp_path / "c.safetensors"
    save_file({"x": torch.zeros(1)}, str(path), metadata={NETWORK_NOTE: huge})
    with pytest.raises(DataError, match="other tensors"):
        read_stored(path)


def test_a_cut_file_is_refused(tmp_path: Path, network: VisionTransformer) -> None:
    path = tmp_path / "c.safetensors"
    save_checkpoint(network, path, key="k", notes=describing_notes(network))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match="no usable checkpoint"):
        read_stored(path)
