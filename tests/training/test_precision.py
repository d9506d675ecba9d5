"""Half precision learns, keeps weights in float32, and goes on after a kill; overflow is scaled away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeexit.errors import ConfigError, TrainingDiverged
from edgeexit.models.vit import VisionTransformer, ViTConfig, vit
from edgeexit.training.batches import ItemBatches
from edgeexit.training.data import Samples
from edgeexit.training.evaluation import exit_logits
from edgeexit.training.loop import train
from edgeexit.training.methods import Joint
from edgeexit.training.objective import Objective
from edgeexit.training.precision import Precision, half_dtype, rounded_products
from edgeexit.training.sample_weighting import SampleWeighting
from edgeexit.training.schedule import HalfKind, TrainingConfig
from edgeexit.training.snapshot import Snapshots

CONFIG = ViTConfig(
    img_size=8, patch_size=4, in_chans=1, num_classes=2, embed_dim=32, depth=2, num_heads=2,
    exits=(1, 2), mean=(0.5,), std=(0.3,), head_hidden_dims=(),
)  # fmt: skip


def sides(count: int = 256, seed: int = 0) -> Samples:
    random = np.random.default_rng(seed)
    images = random.integers(0, 128, (count, 1, 8, 8))
    targets = random.integers(0, 2, count)
    for image, target in zip(images, targets, strict=True):
        image[0, :, 4 * target : 4 * target + 4] += 100
    return Samples(images.astype(np.float32) / np.float32(255), targets.astype(np.int64), "sides")


def clock() -> Callable[[], float]:
    return iter(range(10**6)).__next__


def trained(
    config: TrainingConfig, where: Snapshots | None = None, stop: int | None = None
) -> VisionTransformer:
    network = vit(CONFIG, seed=0)
    source: ItemBatches = ItemBatches(sides(), seed=0, mirror=False)
    if stop is not None:
        source = Dying(sides(), seed=0, mirror=False)
    train(network, source, config, clock_s=clock(), progress=lambda _: None, snapshots=where)
    return network


class Killed(Exception):
    """The process died."""


class Dying(ItemBatches):
    """Dies before batch 5."""

    def batch(self, number: int, size: int) -> Samples:
        if number == 5:
            raise Killed
        return super().batch(number, size)


@pytest.mark.parametrize("half", ["bfloat16", "float16"])
def test_a_network_learns_in_half_precision_what_it_learns_in_full(half: HalfKind) -> None:
    config = TrainingConfig(samples=320, batch_size=32)
    network, full = trained(replace(config, half=half)), trained(config)
    test = sides(100, seed=1)
    answers, wanted = exit_logits(network, test), exit_logits(full, test)
    fresh = exit_logits(vit(CONFIG, seed=0), test)
    # Chance in the last bits grows step by step; what was learnt is far larger.
    assert np.abs(answers - wanted).mean() < 0.2 * np.abs(fresh - wanted).mean()
    assert not np.array_equal(answers, wanted)  # it really was another precision
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


def test_float16_goes_on_after_a_kill_to_the_same_bits(tmp_path: Path) -> None:
    config = TrainingConfig(samples=256, batch_size=32, half="float16")
    where = Snapshots(tmp_path / "s.pt", key="a", every_s=1.0)
    whole = trained(config)
    with pytest.raises(Killed):
        trained(config, where, stop=5)
    cut = trained(config, where)
    pairs = zip(whole.state_dict().values(), cut.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_overflow_skips_the_step_and_lowers_the_scale_until_there_is_none() -> None:
    precision = Precision(TrainingConfig(samples=1, half="float16"), torch.device("cpu"))
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    scaler = precision.scaler
    assert scaler is not None
    scale = 65_536.0
    loss = (weight.sum() * 1e36).sum()
    precision.backward(loss, [optimizer])
    assert weight.grad is not None
    assert not precision.step(loss.detach(), weight.grad.norm(), [optimizer], batch=0)
    assert torch.equal(weight, torch.ones(2))
    assert scaler.get_scale() == scale / 2
    loss = weight.sum()
    optimizer.zero_grad()
    precision.backward(loss, [optimizer])
    assert weight.grad.tolist() == [1.0, 1.0]  # scaled on the way, and back
    assert precision.step(loss.detach(), weight.grad.norm(), [optimizer], batch=1)
    assert weight[0].item() == pytest.approx(0.9)


def test_gradients_that_are_never_numbers_end_training() -> None:
    precision = Precision(TrainingConfig(samples=1, half="float16"), torch.device("cpu"))
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)

    def forever() -> None:
        for batch in range(100):  # a finite loss whose gradient is no number, however small it is scaled
            optimizer.zero_grad()
            loss = (weight * 0.0).sqrt().sum()
            precision.backward(loss, [optimizer])
            assert weight.grad is not None
            precision.step(loss.detach(), weight.grad.norm(), [optimizer], batch=batch)

    with pytest.raises(TrainingDiverged):
        forever()
    assert torch.equal(weight, torch.ones(2))


@pytest.mark.parametrize(
    ("config", "device", "expected"),
    [
        (TrainingConfig(samples=1), "cpu", None),
        (TrainingConfig(samples=1, half="bfloat16"), "cpu", torch.bfloat16),
        (TrainingConfig(samples=1, half="float16"), "cuda", torch.float16),
        (TrainingConfig(samples=1, mixed_precision=False, half="float16"), "cpu", None),
    ],
)
def test_what_is_asked_for_is_used(config: TrainingConfig, device: str, expected: torch.dtype | None) -> None:
    assert half_dtype(config, torch.device(device)) == expected


def test_learnt_weights_do_not_go_with_a_scaled_loss() -> None:
    network = vit(CONFIG, seed=0)
    config = TrainingConfig(samples=64, optimizer="sgd", half="float16")
    objective = Objective(method=Joint(1.0), weighting=SampleWeighting())
    source = ItemBatches(sides(), seed=0, mirror=False)
    with pytest.raises(ConfigError, match="weights do not fit") as caught:
        train(network, source, config, clock_s=clock(), progress=lambda _: None, objective=objective)
    assert caught.value.key == "half"
    with pytest.raises(ValueError, match="half must be"):
        TrainingConfig(samples=1, half="float8")  # type: ignore[arg-type]


class Watching(ItemBatches):
    """Notes how float32 products are made while batches are asked for; dies before batch 5."""

    def __init__(self, items: Samples) -> None:
        super().__init__(items, seed=0, mirror=False)
        self.seen: list[str] = []

    def batch(self, number: int, size: int) -> Samples:
        self.seen.append(torch.get_float32_matmul_precision())
        if number == 5:
            raise Killed
        return super().batch(number, size)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (TrainingConfig(samples=320, batch_size=32, seconds=1e6), "medium"),
        (TrainingConfig(samples=320, batch_size=32), "highest"),
        (TrainingConfig(samples=320, batch_size=32, seconds=1e6, mixed_precision=False), "highest"),
    ],
)
def test_products_are_rounded_only_in_runs_by_the_clock_and_never_after_them(
    config: TrainingConfig, expected: str
) -> None:
    source = Watching(sides())
    with pytest.raises(Killed):
        train(vit(CONFIG, seed=0), source, config, clock_s=clock(), progress=lambda _: None)
    assert set(source.seen) == {expected}
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_network_learns_with_rounded_products_what_it_learns_without() -> None:
    config = TrainingConfig(samples=320, batch_size=32)
    full = trained(config)
    with rounded_products(True):
        network = trained(config)
    test = sides(100, seed=1)
    answers, wanted = exit_logits(network, test), exit_logits(full, test)
    fresh = exit_logits(vit(CONFIG, seed=0), test)
    assert np.abs(answers - wanted).mean() < 0.2 * np.abs(fresh - wanted).mean()
