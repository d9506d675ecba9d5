"""Each method trains what it says and leaves the rest as it was, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from edgeexit.errors import ConfigError, DataError, TrainingDiverged
from edgeexit.models.attach import attach_exits
from edgeexit.models.protocol import run_exits
from edgeexit.models.vit import VisionTransformer, ViTConfig, vit
from edgeexit.training.batches import ItemBatches
from edgeexit.training.data import Samples
from edgeexit.training.loop import TrainingConfig, TrainingProgress, train
from edgeexit.training.methods import BackboneFirst, FrozenBackbone, Joint, LayerWise, Method
from edgeexit.training.objective import Objective, SelfDistillation, sample_losses, weighted_loss
from edgeexit.training.parts import Exits, exit_modules, rescale_gradients
from edgeexit.training.snapshot import Snapshots

CONFIG = ViTConfig(
    img_size=8, patch_size=4, in_chans=1, num_classes=2, embed_dim=32, depth=3, num_heads=2,
    exits=(1, 2, 3), mean=(0.5,), std=(0.3,), head_hidden_dims=(32,), head_dropout=0.1, stem_dims=(8,),
)  # fmt: skip
SHORT = TrainingConfig(samples=96, batch_size=16)


def sides(count: int = 64, *, values: bool = False) -> Samples:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 128, (count, 1, 8, 8))
    targets = rng.integers(0, 2, count)
    for image, target in zip(images, targets, strict=True):
        image[0, :, 4 * target : 4 * target + 4] += 100
    pixels = images.astype(np.float32) / np.float32(255)
    return Samples(pixels, targets.astype(np.float32) if values else targets.astype(np.int64), "sides")


def clock() -> Callable[[], float]:
    return iter(range(10**6)).__next__


def run(network: VisionTransformer, objective: Objective, config: TrainingConfig = SHORT) -> None:
    source = ItemBatches(sides(), seed=0, mirror=False)
    train(network, source, config, clock_s=clock(), progress=lambda _: None, objective=objective)


def changed(network: VisionTransformer) -> set[str]:
    """Names of stages' blocks and heads whose tensors, running means too, are no longer the fresh ones."""
    fresh = vit(CONFIG, seed=0).state_dict()
    names = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, fresh[name])}
    return {f"{name.split('.')[1]} {'exit' if '.head.' in name else 'blocks'}" for name in names}


def test_a_frozen_backbone_stays_to_the_last_bit() -> None:
    network = vit(CONFIG, seed=0)
    run(network, Objective(method=FrozenBackbone()))
    assert changed(network) == {"0 exit", "1 exit", "2 exit"}
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_the_head_that_a_model_came_with_stays_too() -> None:
    network = attach_exits(vit(CONFIG, seed=0), after=[1, 2], branch="linear")
    image = torch.rand(2, 1, 8, 8)
    before = run_exits(network, image)
    train(
        network, ItemBatches(sides(), seed=0, mirror=False), SHORT, clock_s=clock(),
        progress=lambda _: None, objective=Objective(method=FrozenBackbone()),
    )  # fmt: skip
    after = run_exits(network, image)
    assert torch.equal(before[-1], after[-1])
    assert not torch.equal(before[0], after[0])


@pytest.mark.parametrize("method", [Joint(), LayerWise(), BackboneFirst(), FrozenBackbone(0.5)])
def test_methods_reach_every_exit(method: Method) -> None:
    network = vit(CONFIG, seed=0)
    run(network, Objective(method=method))
    assert changed(network) == {f"{k} {part}" for k in range(3) for part in ("blocks", "exit")}
    phases = method.phases(3, own_head=False)
    assert sum(phase.share for phase in phases) == pytest.approx(1.0)


def test_layer_wise_trains_one_stage_after_another() -> None:
    phases = LayerWise().phases(3, own_head=False)
    assert [phase.weights for phase in phases] == [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
    assert all(phase.backbone == phase.branches for phase in phases)


def test_a_phase_that_trains_nothing_is_refused() -> None:
    network = vit(CONFIG, seed=0)
    for exit_part in exit_modules(network):
        exit_part.requires_grad_(False)
    with pytest.raises(ConfigError, match="trains nothing"):
        run(network, Objective(method=FrozenBackbone()))


def test_what_the_caller_froze_is_never_trained() -> None:
    network = vit(CONFIG, seed=0)
    network.stages[0].requires_grad_(False)
    run(network, Objective())
    assert not changed(network) & {"0 blocks", "0 exit"}
    assert not any(parameter.requires_grad for parameter in network.stages[0].parameters())


def test_distillation_pulls_early_exits_to_the_last_and_not_back() -> None:
    outputs = [torch.randn(6, 4, requires_grad=True) for _ in range(3)]
    targets = torch.zeros(6, dtype=torch.int64)
    taught = SelfDistillation(weight=1.0, temperature=2.0).losses(
        outputs, sample_losses(outputs, targets).mean(0)
    )
    taught[:-1].sum().backward()  # type: ignore[no-untyped-call]
    first, last = outputs[0].grad, outputs[-1].grad
    assert first is not None
    assert first.abs().max() > 0
    assert last is None or last.abs().max() == 0
    same = [torch.ones(6, 4)] * 2
    losses = SelfDistillation(1.0).losses(same, torch.zeros(2))
    assert losses[0].item() == pytest.approx(0.0, abs=1e-6)


def test_rescaled_gradients_are_means_of_the_losses_behind() -> None:
    samples = sides(8)
    targets = torch.from_numpy(samples.targets)

    def gradients(network: VisionTransformer, exits: tuple[int, ...]) -> dict[str, Tensor]:
        network.eval().zero_grad()
        losses = sample_losses(Exits(network)(torch.from_numpy(samples.images)), targets).mean(0)
        losses[list(exits)].sum().backward()  # type: ignore[no-untyped-call]
        return {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}

    network = vit(CONFIG, seed=0)
    alone = [gradients(network, (k,)) for k in range(3)]
    gradients(network, (0, 1, 2))
    rescale_gradients(network)
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        parts = [each[name] for each in alone if name in each]
        count = 1 if ".head." in name else 3 - int(name.split(".")[1])
        assert torch.allclose(parameter.grad, torch.stack(parts).sum(0) / count, atol=1e-5), name


def test_exits_without_weight_get_nothing() -> None:
    losses = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
    weighted_loss(losses, (0.0, 1.0, 1.0)).backward()  # type: ignore[no-untyped-call]
    assert losses.grad is not None
    assert losses.grad.tolist() == [0.0, 0.5, 0.5]


def test_values_are_learnt_with_their_error() -> None:
    network = attach_exits(vit(CONFIG, seed=0), after=[1], branch="linear", task="regression")
    source = ItemBatches(sides(128, values=True), seed=0, mirror=False)
    config = TrainingConfig(samples=2400, batch_size=32)
    end = train(network, source, config, clock_s=clock(), progress=lambda _: None)
    with torch.no_grad():
        value, spread = run_exits(network, torch.from_numpy(sides(128).images))[-1].unbind(1)
    error = (value - torch.from_numpy(sides(128).targets)).abs()
    assert error.mean() < 0.15
    assert spread.min() > 0
    assert len(end.losses) == 2


@pytest.mark.parametrize(
    ("samples", "objective", "words"),
    [
        (Samples(sides().images, sides().targets + 1, "x"), Objective(), "class 2"),
        (sides(values=True), Objective(), "value and spread|values"),
        (sides(values=True), Objective(distillation=SelfDistillation()), "classes, not values"),
    ],
)
def test_data_that_do_not_fit_the_network_are_refused(
    samples: Samples, objective: Objective, words: str
) -> None:
    network = vit(CONFIG, seed=0)
    if "values" in words and objective.distillation is None:
        network = vit(replace(CONFIG, num_classes=3), seed=0)
    source = ItemBatches(samples, seed=0, mirror=False)
    with pytest.raises(ConfigError, match=words):
        train(network, source, SHORT, clock_s=clock(), progress=lambda _: None, objective=objective)


def test_a_loss_that_is_no_number_stops_before_it_harms() -> None:
    network = vit(CONFIG, seed=0)
    images = sides().images.copy()
    images[:] = np.nan
    source = ItemBatches(Samples(images, sides().targets, "broken"), seed=0, mirror=False)
    with pytest.raises(TrainingDiverged, match="batch 0") as caught:
        train(network, source, SHORT, clock_s=clock(), progress=lambda _: None)
    assert caught.value.fix is not None
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())


class Killed(Exception):
    """Somebody pulled the plug."""


class Dying(ItemBatches):
    """A source whose process dies before batch 7."""

    def batch(self, number: int, size: int) -> Samples:
        if number == 7:
            raise Killed
        return super().batch(number, size)


@pytest.mark.parametrize("optimizer", ["muon", "sgd"])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, optimizer: str) -> None:
    config = TrainingConfig(
        samples=192, batch_size=16, ema_decay=0.9, optimizer="sgd" if optimizer == "sgd" else "muon"
    )
    objective = Objective(method=BackboneFirst(0.3))
    whole, cut = vit(CONFIG, seed=0), vit(CONFIG, seed=0)
    run(whole, objective, config)
    where = Snapshots(tmp_path / "run" / "snapshot.pt", key="a", every_s=3.0)

    def go(source: ItemBatches, told: list[TrainingProgress]) -> None:
        train(
            cut, source, config, clock_s=clock(), progress=told.append, objective=objective, snapshots=where
        )

    with pytest.raises(Killed):
        go(Dying(sides(), seed=0, mirror=False), [])
    cut = vit(CONFIG, seed=5)  # a new process knows nothing of the weights
    told: list[TrainingProgress] = []
    go(ItemBatches(sides(), seed=0, mirror=False), told)
    assert told[-1].samples == 192
    for a, b in zip(whole.state_dict().values(), cut.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert [each.name for each in where.path.parent.iterdir()] == ["snapshot.pt"]


@pytest.mark.parametrize("damage", ["cut", "noise", "key", "network"])
def test_a_snapshot_that_cannot_be_used_is_refused(tmp_path: Path, damage: str) -> None:
    where = Snapshots(tmp_path / "s.pt", key="a", every_s=1.0)
    source = ItemBatches(sides(), seed=0, mirror=False)
    other = replace(CONFIG, embed_dim=16)
    made = vit(other if damage == "network" else CONFIG, seed=0)
    train(made, source, SHORT, clock_s=clock(), progress=lambda _: None, snapshots=where)
    whole = where.path.read_bytes()
    if damage == "cut":
        where.path.write_bytes(whole[: len(whole) // 2])
    elif damage == "noise":
        where.path.write_bytes(b"\x80\x02cposix\nsystem\n" * 9)
    again = Snapshots(where.path, key="b" if damage == "key" else "a")
    with pytest.raises(DataError, match=r"s\.pt") as caught:
        train(vit(CONFIG, seed=0), source, SHORT, clock_s=clock(), progress=lambda _: None, snapshots=again)
    assert caught.value.fix is not None


def test_the_average_is_what_is_left_in_the_network() -> None:
    plain, averaged = vit(CONFIG, seed=0), vit(CONFIG, seed=0)
    run(plain, Objective())
    run(averaged, Objective(), TrainingConfig(samples=96, batch_size=16, ema_decay=0.99))
    pairs = zip(plain.parameters(), averaged.parameters(), strict=True)
    assert not any(torch.equal(a, b) for a, b in pairs if a.ndim > 1)
