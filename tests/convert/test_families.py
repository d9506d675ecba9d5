"""Networks that are no ViT: several tensors between stages, one passed through; regression; the whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeexit.bundle import open_bundle
from edgeexit.convert.conversion import convert
from edgeexit.convert.plan import ConversionPlan, network_input
from edgeexit.convert.whole import exit_name, lower_whole
from edgeexit.models.vit import VisionTransformer
from edgeexit.runner.litert import LiteRTRunner
from edgeexit.runner.runtime import Interpreter, find_runtime

if TYPE_CHECKING:
    from tests.convert.conftest import Converted

pytestmark = [pytest.mark.convert, pytest.mark.litert]

State = dict[str, Tensor]


@dataclass(frozen=True)
class Values:
    images: NDArray[np.float32]
    targets: NDArray[np.float64]


class FeatureStage(nn.Module):
    """A feature map and a latent vector; the map goes on as it is, for the next stage to look at again."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.head = nn.Linear(6, 2)

    def forward(self, state: State) -> tuple[State, Tensor]:
        feature_map = torch.relu(self.conv(state["image"]))  # 1 3 8 8 -> 1 6 4 4
        latent = feature_map.mean(dim=(2, 3))  # 1 6 4 4 -> 1 6
        return {"feature_map": feature_map, "latent": latent}, self.head(latent)


class LatentStage(nn.Module):
    def __init__(self, last: bool) -> None:
        super().__init__()
        self.last = last
        self.mix = nn.Linear(6 * 16 + 6, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, state: State) -> tuple[State, Tensor]:
        feature_map = state["feature_map"]
        flat = torch.cat((feature_map.flatten(1), state["latent"]), dim=1)  # 1 102
        latent = torch.tanh(self.mix(flat))
        output = self.head(latent)
        value_spread = torch.cat((output[:, :1], nn.functional.softplus(output[:, 1:])), dim=1)
        return {} if self.last else {"feature_map": feature_map, "latent": latent}, value_spread


class TwoStreams(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([FeatureStage(), LatentStage(last=False), LatentStage(last=True)])


def test_two_tensors_between_stages_and_a_regression(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network = TwoStreams().eval()
    rng = np.random.default_rng(5)
    images = rng.random((80, 3, 8, 8), dtype=np.float32)
    with torch.no_grad():
        state: State = {"image": torch.from_numpy(images)}
        for stage in network.stages:
            state, output = stage(state)
    # The truth is what the last exit says, and a little noise: deeper is then better.
    targets = output[:, 0].double().numpy() + rng.normal(0.0, 0.01, 80)
    plan = ConversionPlan(
        name="two-streams",
        version="0.1.0",
        network="two streams",
        dataset="noise",
        licence="MIT",
        labels=(),
        task="regression",
        error_scale=0.5,
        variants=("f32", "f16"),
        codec_samples=16,
    )
    report = convert(network, plan, calibration=Values(images, targets), test=None, out=tmp_path / "two")
    bundle = open_bundle(tmp_path / "two", expected_digest=report.digest)
    manifest = bundle.manifest
    assert [spec.name for spec in manifest.boundaries[1].tensors] == ["feature_map", "latent"]
    assert manifest.boundaries[1].tensors[0].shape == (1, 6, 4, 4)
    assert manifest.exits[2].output.name == "value_spread"
    assert manifest.exits[2].accuracy_float > 0.95
    assert manifest.exits[0].accuracy_float < manifest.exits[2].accuracy_float
    assert manifest.preprocessing.color == "rgb"
    with LiteRTRunner(bundle, {0: "f16", 1: "f16", 2: "f16"}) as runner:
        first = runner.run(0, {"image": images[:1]})
        second = runner.run(1, first.boundary)
        np.testing.assert_array_equal(second.boundary["feature_map"], first.boundary["feature_map"])
        third = runner.run(2, second.boundary)
    np.testing.assert_allclose(third.output, output[0].numpy(), atol=0.02)


def indices(interpreter: Interpreter) -> tuple[dict[str, int], dict[str, int]]:
    """Where inputs and outputs lie; the details themselves must be gone before the graph is run."""
    signature = interpreter.get_signature_runner("serving_default")
    taken, given = signature.get_input_details(), signature.get_output_details()
    return (
        {name: int(str(entry["index"])) for name, entry in taken.items()},
        {name: int(str(entry["index"])) for name, entry in given.items()},
    )


def test_the_unsplit_network_gives_every_exit(
    tiny_network: VisionTransformer, converted: Converted, tmp_path: Path
) -> None:
    image = network_input(converted.test.images[:1])
    file = lower_whole(tiny_network, image, tmp_path / "whole.tflite")
    interpreter = find_runtime().make(file, 1)
    interpreter.allocate_tensors()
    taken, given = indices(interpreter)
    interpreter.set_tensor(taken["image"], image)
    interpreter.invoke()
    with torch.no_grad():
        expected = tiny_network(torch.from_numpy(image))
    for k, logits in enumerate(expected):
        got = interpreter.get_tensor(given[exit_name(k)]).astype(np.float32)
        np.testing.assert_allclose(got, logits.numpy(), atol=1e-4)
