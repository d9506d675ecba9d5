"""Packers of boundaries with several tensors: one is packed, the others come back as they were."""

from __future__ import annotations

import torch

from edgeexit.bundle.manifest import TensorSpec
from edgeexit.models.packed_state import packed_tensor, token_count, with_others
from edgeexit.models.packers import pooling

MAP = TensorSpec(name="map", shape=(1, 3, 4, 4))
LATENT = TensorSpec(name="latent", shape=(1, 2, 5))


def test_the_largest_tensor_of_tokens_or_places_is_packed() -> None:
    flat = TensorSpec(name="flat", shape=(1, 900))
    assert packed_tensor([LATENT, flat, MAP]) == MAP
    assert packed_tensor([flat]) is None
    assert (token_count(MAP), token_count(LATENT)) == (16, 2)


def test_a_map_is_packed_by_its_places_and_the_other_tensor_goes_along() -> None:
    packer = with_others(pooling("map", 16, 1), MAP, [LATENT, MAP])
    smooth = torch.full((1, 3, 4, 4), 2.0)
    smooth[:, 1] = -1.0
    latent = torch.randn(1, 2, 5)
    packed = packer.pack(map=smooth, latent=latent)
    assert {name: tuple(tensor.shape) for name, tensor in packed.items()} == {
        "pool4": (1, 4, 3),
        "pool4_latent": (1, 2, 5),
    }
    back = packer.unpack(**packed)
    assert torch.allclose(back["map"], smooth)
    assert torch.equal(back["latent"], latent)


def test_one_tensor_of_tokens_needs_nothing_around_it() -> None:
    tokens = TensorSpec(name="tokens", shape=(1, 17, 8))
    packer = pooling("tokens", 17, 1)
    assert with_others(packer, tokens, [tokens]) is packer
