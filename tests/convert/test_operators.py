"""A back end that gets one operator wrong is found out, and the operator is named."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from edgeexit.convert.conversion import convert
from edgeexit.convert.lowering import LiteRTTorch
from edgeexit.convert.noise import quiet_third_party
from edgeexit.convert.operators import first_diverging
from edgeexit.convert.parity import references
from edgeexit.convert.plan import ConversionPlan, network_input
from edgeexit.convert.slicing import SlicedStage, slice_network
from edgeexit.errors import LoweringError, ParityError
from tests.convert.conftest import tiny_set

pytestmark = [pytest.mark.convert, pytest.mark.litert]

Arrays = Mapping[str, NDArray[np.generic]]


class Rewritten(nn.Module):
    """A graph with positional inputs, called by name."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__()
        self.flat = graph
        for module in self.modules():
            module.training = False

    def forward(self, **state: Tensor) -> dict[str, Tensor]:
        given: dict[str, Tensor] = self.flat(**state)
        return given


class BrokenLowering:
    """litert-torch with one operator taken for another, or only where little is asked for at once."""

    def __init__(self, target: str, by: str, *, most_outputs: int | None = None) -> None:
        self.tools = ("broken 1",)
        self.lowered = 0
        self._target = target
        self._by = by
        self._most_outputs = most_outputs

    def lower(self, stage: SlicedStage, tensors: Arrays) -> bytes:
        self.lowered += 1
        outputs = len(stage.following) + 1
        if self._most_outputs is not None and outputs > self._most_outputs:
            raise LoweringError("too many outputs", stage=stage.index)
        given = {
            spec.name: torch.from_numpy(np.ascontiguousarray(tensors[spec.name])) for spec in stage.inputs
        }
        with quiet_third_party():
            graph = torch.export.export(stage.module, (), kwargs=given).module(check_guards=False)
        assert isinstance(graph, fx.GraphModule)
        for node in graph.graph.nodes:
            if str(node.target) == self._target:
                node.target = getattr(torch.ops.aten, self._by).default
                node.kwargs = {}
        graph.recompile()
        return LiteRTTorch().lower(replace(stage, module=Rewritten(graph)), tensors)


class Layers(nn.Module):
    """A convolution, or nothing; a hidden layer and an exit."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.first = first
        self.conv = nn.Conv2d(1, 4, 4, stride=4) if first else nn.Identity()
        self.hidden = nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 16))
        self.head = nn.Linear(16, 4)

    def forward(self, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        features = self.conv(state["image"]).flatten(1) if self.first else state["features"]  # 1 16
        features = features + self.hidden(features)
        return {"features": features} if self.first else {}, self.head(features)


class Little(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([Layers(first=True), Layers(first=False)])


@pytest.fixture(scope="module")
def little() -> Little:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return Little().eval()


Sampled = tuple[SlicedStage, list[Arrays]]


@pytest.fixture(scope="module")
def second(little: Little) -> Sampled:
    """The second stage, and what it is given for three images."""
    images = network_input(tiny_set(3, 9).images)
    stages = slice_network(little, images[:1], task="classification", classes=4)
    return stages[1], [sample[1].inputs for sample in references(stages, images[:, None])]


def test_a_refused_conversion_names_stage_tensor_and_operator(
    little: Little, tiny_plan: ConversionPlan, tmp_path: Path
) -> None:
    with pytest.raises(ParityError) as caught:
        convert(
            little,
            tiny_plan,
            calibration=tiny_set(32, 1),
            test=None,
            out=tmp_path / "tiny",
            lowering=BrokenLowering("aten.gelu.default", "relu"),
        )
    error = caught.value
    assert error.stage == 0
    assert error.tensor in ("features", "logits")
    assert error.operator == "aten.gelu.default in hidden.1"
    assert error.operator in str(error)
    assert list(tmp_path.iterdir()) == []


def test_without_all_results_at_once_beginnings_of_the_stage_are_halved(second: Sampled) -> None:
    broken = BrokenLowering("aten.gelu.default", "relu", most_outputs=1)
    found = first_diverging(*second, broken.lower, tolerance=1e-4)
    assert found == "aten.gelu.default in hidden.1"
    assert broken.lowered < 6


def test_wrong_weights_point_at_the_layer_that_has_them(second: Sampled) -> None:
    class Careless(LiteRTTorch):
        """Loses the bias of one layer."""

        def lower(self, stage: SlicedStage, tensors: Arrays) -> bytes:
            with quiet_third_party():
                spoiled = copy.deepcopy(stage.module)
            with torch.no_grad():
                for name, parameter in spoiled.named_parameters():
                    if name.endswith("hidden.2.bias"):
                        parameter.add_(1.0)
            return super().lower(replace(stage, module=spoiled), tensors)

    found = first_diverging(*second, Careless().lower, tolerance=1e-4)
    assert found == "aten.linear.default in hidden.2"


def test_nothing_is_named_where_everything_agrees(second: Sampled) -> None:
    assert first_diverging(*second, LiteRTTorch().lower, tolerance=1e-4) is None


def test_a_back_end_that_lowers_nothing_names_nothing(second: Sampled) -> None:
    broken = BrokenLowering("aten.gelu.default", "relu", most_outputs=0)
    assert first_diverging(*second, broken.lower, tolerance=1e-4) is None
