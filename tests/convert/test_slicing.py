from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeexit.convert.slicing import slice_network
from edgeexit.errors import UnsupportedModel
from edgeexit.models.vit import VisionTransformer

pytestmark = pytest.mark.convert

IMAGE = np.zeros((1, 1, 8, 8), dtype=np.float32)
State = dict[str, Tensor]


class Network(nn.Module):
    def __init__(self, *stages: nn.Module) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)


class First(nn.Module):
    """Gives two tensors, one of them its input as it came."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 3, bias=False)

    def forward(self, state: State) -> tuple[State, Tensor]:
        flat = state["image"].flatten(1)  # 1 1 8 8 -> 1 64
        return {"flat": flat, "image": state["image"]}, self.fc(flat)


class Last(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 3)

    def forward(self, state: State) -> tuple[State, Tensor]:
        return {}, self.fc(state["flat"] + state["image"].flatten(1))


class Broken(nn.Module):
    """Returns whatever it was made with."""

    def __init__(self, result: object) -> None:
        super().__init__()
        self.result = result

    def forward(self, state: State) -> object:
        return self.result


def test_stages_chain_and_are_counted() -> None:
    first, last = slice_network(Network(First(), Last()), IMAGE, task="classification", classes=3)
    assert [str(spec) for spec in first.following] == ["flat[1, 64] float32", "image[1, 1, 8, 8] float32"]
    assert first.following == last.inputs
    assert last.following == ()
    assert first.output.name == "logits"
    assert (first.parameters, last.parameters) == (64 * 3, 64 * 3 + 3)
    assert (first.macs, last.macs) == (64 * 3, 64 * 3)


def test_attention_is_counted(tiny_network: VisionTransformer) -> None:
    stage = slice_network(tiny_network, IMAGE, task="classification", classes=4)[1]
    tokens, dim = 17, 16
    projections = 12 * tokens * dim * dim  # qkv 3, output 1, MLP 8
    attention = 2 * tokens * tokens * dim
    assert stage.macs == projections + attention + dim * 4


def test_the_network_is_left_as_it_was(tiny_network: VisionTransformer) -> None:
    tiny_network.train()
    try:
        stages = slice_network(tiny_network, IMAGE, task="classification", classes=4)
        assert all(module.training for module in tiny_network.modules())
        assert not any(module.training for stage in stages for module in stage.module.modules())
    finally:
        tiny_network.eval()


ONE = torch.zeros(1, 3)


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ((), "non-empty nn.ModuleList"),
        ((Broken(ONE),), "a pair of"),
        ((Broken(({}, ONE, ONE)),), "a pair of"),
        ((Broken((ONE, ONE)),), "a pair of"),
        ((Broken(({"a": 1}, ONE)),), "a pair of"),
        ((Broken(({}, torch.zeros(1, 4))),), r"an output of \[1, 3\]"),
        ((First(),), "an empty state"),
        ((Broken(({}, ONE)), Broken(({}, ONE))), "named tensors for the next stage"),
        ((Broken(({"two words": ONE}, ONE)), Broken(({}, ONE))), "a name like"),
        ((Broken(({"a": ONE.double()}, ONE)), Broken(({}, ONE))), "one of float32"),
        ((Broken(({"a": torch.zeros(2, 3)}, ONE)), Broken(({}, ONE))), "a batch of 1"),
        ((Broken(({"logits": ONE}, ONE)), Broken(({}, ONE))), "another name"),
        ((Last(),), "a stage that takes these tensors"),
    ],
)
def test_a_network_that_breaks_the_protocol_is_refused(stages: tuple[nn.Module, ...], expected: str) -> None:
    with pytest.raises(UnsupportedModel, match=expected):
        slice_network(Network(*stages), IMAGE, task="classification", classes=3)


def test_no_stages_at_all_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="no stages"):
        slice_network(nn.Linear(1, 1), IMAGE, task="classification", classes=3)  # type: ignore[arg-type]
