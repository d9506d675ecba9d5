"""Maps of where exits look, and that training draws them together."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeexit.errors import ConfigError
from edgeexit.models.attach import attach_exits
from edgeexit.models.vit import ViTConfig, vit
from edgeexit.training.activation_maps import (
    ExitMaps,
    class_agnostic_map,
    class_map,
    map_distance,
    normalised,
)
from edgeexit.training.batches import ItemBatches
from edgeexit.training.data import Samples
from edgeexit.training.loop import TrainingConfig, train
from edgeexit.training.map_matching import MapMatching
from edgeexit.training.objective import Objective
from edgeexit.training.parts import Exits

CONFIG = ViTConfig(
    img_size=16, patch_size=4, in_chans=1, num_classes=3, embed_dim=16, depth=2, num_heads=2,
    exits=(1, 2), mean=(0.5,), std=(0.3,), head_hidden_dims=(), head_dropout=0.3,
)  # fmt: skip


def items() -> Samples:
    rng = np.random.default_rng(0)
    return Samples(
        rng.random((64, 1, 16, 16), dtype=np.float32), rng.integers(0, 3, 64).astype(np.int64), "noise"
    )


def test_maps_reach_from_0_to_1_over_the_whole_image() -> None:
    maps = normalised(torch.randn(3, 16))
    assert maps.amin(1).tolist() == [0.0] * 3
    assert maps.amax(1).tolist() == pytest.approx([1.0] * 3)
    assert normalised(torch.ones(1, 4)).tolist() == [[0.0] * 4]


def test_the_map_of_a_class_is_what_the_exit_says_of_each_patch() -> None:
    network = vit(CONFIG, seed=0)
    head = network.stages[0].head
    assert isinstance(head, torch.nn.Module)
    patches, targets = torch.randn(2, 16, 16), torch.tensor([2, 0])
    found = class_map(head, patches, targets)
    said = torch.stack([head.eval()(patches[:, n : n + 1]) for n in range(16)], dim=1)  # B N classes
    expected = torch.stack([said[0, :, 2], said[1, :, 0]])
    assert torch.allclose(found, normalised(expected), atol=1e-5)
    assert not found.requires_grad


def test_maps_of_other_sizes_are_resized() -> None:
    small = torch.tensor([[0.0, 1.0, 0.0, 1.0]])
    assert map_distance(torch.tensor([[0.0, 0.25, 0.75, 1.0] * 4]), small).item() == pytest.approx(0.0)
    assert class_agnostic_map(torch.randn(2, 9, 5)).shape == (2, 9)


@pytest.mark.parametrize("teacher", ["own", "last"])
def test_training_draws_maps_together(teacher: str) -> None:
    matching = MapMatching(teacher="own" if teacher == "own" else "last", start=0.0)
    samples = items()

    def distance(objective: Objective) -> float:
        network = vit(CONFIG, seed=0)
        train(
            network, ItemBatches(samples, seed=0, mirror=False), TrainingConfig(samples=1600, batch_size=32),
            clock_s=lambda: 0.0, progress=lambda _: None, objective=objective,
        )  # fmt: skip
        maps = ExitMaps(network, matching)
        with torch.no_grad():
            Exits(network)(torch.from_numpy(samples.images))
            found = float(maps.loss(torch.from_numpy(samples.targets)))
        maps.close()
        assert not any(module._forward_pre_hooks for module in network.modules())
        return found

    assert distance(Objective(maps=matching)) < distance(Objective())


def test_an_exit_that_mixes_patches_has_no_such_map() -> None:
    network = attach_exits(vit(CONFIG, seed=0), after=[1], branch="cnn_ignore")
    with pytest.raises(ConfigError, match="exit 0"):
        ExitMaps(network, MapMatching())
    ExitMaps(network, MapMatching(teacher="last")).close()
