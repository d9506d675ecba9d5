"""A tiny network, tiny data, and one real conversion that the tests share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeexit.convert.conversion import convert
from edgeexit.convert.lowering import LiteRTTorch
from edgeexit.convert.plan import ConversionPlan
from edgeexit.convert.progress import Step
from edgeexit.convert.report import ConversionReport
from edgeexit.convert.slicing import SlicedStage
from edgeexit.models.vit import VisionTransformer, ViTConfig, vit

LABELS = ("top", "bottom", "left", "right")


@dataclass(frozen=True)
class TinySet:
    images: NDArray[np.uint8]
    targets: NDArray[np.int64]


class RecordedLowering:
    """Lowers each stage once and gives the same file again: failures can then be staged in no time."""

    def __init__(self) -> None:
        self.files: dict[int, bytes] = {}
        self._real = LiteRTTorch()

    @property
    def tools(self) -> tuple[str, ...]:
        return self._real.tools

    def lower(self, stage: SlicedStage, tensors: Mapping[str, NDArray[np.generic]]) -> bytes:
        if stage.index not in self.files:
            self.files[stage.index] = self._real.lower(stage, tensors)
        return self.files[stage.index]


@dataclass(frozen=True)
class Converted:
    network: VisionTransformer
    plan: ConversionPlan
    calibration: TinySet
    test: TinySet
    out: Path
    report: ConversionReport
    lowering: RecordedLowering
    told: tuple[Step, ...]


def tiny_set(count: int, seed: int) -> TinySet:
    """Noise with one brighter half: up, down, left or right."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, len(LABELS), count)
    images = rng.integers(0, 128, (count, 1, 8, 8)).astype(np.uint8)
    halves = (np.s_[:4, :], np.s_[4:, :], np.s_[:, :4], np.s_[:, 4:])
    for image, target in zip(images, targets, strict=True):
        image[0][halves[target]] += 100
    return TinySet(images, targets)


def make_network() -> VisionTransformer:
    """Three stages with random weights; larger than at the start of training, so that exits differ."""
    import torch

    network = vit(
        ViTConfig(
            img_size=8,
            patch_size=2,
            in_chans=1,
            num_classes=len(LABELS),
            embed_dim=16,
            depth=3,
            num_heads=2,
            exits=(1, 2, 3),
            mean=(0.5,),
            std=(0.25,),
            head_hidden_dims=(),
        ),
        seed=3,
    )
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return network


@pytest.fixture(scope="session")
def tiny_network() -> VisionTransformer:
    return make_network()


def make_plan() -> ConversionPlan:
    return ConversionPlan(
        name="tiny-vit",
        version="0.1.0",
        network="ViT, dim 16, depth 3",
        dataset="brighter halves",
        licence="MIT",
        labels=LABELS,
        codec_samples=64,
        workers=1,
    )


@pytest.fixture(scope="session")
def tiny_plan() -> ConversionPlan:
    return make_plan()


@pytest.fixture(scope="session")
def converted(
    tiny_network: VisionTransformer, tiny_plan: ConversionPlan, tmp_path_factory: pytest.TempPathFactory
) -> Converted:
    """One whole conversion, done once for all tests."""
    told: list[Step] = []
    lowering = RecordedLowering()
    calibration, test = tiny_set(256, 1), tiny_set(96, 2)
    out = tmp_path_factory.mktemp("bundles") / "tiny"
    report = convert(
        tiny_network,
        tiny_plan,
        calibration=calibration,
        test=test,
        out=out,
        progress=told.append,
        lowering=lowering,
    )
    return Converted(tiny_network, tiny_plan, calibration, test, out, report, lowering, tuple(told))
