"""A checkpoint comes back bit for bit under its own settings, and under no others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeexit.errors import DataError
from edgeexit.models.vit import ViTConfig, vit
from edgeexit.training.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint, settings_key
from edgeexit.training.data import Samples
from edgeexit.training.loop import TrainingConfig

CONFIG = ViTConfig(
    img_size=8, patch_size=4, in_chans=1, num_classes=3, embed_dim=8, depth=2, num_heads=2,
    exits=(1, 2), mean=(0.5,), std=(0.3,), head_hidden_dims=(4,),
)  # fmt: skip


def test_weights_come_back_bit_for_bit(tmp_path: Path) -> None:
    network, fresh = vit(CONFIG, seed=1), vit(CONFIG, seed=2)
    path = checkpoint_path(tmp_path / "new" / "folder", "small", "k" * 64)
    digest = save_checkpoint(network, path, key="k" * 64, notes={"samples": "10"})
    assert load_checkpoint(fresh, path, key="k" * 64) == digest
    for a, b in zip(network.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(a, b)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_no_file_is_no_checkpoint(tmp_path: Path) -> None:
    assert load_checkpoint(vit(CONFIG, seed=0), tmp_path / "none.safetensors", key="k") is None


@pytest.mark.parametrize("damage", ["cut", "empty", "noise", "key", "shape", "names"])
def test_another_or_damaged_file_changes_nothing(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "c.safetensors"
    other = {"shape": replace(CONFIG, num_classes=4), "names": replace(CONFIG, depth=3, exits=(1, 3))}
    save_checkpoint(vit(other.get(damage, CONFIG), seed=1), path, key="a", notes={})
    whole = path.read_bytes()
    if damage == "cut":
        path.write_bytes(whole[:-7])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "noise":
        path.write_bytes(b"\xff" * 200)
    network = vit(CONFIG, seed=2)
    before = [p.clone() for p in network.parameters()]
    with pytest.raises(DataError, match="checkpoint") as caught:
        load_checkpoint(network, path, key="b" if damage == "key" else "a")
    assert caught.value.fix is not None
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_the_key_follows_every_setting_and_every_pixel() -> None:
    samples = Samples(np.zeros((2, 1, 2, 2), np.float32), np.array([0, 1]), "x")
    lighter = Samples(samples.images + np.float32(1 / 255), samples.targets, "x")
    training = TrainingConfig(samples=10)
    keys = [
        settings_key([CONFIG, training], [samples]),
        settings_key([replace(CONFIG, depth=3, exits=(1, 3)), training], [samples]),
        settings_key([CONFIG, replace(training, seed=1)], [samples]),
        settings_key([CONFIG, training], [lighter]),
        settings_key([CONFIG, training, "tiny"], [samples]),
    ]
    assert len(set(keys)) == len(keys)
    assert settings_key([CONFIG, training], [samples]) == keys[0]


def test_what_has_no_lasting_description_is_refused() -> None:
    with pytest.raises(TypeError):
        settings_key([object()])
