"""Learnt sample weights: the right gradient, the promised means, and a reaction to what helps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeexit.errors import ConfigError
from edgeexit.models.vit import VisionTransformer, ViTConfig, vit
from edgeexit.training.batches import ItemBatches
from edgeexit.training.data import Samples
from edgeexit.training.loop import TrainingConfig, train
from edgeexit.training.methods import Joint, LayerWise
from edgeexit.training.objective import Objective, sample_losses
from edgeexit.training.parts import Exits
from edgeexit.training.sample_weighting import Constraint, SampleWeighting
from edgeexit.training.snapshot import Snapshots
from edgeexit.training.weight_network import (
    Half,
    LearnedWeights,
    WeightNetwork,
    allocated_exits,
    meta_loss,
    sgd_step,
    weighted_training_loss,
)

CONFIG = ViTConfig(
    img_size=8, patch_size=4, in_chans=1, num_classes=3, embed_dim=8, depth=2, num_heads=2,
    exits=(1, 2), mean=(0.5,), std=(0.3,), head_hidden_dims=(), stem_dims=(4,),
)  # fmt: skip
SMALL = SampleWeighting(hidden_dim=6, learning_rate=0.01)
SGD = TrainingConfig(samples=96, batch_size=16, optimizer="sgd", learning_rate=0.05, weight_decay=1e-4)


def noise(count: int, seed: int) -> Half:
    rng = np.random.default_rng(seed)
    return Half(torch.from_numpy(rng.random((count, 1, 8, 8))), torch.from_numpy(rng.integers(0, 3, count)))


def prepared() -> tuple[VisionTransformer, LearnedWeights, torch.optim.SGD]:
    """A network in double precision, some steps into its training, so that momentum is there."""
    network = vit(CONFIG, seed=0).double().train()
    main = torch.optim.SGD(network.parameters(), lr=0.5, momentum=0.9, weight_decay=1e-3)
    exits = Exits(network)
    for seed in (10, 11):
        half = noise(8, seed)
        main.zero_grad()
        sample_losses(exits(half.images), half.targets).mean().backward()  # type: ignore[no-untyped-call]
        main.step()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        learnt = LearnedWeights(exits, SMALL)
    return network, learnt, main


def test_the_meta_gradient_is_that_of_finite_differences() -> None:
    _, learnt, main = prepared()
    train_half, meta_half = noise(8, 0), noise(8, 1)
    parameters = list(learnt.network.parameters())
    loss = learnt.after_step(train_half, meta_half, main, (1.0, 1.0))
    gradients = torch.autograd.grad(loss, parameters)
    step = 1e-5
    for parameter, gradient in zip(parameters, gradients, strict=True):
        flat = parameter.data.view(-1)
        for index in range(0, len(flat), max(1, len(flat) // 4)):
            kept = float(flat[index])
            found = []
            for sign in (1.0, -1.0):
                flat[index] = kept + sign * step
                found.append(float(learnt.after_step(train_half, meta_half, main, (1.0, 1.0)).detach()))
            flat[index] = kept
            estimate = (found[0] - found[1]) / (2 * step)
            assert float(gradient.view(-1)[index]) == pytest.approx(estimate, rel=1e-3, abs=1e-8)
    assert max(float(gradient.abs().max()) for gradient in gradients) > 1e-5


def test_the_pseudo_step_is_the_step_of_torch() -> None:
    network, _, main = prepared()
    half = noise(8, 2)
    named = dict(network.named_parameters())
    main.zero_grad()
    sample_losses(Exits(network)(half.images), half.targets).mean().backward()  # type: ignore[no-untyped-call]
    gradients = [each.grad for each in named.values() if each.grad is not None]
    moved = sgd_step(named, gradients, main)
    main.step()
    for name, parameter in named.items():
        assert torch.allclose(moved[name], parameter, atol=1e-12), name


def test_looking_ahead_changes_nothing_of_the_network() -> None:
    network, learnt, main = prepared()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    learnt.learn(noise(8, 0), noise(8, 1), main, (1.0, 1.0), 1.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_learning_weights_lowers_the_loss_after_the_step() -> None:
    _, learnt, main = prepared()
    train_half, meta_half = noise(8, 0), noise(8, 1)
    losses = [learnt.learn(train_half, meta_half, main, (1.0, 1.0), 1.0) for _ in range(30)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("constraint", ["sample", "exit", "matrix"])
def test_weights_have_a_mean_of_one_and_stay_in_their_range(constraint: Constraint) -> None:
    network = WeightNetwork(3, SampleWeighting(constraint=constraint, epsilon=0.3, hidden_dim=20))
    nn.init.normal_(network.fc2.weight)
    losses = torch.rand(40, 3, requires_grad=True) * 4
    weights: Tensor = network(losses)
    mean = {"sample": weights.mean(1), "exit": weights.mean(0), "matrix": weights.mean()}[constraint]
    assert torch.allclose(mean, torch.ones_like(mean), atol=1e-5)
    assert (weights - 1).abs().max() <= 0.6
    assert weights.std() > 0.01


def test_the_surest_samples_are_to_leave_first() -> None:
    sure = torch.tensor([0.1, 3.0, 0.2, 2.0, 0.3, 0.0, 0.05, 1.0])
    outputs = [torch.stack((sure, torch.zeros(8)), dim=1)] * 3
    confidences = torch.stack([output.softmax(dim=1).amax(dim=1) for output in outputs], dim=1)
    taken = allocated_exits(confidences, 0.5)  # shares 4/7, 2/7, 1/7 of 8: 4, 2, the rest
    assert taken.tolist() == [1, 0, 1, 0, 0, 2, 2, 0]
    assert meta_loss(outputs, torch.zeros(8, dtype=torch.int64), 0.5) > 0


def test_even_weights_are_the_plain_sum() -> None:
    losses = torch.rand(5, 3)
    loss = weighted_training_loss(losses, torch.ones(5, 3), (1.0, 1.0, 2.0))
    expected = losses.mean(0)
    assert loss.item() == pytest.approx(float(expected[0] + expected[1] + 2 * expected[2]))


def items() -> ItemBatches:
    rng = np.random.default_rng(0)
    images = rng.random((64, 1, 8, 8), dtype=np.float32)
    return ItemBatches(
        Samples(images, rng.integers(0, 3, 64).astype(np.int64), "noise"), seed=0, mirror=False
    )


def test_a_weighted_run_that_was_killed_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    objective = Objective(method=Joint(final_weight=1.0), weighting=SMALL)

    def run(network: VisionTransformer, where: Snapshots | None, stop: int | None) -> None:
        ticks = iter(range(10**6))

        def clock() -> float:
            now = next(ticks)
            if now == stop:
                raise KeyboardInterrupt
            return float(now)

        train(
            network,
            items(),
            SGD,
            clock_s=clock,
            progress=lambda _: None,
            objective=objective,
            snapshots=where,
        )

    whole, plain = vit(CONFIG, seed=0), vit(CONFIG, seed=0)
    run(whole, None, None)
    train(plain, items(), SGD, clock_s=lambda: 0.0, progress=lambda _: None)
    assert not torch.equal(whole.stages[1].head.fc.weight, plain.stages[1].head.fc.weight)  # type: ignore[union-attr,arg-type]
    where = Snapshots(tmp_path / "s.pt", key="a", every_s=2.0)
    with pytest.raises(KeyboardInterrupt):
        run(vit(CONFIG, seed=0), where, 5)
    again = vit(CONFIG, seed=9)
    run(again, where, None)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(
    ("config", "objective", "key"),
    [
        (replace(SGD, optimizer="adamw"), Objective(weighting=SMALL), "optimizer"),
        (SGD, Objective(method=LayerWise(), weighting=SMALL), "method"),
        (replace(SGD, batch_size=15), Objective(weighting=SMALL), "batch_size"),
    ],
)
def test_what_cannot_be_weighted_is_refused(config: TrainingConfig, objective: Objective, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        train(
            vit(CONFIG, seed=0),
            items(),
            config,
            clock_s=lambda: 0.0,
            progress=lambda _: None,
            objective=objective,
        )
    assert caught.value.key == key
