"""Merging of tokens: as many as promised are left, alike ones go together, each is where it went."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgeexit.errors import UnsupportedModel
from edgeexit.models.merging import merging, places_name


def there_and_back(tokens: Tensor, merged: int) -> tuple[Tensor, Tensor, Tensor]:
    made = merging("tokens", tokens.shape[1], 1, merged)
    packed = made.pack(tokens=tokens)
    return packed[made.name], packed[places_name(made.name)], made.unpack(**packed)["tokens"]


@settings(deadline=None, max_examples=25)
@given(
    side=st.integers(4, 9), prefix=st.integers(0, 2), merged=st.sampled_from([4, 8]), seed=st.integers(0, 99)
)
def test_every_patch_becomes_the_mean_of_what_it_went_with(
    side: int, prefix: int, merged: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(1, prefix + side * side, 6, generator=generator)
    left, places, back = there_and_back(tokens, merged)
    count = side * side
    for _ in range({4: 2, 8: 3}[merged]):
        count = (count + 1) // 2
    assert left.shape == (1, prefix + count, 6)
    assert places.dtype == torch.uint8
    assert back.shape == tokens.shape
    assert torch.equal(back[:, :prefix], tokens[:, :prefix])
    # What went together came back alike, and is the mean of what it was.
    _, groups = torch.unique(back[0, prefix:], dim=0, return_inverse=True)
    for group in range(int(groups.max()) + 1):
        chosen = groups == group
        assert torch.allclose(back[0, prefix:][chosen], tokens[0, prefix:][chosen].mean(dim=0), atol=1e-5)


def test_what_is_alike_goes_together_and_comes_back_whole() -> None:
    ground, thing = torch.tensor([1.0, 0.0, 0.1]), torch.tensor([0.0, 2.0, 0.0])
    tokens = ground.repeat(1, 64, 1)
    tokens[:, 16:32] = thing  # two rows
    left, places, back = there_and_back(tokens, 16)
    assert left.shape[1] == 4
    assert torch.allclose(back, tokens, atol=1e-6)
    # Four places fit into half a byte.
    assert places.shape == (1, 32)


def test_what_cannot_be_merged_so_far_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="no square"):
        merging("tokens", 15, 1, 4)
    with pytest.raises(UnsupportedModel, match="16 in one"):
        merging("tokens", 17, 1, 16)
    with pytest.raises(UnsupportedModel, match="4 in one"):
        merging("tokens", 48 * 48, 1, 4)
