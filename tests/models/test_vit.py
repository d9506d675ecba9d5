"""A ViT cut at its exits computes what the whole computes, and refuses what cannot be built."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from edgeexit.models.protocol import IMAGE, MultiExitNetwork, run_exits, run_stage, run_until
from edgeexit.models.vit import TOKENS, VIT_TINY, ViTConfig, vit, vit_tiny

SMALL = ViTConfig(
    img_size=8,
    patch_size=4,
    in_chans=1,
    num_classes=5,
    embed_dim=16,
    depth=3,
    num_heads=2,
    exits=(1, 3),
    mean=(0.3,),
    std=(0.5,),
    head_hidden_dims=(8,),
)


def test_keeps_the_protocol_with_named_states() -> None:
    network = vit(SMALL, seed=0).eval()
    assert isinstance(network, MultiExitNetwork)
    state, first = run_stage(network, 0, {IMAGE: torch.rand(2, 1, 8, 8)})
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {TOKENS: (2, 5, 16)}
    state, last = run_stage(network, 1, state)
    assert state == {}
    assert first.shape == last.shape == (2, 5)


def test_whole_and_stages_agree() -> None:
    network = vit(SMALL, seed=0).eval()
    image = torch.rand(3, 1, 8, 8)
    for whole, staged in zip(network(image), run_exits(network, image), strict=True):
        assert torch.equal(whole, staged)


def test_an_image_is_normalised_inside_stage_0() -> None:
    plain = vit(replace(SMALL, mean=(0.0,), std=(1.0,)), seed=0).eval()
    normalising = vit(SMALL, seed=0).eval()
    image = torch.rand(1, 1, 8, 8)
    torch.testing.assert_close(run_exits(normalising, image), run_exits(plain, (image - 0.3) / 0.5))


def test_the_same_seed_gives_the_same_weights_and_leaves_torch_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second, other = vit(SMALL, seed=1), vit(SMALL, seed=1), vit(SMALL, seed=2)
    assert torch.equal(torch.rand(1), expected)
    weights = [
        network.stages[0].get_parameter("patch_embed.proj.weight") for network in (first, second, other)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_one_stage_and_linear_heads_are_possible() -> None:
    network = vit(replace(SMALL, exits=(3,), head_hidden_dims=()), seed=0).eval()
    state, output = run_stage(network, 0, {IMAGE: torch.rand(1, 1, 8, 8)})
    assert state == {}
    assert output.shape == (1, 5)


@pytest.mark.parametrize("stem_dims", [(), (4,), (4, 8)])
def test_a_stem_keeps_the_patches(stem_dims: tuple[int, ...]) -> None:
    network = vit(replace(SMALL, stem_dims=stem_dims), seed=0).eval()
    state, _ = run_stage(network, 0, {IMAGE: torch.rand(2, 1, 8, 8)})
    assert state[TOKENS].shape == (2, 5, 16)


def test_vit_tiny_is_the_published_size() -> None:
    network = vit_tiny()
    backbone = sum(p.numel() for name, p in network.named_parameters() if ".head." not in name)
    # 5,717,416 of DeiT-Ti less its last norm (384) and classifier (193,000).
    assert backbone == 5_524_032
    assert len(network.stages) == 4
    assert VIT_TINY.grid_size == 14


def test_run_until_stops_at_the_first_confident_exit() -> None:
    network = vit(SMALL, seed=0).eval()
    image = torch.rand(1, 1, 8, 8)
    exits = run_exits(network, image)
    output, taken = run_until(network, image, thresholds=[0.0, 0.0])
    assert taken == 0
    assert torch.equal(output, exits[0])
    output, taken = run_until(network, image, thresholds=[2.0, 2.0])
    assert taken == 1
    assert torch.equal(output, exits[1])


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"patch_size": 0}, "below 1"),
        ({"head_hidden_dims": (8, 0)}, "below 1"),
        ({"img_size": 9}, "patch_size"),
        ({"stem_dims": (4, 4, 4)}, "stem"),
        ({"num_heads": 3}, "num_heads"),
        ({"mean": (0.1, 0.2, 0.3)}, "channels"),
        ({"exits": (1, 2)}, "depth"),
        ({"exits": (2, 2, 3)}, "rise"),
        ({"exits": (0, 3)}, "rise"),
        ({"exits": ()}, "depth"),
    ],
)
def test_what_cannot_be_built_is_refused(wrong: dict[str, object], why: str) -> None:
    fields = {name: getattr(SMALL, name) for name in ViTConfig.__slots__}
    with pytest.raises(ValueError, match=why):
        ViTConfig(**{**fields, **wrong})
