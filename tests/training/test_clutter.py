"""Canvases are made of real pixels of their own split only, and of the same ones each time."""

from __future__ import annotations

import numpy as np
import pytest

from edgeexit.training.batches import ClutterBatches, ItemBatches
from edgeexit.training.clutter import Clutter, clutter_batch, clutter_set
from edgeexit.training.data import Samples

CLUTTER = Clutter(canvas=12, scrap=4, under=2, over=1)


def items(values: range, side: int = 8) -> Samples:
    """Each item is one flat value of its own, so that every pixel tells where it comes from."""
    images = np.stack([np.full((1, side, side), v, dtype=np.float32) for v in values]) / np.float32(255)
    return Samples(images=images, targets=np.array(list(values), dtype=np.int64), name="flat")


def test_every_item_lies_on_its_canvas_under_scraps_of_its_own_split() -> None:
    source = items(range(1, 41))
    canvases = clutter_set(source, CLUTTER, seed=1)
    assert canvases.images.shape == (40, 1, 12, 12)
    assert np.array_equal(canvases.targets, source.targets)
    pixels = canvases.pixels()
    assert set(np.unique(pixels)) <= set(range(41))
    for i in range(40):
        # One scrap of 4 × 4 may lie over the item of 8 × 8.
        assert (pixels[i] == i + 1).sum() >= 8 * 8 - 4 * 4


def test_items_lie_at_many_places() -> None:
    bare = Clutter(canvas=12, scrap=4, under=0, over=0)
    canvases = clutter_set(items(range(1, 200)), bare, seed=1)
    corners = {tuple(np.argwhere(canvas[0] > 0).min(axis=0).tolist()) for canvas in canvases.images}
    assert corners == {(y, x) for y in range(5) for x in range(5)}


def test_black_is_see_through() -> None:
    source = items(range(1, 3))
    source.images[0, :, :, :4] = 0.0
    bare = Clutter(canvas=8, scrap=8, under=1, over=0)
    seen = {
        frozenset(np.unique(c.pixels()[0]).tolist())
        for c in (clutter_set(source, bare, seed=s) for s in range(20))
    }
    assert frozenset({1, 2}) in seen


def test_the_same_seed_gives_the_same_canvases() -> None:
    source = items(range(1, 30))
    first, second = (clutter_set(source, CLUTTER, seed=4) for _ in range(2))
    assert np.array_equal(first.images, second.images)
    assert not np.array_equal(first.images, clutter_set(source, CLUTTER, seed=5).images)


def test_values_stay_whole_8_bit_steps() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 1, 8, 8)).astype(np.float32) / np.float32(255)
    canvases = clutter_set(Samples(images, np.zeros(20, np.int64), "x"), CLUTTER, seed=0)
    assert np.array_equal(canvases.pixels().astype(np.float32) / np.float32(255), canvases.images)


@pytest.mark.parametrize("wrong", [Clutter(7, 4, 1, 1), Clutter(12, 9, 1, 1), Clutter(12, 0, 1, 1)])
def test_what_does_not_fit_is_refused(wrong: Clutter) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        clutter_set(items(range(1, 4)), wrong, seed=0)


def test_a_batch_depends_on_its_number_alone() -> None:
    source = items(range(1, 50))
    forward = ClutterBatches(source, seed=3, mirror=True, clutter=CLUTTER)
    jumping = ClutterBatches(source, seed=3, mirror=True, clutter=CLUTTER)
    in_order = [forward.batch(n, 16) for n in range(12)]
    for n in (11, 2, 7):
        assert np.array_equal(jumping.batch(n, 16).images, in_order[n].images)


def test_one_round_shows_every_item_once() -> None:
    source = items(range(1, 49))
    batches = ItemBatches(source, seed=0, mirror=False)
    first = np.concatenate([batches.batch(n, 16).targets for n in range(3)])
    second = np.concatenate([batches.batch(n, 16).targets for n in range(3, 6)])
    assert sorted(first) == sorted(second) == sorted(source.targets)
    assert not np.array_equal(first, second)


def test_a_batch_may_be_larger_than_the_set() -> None:
    batch = ItemBatches(items(range(1, 4)), seed=0, mirror=False).batch(2, 8)
    assert len(batch) == 8


def test_mirroring_turns_some_images_and_only_turns_them() -> None:
    rng = np.random.default_rng(0)
    images = rng.random((64, 1, 8, 8), dtype=np.float32)
    source = Samples(images.copy(), np.arange(64), "x")
    batch = ItemBatches(source, seed=0, mirror=True).batch(0, 64)
    turned = 0
    for image, target in zip(batch.images, batch.targets, strict=True):
        if np.array_equal(image, images[target, :, :, ::-1]):
            turned += 1
        else:
            assert np.array_equal(image, images[target])
    assert 16 < turned < 48
    assert np.array_equal(source.images, images)


def test_a_fixed_set_and_a_batch_of_all_items_agree() -> None:
    source = items(range(1, 20))
    batch = clutter_batch(source, np.arange(19), CLUTTER, np.random.default_rng(9))
    assert np.array_equal(batch.images, clutter_set(source, CLUTTER, seed=9).images)
