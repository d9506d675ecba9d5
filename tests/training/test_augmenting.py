"""Augmented batches follow from their number, keep what they must, and are learnt from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeexit.errors import ConfigError
from edgeexit.models.vit import ViTConfig, vit
from edgeexit.training.augmentation import Augmentation
from edgeexit.training.augmenting import AugmentedBatches
from edgeexit.training.batches import ItemBatches
from edgeexit.training.data import Samples
from edgeexit.training.loop import TrainingConfig, train
from edgeexit.training.map_matching import MapMatching
from edgeexit.training.objective import Objective, exit_losses

CONFIG = ViTConfig(
    img_size=8, patch_size=4, in_chans=3, num_classes=3, embed_dim=32, depth=2, num_heads=2,
    exits=(1, 2), mean=(0.5,) * 3, std=(0.3,) * 3, head_hidden_dims=(),
)  # fmt: skip


def items(count: int = 24, channels: int = 3) -> Samples:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (count, channels, 8, 8)).astype(np.float32) / np.float32(255)
    return Samples(pixels, np.arange(count, dtype=np.int64) % 3, "noise")


def source(how: Augmentation, *, seed: int = 0, channels: int = 3) -> AugmentedBatches:
    return AugmentedBatches(ItemBatches(items(channels=channels), seed=0, mirror=False), how, 3, seed)


@pytest.mark.parametrize(
    "how",
    [
        Augmentation(mixup_alpha=0.4),
        Augmentation(cutmix_alpha=1.0),
        Augmentation(operations=2),
        Augmentation(mixup_alpha=0.2, cutmix_alpha=1.0, operations=1, magnitude=5),
    ],
)
def test_a_batch_is_a_function_of_its_number(how: Augmentation) -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first = source(how).batch(3, 8)
    assert torch.equal(torch.rand(1), expected)  # torch's own random numbers are not touched
    source(how).batch(2, 8)
    again = source(how).batch(3, 8)
    assert np.array_equal(first.images, again.images)
    assert np.array_equal(first.targets, again.targets)
    plain = source(Augmentation()).batch(3, 8)
    assert not np.array_equal(first.images, plain.images)
    other = source(how, seed=1).batch(3, 8)
    assert not np.array_equal(first.images, other.images)
    assert first.images.shape == plain.images.shape
    assert first.images.dtype == np.float32
    assert first.images.min() >= 0.0
    assert first.images.max() <= 1.0


@pytest.mark.parametrize("how", [Augmentation(mixup_alpha=1.0), Augmentation(cutmix_alpha=1.0)])
def test_mixed_targets_are_shares_of_what_is_in_the_image(how: Augmentation) -> None:
    plain, mixed = source(Augmentation()).batch(0, 8), source(how).batch(0, 8)
    assert mixed.targets.shape == (8, 3)
    assert mixed.targets.sum(axis=1) == pytest.approx(np.ones(8))
    own = mixed.targets[np.arange(8), plain.targets]
    assert (own > 0).all()
    if how.cutmix_alpha:  # as much of the image is as it was as the target says, where classes differ
        kept = (mixed.images == plain.images).all(axis=1).mean(axis=(1, 2))
        differs = plain.targets != np.roll(plain.targets, 1)
        assert own[differs] == pytest.approx(kept[differs], abs=0.02)


def test_randaugment_takes_grey_images_and_values() -> None:
    how = Augmentation(operations=3, magnitude=12)
    grey = source(how, channels=1).batch(0, 8)
    assert grey.images.shape == (8, 1, 8, 8)
    assert np.allclose(grey.images * 255, np.rint(grey.images * 255), atol=1e-3)
    values = Samples(items().images, np.linspace(0, 1, 24, dtype=np.float32), "values")
    batch = AugmentedBatches(ItemBatches(values, seed=0, mirror=False), how, 0, 0).batch(0, 4)
    assert batch.targets.dtype == np.float32
    assert batch.targets.shape == (4,)


def test_values_are_never_mixed() -> None:
    with pytest.raises(ConfigError, match="cannot be mixed"):
        AugmentedBatches(ItemBatches(items(), seed=0, mirror=False), Augmentation(mixup_alpha=0.2), 0, 0)


@pytest.mark.parametrize(
    "words",
    [{"mixup_alpha": -1.0}, {"cutmix_alpha": float("nan")}, {"operations": 99}],
)
def test_settings_that_mean_nothing_are_refused(words: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Augmentation(**words)  # type: ignore[arg-type]


def test_the_loss_of_shares_is_the_mean_of_the_losses_of_classes() -> None:
    outputs = [torch.randn(4, 3) for _ in range(2)]
    one, other = torch.tensor([0, 1, 2, 0]), torch.tensor([1, 1, 0, 2])
    shares = 0.3 * torch.eye(3)[one] + 0.7 * torch.eye(3)[other]
    expected = 0.3 * exit_losses(outputs, one) + 0.7 * exit_losses(outputs, other)
    assert torch.allclose(exit_losses(outputs, shares), expected, atol=1e-6)


def test_a_network_is_trained_on_mixed_batches_and_refuses_what_does_not_fit() -> None:
    network = vit(CONFIG, seed=0)
    config = TrainingConfig(samples=64, batch_size=16)

    def go(batches: AugmentedBatches, objective: Objective) -> None:
        train(
            network, batches, config,
            clock_s=iter(range(10**6)).__next__, progress=lambda _: None, objective=objective,
        )  # fmt: skip

    go(source(Augmentation(mixup_alpha=0.2)), Objective())
    with pytest.raises(ConfigError, match="maps are of one class"):
        go(source(Augmentation(mixup_alpha=0.2)), Objective(maps=MapMatching(start=0.0)))
    four = AugmentedBatches(ItemBatches(items(), seed=0, mirror=False), Augmentation(mixup_alpha=0.2), 4, 0)
    with pytest.raises(ConfigError, match="shares of 4 classes"):
        go(four, Objective())
