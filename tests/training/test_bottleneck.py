"""Bottlenecks: bits have a price and a gradient, and training keeps what the deeper exits need."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn

from edgeexit.errors import ConfigError, UnsupportedModel
from edgeexit.models.grid import square_grid
from edgeexit.models.packers import Bottleneck, pooling
from edgeexit.models.protocol import IMAGE, State
from edgeexit.models.windows import quantise
from edgeexit.training.bottleneck import (
    BottleneckProgress,
    BottleneckTraining,
    bits_per_row,
    train_bottleneck,
)
from edgeexit.training.bottleneck_start import start_bottleneck
from edgeexit.training.boundary_samples import boundary_samples
from edgeexit.training.data import Samples

pytestmark = pytest.mark.convert


class First(nn.Module):
    """Tokens of an image, more of them than channels matter."""

    def __init__(self, tensors: int = 1) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 16)
        self.tensors = tensors

    def forward(self, state: State) -> tuple[State, Tensor]:
        patches = state[IMAGE].flatten(2).transpose(1, 2).reshape(-1, 4, 4)  # B 1 4 4 -> B 4 4
        tokens = self.embed(patches)
        return {f"tokens{index or ''}": tokens for index in range(self.tensors)}, tokens.mean(dim=1)[:, :3]


class Last(nn.Module):
    """Looks at a few directions of the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 3)

    def forward(self, state: State) -> tuple[State, Tensor]:
        tokens = next(iter(state.values()))
        return {}, 8.0 * self.head(tokens).mean(dim=1)


class Network:
    def __init__(self, tensors: int = 1) -> None:
        self.stages = nn.ModuleList([First(tensors), Last()])


class Noise:
    def batch(self, number: int, size: int) -> Samples:
        generator = torch.Generator().manual_seed(number)
        images = torch.rand((size, 1, 4, 4), generator=generator)
        return Samples(
            images=images.numpy(), targets=torch.zeros(size, dtype=torch.long).numpy(), name="noise"
        )


def test_training_keeps_what_the_last_exit_needs_and_leaves_the_network_alone() -> None:
    torch.manual_seed(1)
    network, bottleneck = Network(), Bottleneck(16, 4)
    before = [parameter.clone() for parameter in network.stages.parameters()]
    told: list[BottleneckProgress] = []
    ticks = iter(range(0, 100_000, 6))
    end = train_bottleneck(
        network,
        1,
        bottleneck,
        Noise(),
        BottleneckTraining(samples=3_200, batch_size=32),
        clock_s=lambda: float(next(ticks)),
        progress=told.append,
    )
    assert end.fraction == 1.0
    assert end.samples == 3_200
    assert sum(state.distillation for state in told[-30:]) < 0.5 * sum(
        state.distillation for state in told[:30]
    )
    assert all(map(torch.equal, before, network.stages.parameters()))
    assert all(parameter.requires_grad for parameter in network.stages.parameters())
    assert not bottleneck.training


def test_before_any_training_a_bottleneck_keeps_what_the_last_exit_feels() -> None:
    torch.manual_seed(1)
    network, fresh, started = Network(), Bottleneck(16, 4), Bottleneck(16, 4)
    samples = boundary_samples(
        network, 1, Noise(), most=256, most_bytes=2**20, batch_size=32, device=torch.device("cpu")
    )
    assert len(samples) == 256
    assert samples.tokens.dtype == torch.float16
    start_bottleneck(started, network, 1, samples, seed=0)
    tokens = samples.tokens.float()
    with torch.no_grad():
        lost = [
            float(
                (network.stages[1]({"tokens": made.unpack(numbers)})[1] - samples.answers[-1]).square().mean()
            )
            for made in (fresh, started)
            for numbers in [quantise(made.pack(tokens))]
        ]
        # Eight values in place of sixteen numbers and more: three directions are all that the exit looks at.
        narrow = quantise(started.pack(tokens)) * (torch.arange(32) < 8)
        answers = network.stages[1]({"tokens": started.unpack(narrow)})[1]
    assert lost[1] < 0.05 * lost[0]
    assert (answers - samples.answers[-1]).square().mean() < 0.05 * samples.answers[-1].var()
    # The prior knows how often each number is sent.
    shares = started.levels.detach().exp()
    assert torch.allclose(shares.sum(dim=1), torch.ones(32), atol=1e-4)


def test_what_is_kept_of_a_boundary_fits_into_the_memory_given() -> None:
    few = boundary_samples(
        Network(), 1, Noise(), most=256, most_bytes=64 * 4 * 16 * 2, batch_size=32, device=torch.device("cpu")
    )
    assert len(few) == 64
    assert [answer.shape for answer in few.answers] == [(64, 3)]


def test_bits_cost_less_under_a_prior_that_expects_them() -> None:
    values = torch.zeros(2, 3, 1, requires_grad=True)
    flat = torch.zeros(1, 16)
    assert float(bits_per_row(values, flat).detach()) == pytest.approx(4.0)
    peaked = flat.clone()
    peaked[0, 8] = 5.0  # of -8 … 7 the ninth is zero
    assert float(bits_per_row(values, peaked).detach()) < 1.0
    near = torch.full((1, 1, 1), 0.6, requires_grad=True)
    bits_per_row(near, peaked).backward()  # type: ignore[no-untyped-call]
    assert near.grad is not None
    assert float(near.grad) > 0.0  # away from what is expected costs more


def test_numbers_are_whole_forwards_and_smooth_backwards() -> None:
    values = torch.tensor([-20.0, -0.4, 0.6, 3.2, 20.0], requires_grad=True)
    rounded = quantise(values)
    assert rounded.tolist() == [-8.0, 0.0, 1.0, 3.0, 7.0]
    rounded.sum().backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None
    assert values.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]


def test_a_boundary_of_two_tensors_has_no_bottleneck() -> None:
    config = BottleneckTraining(samples=32)
    with pytest.raises(ConfigError):
        train_bottleneck(Network(2), 1, Bottleneck(16, 4), Noise(), config, clock_s=time.monotonic)


def test_pooling_keeps_what_is_smooth_and_every_prefix_token() -> None:
    assert [square_grid(count) for count in (4, 17, 197, 198, 261)] == [
        *((0, 2), (1, 4), (1, 14), (2, 14), (5, 16))
    ]
    with pytest.raises(UnsupportedModel):
        square_grid(15)
    for side in (4, 7, 14):
        made = pooling("tokens", 1 + side * side, 1)
        tokens = torch.full((1, 1 + side * side, 3), 0.5)
        tokens[:, 0] = 9.0
        packed = made.pack(tokens=tokens)["pool4"]
        half = -(-side // 2)
        assert packed.shape == (1, 1 + half * half, 3)
        assert torch.allclose(made.unpack(pool4=packed)["tokens"], tokens, atol=1e-6)
