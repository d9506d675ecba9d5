"""The counted cost of a stage is what the sum over its layers says."""

from __future__ import annotations

import torch

from edgeexit.models.cost import cumulative_macs, stage_costs
from edgeexit.models.vit import ViTConfig, vit, vit_tiny

CONFIG = ViTConfig(
    img_size=8,
    patch_size=4,
    in_chans=3,
    num_classes=5,
    embed_dim=16,
    depth=3,
    num_heads=2,
    exits=(1, 3),
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    head_hidden_dims=(8,),
)
TOKENS, D = 5, 16
BLOCK = TOKENS * D * 3 * D + TOKENS * D * D + 2 * TOKENS * TOKENS * D + 2 * TOKENS * D * 4 * D
HEAD = D * 8 + 8 * 5
PATCHES = 4 * (4 * 4 * 3) * D


def test_macs_are_those_of_the_layers_and_their_heads() -> None:
    costs = stage_costs(vit(CONFIG, seed=0), torch.zeros(1, 3, 8, 8))
    assert [cost.macs for cost in costs] == [PATCHES + BLOCK + HEAD, 2 * BLOCK + HEAD]
    assert cumulative_macs(costs) == (PATCHES + BLOCK + HEAD, PATCHES + 3 * BLOCK + 2 * HEAD)


def test_parameters_of_the_stages_are_all_parameters() -> None:
    network = vit(CONFIG, seed=0)
    costs = stage_costs(network, torch.zeros(1, 3, 8, 8))
    assert sum(cost.parameters for cost in costs) == sum(p.numel() for p in network.parameters())


def test_counting_leaves_the_mode_of_every_module_alone() -> None:
    network = vit(CONFIG, seed=0).train()
    network.stages[1].eval()
    stage_costs(network, torch.zeros(1, 3, 8, 8))
    assert network.stages[0].training
    assert not network.stages[1].training


def test_vit_tiny_costs_what_is_published() -> None:
    costs = stage_costs(vit_tiny(), torch.zeros(1, 3, 224, 224))
    # 1.26 G (DeiT-Ti with its attention products), within a percent: four MLP heads here, one linear there.
    assert abs(cumulative_macs(costs)[-1] / 1.26e9 - 1) < 0.01
