"""Windows of patches: every token has its place, and what rounding leaves of prefix tokens is sent too."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.models.windows import FINER, PATCHES, WindowPack, Windows, WindowUnpack, quantise


@given(st.integers(min_value=1, max_value=300))
def test_every_patch_has_a_place_in_a_window(tokens: int) -> None:
    windows = Windows.of(tokens)
    assert len(windows.members) == PATCHES * windows.count
    assert all(0 <= member < tokens for member in windows.members)
    found = [windows.members[place] for place in windows.places]
    assert [*range(windows.prefix), *found] == list(range(tokens))


def test_windows_are_squares_of_an_image() -> None:
    windows = Windows.of(1 + 14 * 14)
    assert (windows.prefix, windows.count, windows.groups) == (1, 49, 50)
    assert windows.members[:4] == (1, 2, 15, 16)
    odd = Windows.of(9)
    assert (odd.prefix, odd.count) == (0, 4)
    # At the edge a patch stands in for those beyond.
    assert odd.members[-4:] == (8, 8, 8, 8)


def test_what_rounding_leaves_of_a_prefix_token_comes_after_it() -> None:
    torch.manual_seed(0)
    pack = WindowPack(16, Windows.of(5), 8)
    tokens = 3.0 * torch.randn(20, 5, 16)
    assert pack.lead is not None
    with torch.no_grad():
        meant = pack.lead(tokens[:, :1])[..., :2]
        numbers = quantise(pack(tokens))[:, :1]
    assert torch.equal(numbers, numbers.round())
    again = numbers[..., :2] + numbers[..., 2:4] / FINER
    within = meant.abs() < 7.0
    assert float((again - meant)[within].abs().max()) <= 1.0 / FINER


def test_a_fresh_way_back_is_the_mean_and_what_the_linear_map_says() -> None:
    windows = Windows.of(17)
    unpack = WindowUnpack(8, windows, 8, 1)
    with torch.no_grad():
        unpack.mean.fill_(0.5)
    tokens = unpack(torch.zeros(2, windows.groups, 8))
    assert torch.allclose(tokens, torch.full((2, 17, 8), 0.5))
