"""Training learns, repeats by its seed, and ends inside its budget with the rate back at zero."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from edgeexit.models.vit import VisionTransformer, ViTConfig, vit
from edgeexit.training.batches import ItemBatches
from edgeexit.training.data import Samples
from edgeexit.training.evaluation import exit_accuracies, exit_logits
from edgeexit.training.loop import (
    TrainingConfig,
    TrainingProgress,
    learning_rate_factor,
    spent_fraction,
    train,
)
from edgeexit.training.muon import Muon, orthogonal
from edgeexit.training.objective import exit_losses, joint_loss

CONFIG = ViTConfig(
    img_size=8, patch_size=4, in_chans=1, num_classes=2, embed_dim=32, depth=2, num_heads=2,
    exits=(1, 2), mean=(0.5,), std=(0.3,), head_hidden_dims=(32,), head_dropout=0.1,
)  # fmt: skip


def bright_side(count: int, seed: int) -> Samples:
    """Is the left or the right half the brighter one?"""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 128, (count, 1, 8, 8))
    targets = rng.integers(0, 2, count)
    for image, target in zip(images, targets, strict=True):
        image[0, :, 4 * target : 4 * target + 4] += 100
    return Samples(images.astype(np.float32) / np.float32(255), targets.astype(np.int64), "sides")


def steady(step_s: float = 1.0) -> Callable[[], float]:
    """A clock that moves by the same amount each time it is read."""
    now = 0.0

    def read() -> float:
        nonlocal now
        now += step_s
        return now

    return read


def trained(config: TrainingConfig) -> tuple[VisionTransformer, list[TrainingProgress]]:
    network = vit(CONFIG, seed=0)
    told: list[TrainingProgress] = []
    source = ItemBatches(bright_side(256, seed=0), seed=config.seed, mirror=False)
    train(network, source, config, clock_s=steady(), progress=told.append)
    return network, told


def test_a_small_network_learns_and_says_how_it_goes() -> None:
    network, told = trained(TrainingConfig(samples=3200, batch_size=32))
    test = bright_side(200, seed=1)
    assert min(exit_accuracies(exit_logits(network, test), test.targets)) > 0.95
    assert told[-1].fraction == 1.0
    assert told[-1].samples == 3200
    assert len(told[-1].losses) == 2
    assert [p.fraction for p in told] == sorted(p.fraction for p in told)
    assert not network.stages.training


def test_the_same_seed_repeats_exactly_and_torch_is_left_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first, _ = trained(TrainingConfig(samples=320, batch_size=32, seed=4))
    assert torch.equal(torch.rand(1), expected)
    second, _ = trained(TrainingConfig(samples=320, batch_size=32, seed=4))
    other, _ = trained(TrainingConfig(samples=320, batch_size=32, seed=5))
    pairs = list(zip(first.parameters(), second.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not all(torch.equal(a, c) for a, _, c in pairs)


def test_seconds_end_training_before_the_samples_do() -> None:
    _, told = trained(TrainingConfig(samples=1_000_000, seconds=20.0, batch_size=32))
    assert told[-1].elapsed_s == pytest.approx(20.0, abs=1.0)
    assert told[-1].fraction == 1.0
    # The rate of the last step is the one of the step before the end: nearly nothing is left of it.
    assert told[-1].learning_rate < 0.02 * TrainingConfig(samples=1).learning_rate


def test_the_budget_is_spent_by_whichever_is_further() -> None:
    config = TrainingConfig(samples=1000, seconds=100.0)
    assert spent_fraction(500, 10.0, config) == 0.5
    assert spent_fraction(100, 80.0, config) == 0.8
    assert spent_fraction(2000, 0.0, config) == 1.0
    assert spent_fraction(100, 1e9, TrainingConfig(samples=1000)) == 0.1


@pytest.mark.parametrize(("samples", "seconds"), [(0, None), (10, 0.0), (10, -1.0)])
def test_a_budget_of_nothing_is_refused(samples: int, seconds: float | None) -> None:
    with pytest.raises(ValueError, match="over 0"):
        TrainingConfig(samples=samples, seconds=seconds)


def test_the_rate_rises_and_falls_once() -> None:
    factors = [learning_rate_factor(i / 100, 0.1) for i in range(101)]
    assert max(factors) == factors[10] == 1.0
    assert factors[:11] == sorted(factors[:11])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[0] > 0
    assert factors[-1] == pytest.approx(0.0)


def test_the_final_exit_counts_double() -> None:
    assert joint_loss(torch.tensor([1.0, 0.0, 0.0])).item() == pytest.approx(0.25)
    assert joint_loss(torch.tensor([0.0, 0.0, 1.0])).item() == pytest.approx(0.5)
    assert joint_loss(torch.full((7,), 3.0)).item() == pytest.approx(3.0)


def test_losses_are_those_of_each_exit_alone() -> None:
    outputs = [torch.randn(5, 3) for _ in range(4)]
    targets = torch.tensor([0, 1, 2, 1, 0])
    losses = exit_losses(outputs, targets)
    assert losses.tolist() == pytest.approx(
        [torch.nn.functional.cross_entropy(output, targets).item() for output in outputs]
    )


@pytest.mark.parametrize("shape", [(2, 12, 40), (1, 40, 12), (3, 16, 16)])
def test_orthogonal_moves_every_singular_value_near_one(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrices))
    assert values.shape == (shape[0], min(shape[1:]))
    # A square random matrix has singular values near zero, which five iterations cannot lift all the way.
    assert values.max() < 1.3
    assert values.median() > 0.6


def test_muon_goes_downhill_and_decays_weights() -> None:
    target = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    matrix = torch.nn.Parameter(torch.zeros(8, 4))
    optimizer = Muon([matrix], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        ((matrix - target) ** 2).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert (matrix - target).abs().max() < 0.3
    still = torch.nn.Parameter(torch.ones(4, 4))
    still.grad = torch.zeros(4, 4)
    Muon([still], lr=0.5, weight_decay=0.2).step()
    assert torch.allclose(still, torch.full((4, 4), 0.9))


def test_muon_refuses_what_is_no_matrix() -> None:
    with pytest.raises(ValueError, match="no matrix"):
        Muon([torch.nn.Parameter(torch.zeros(3))], lr=0.1)
