"""A network of your own: three exits on the digits of scikit-learn, trained, converted and run.

    python examples/own_model.py [FOLDER]

All that is asked of a network is `stages`: stage k maps named tensors to those of stage k + 1, and to what
exit k says. The bundle goes to FOLDER/digits (build/examples without it).
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeexit.bundle import open_bundle
from edgeexit.convert.conversion import convert
from edgeexit.convert.plan import ConversionPlan
from edgeexit.convert.progress import ProgressLines
from edgeexit.convert.report import render
from edgeexit.models.protocol import State, run_exits
from edgeexit.runner.preprocess import input_tensors
from edgeexit.runner.protocol import Tensors
from edgeexit.runner.selection import open_verified
from edgeexit.training.data import Samples, digits

STEPS, BATCH = 200, 64


class Stage(nn.Module):
    """One convolution that halves the image, and an exit that sees it three by three."""

    def __init__(self, takes: str, gives: str | None, channels: tuple[int, int], pool: int) -> None:
        super().__init__()
        self.takes, self.gives = takes, gives
        self.conv = nn.Conv2d(*channels, kernel_size=3, stride=2, padding=1)
        self.exit = nn.Sequential(nn.AvgPool2d(pool), nn.Flatten(), nn.Linear(9 * channels[1], 10))

    def forward(self, state: State) -> tuple[State, Tensor]:
        features = torch.relu(self.conv(state[self.takes]))  # B C H W -> B D H/2 W/2
        logits: Tensor = self.exit(features)  # B D h w -> B 10
        return {} if self.gives is None else {self.gives: features}, logits


class OwnNetwork(nn.Module):
    """Three stages: any nn.Module with such a list can be converted."""

    def __init__(self) -> None:
        super().__init__()
        # The image has 24 × 24 pixels, so that the stages give 12 × 12, 6 × 6 and 3 × 3.
        self.stages = nn.ModuleList(
            (Stage("image", "a", (1, 8), 4), Stage("a", "b", (8, 16), 2), Stage("b", None, (16, 32), 1))
        )


def train(network: OwnNetwork, data: Samples) -> None:
    """All exits at once: the sum of their losses."""
    images, targets = torch.from_numpy(data.images), torch.from_numpy(data.targets)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(STEPS):
        batch = torch.randint(0, len(targets), (BATCH,))
        outputs = run_exits(network, images[batch])
        loss = torch.stack([nn.functional.cross_entropy(each, targets[batch]) for each in outputs]).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()


def main(folder: str = "build/examples") -> None:
    data = digits()
    torch.manual_seed(0)
    network = OwnNetwork()
    train(network, data.train)
    report = convert(
        network,
        ConversionPlan(
            name="digits",
            version="1.0.0",
            network="three convolutions",
            dataset="scikit-learn's digits",
            licence="MIT",
            labels=data.classes,
        ),
        calibration=data.calibration,
        test=data.test,
        out=Path(folder) / "digits",
        progress=ProgressLines(print),
    )
    print(render(report))

    bundle = open_bundle(Path(folder) / "digits")
    runner, _ = open_verified(bundle)
    manifest = bundle.manifest
    for number, image in enumerate(data.test.pixels()[:5]):
        tensors: Tensors = input_tensors(image[0], manifest.preprocessing, manifest.boundaries[0].tensors[0])
        said: list[str] = []
        for stage in range(runner.stage_count):
            given = runner.run(stage, tensors)
            tensors = given.boundary
            said.append(f"exit {stage} says {manifest.labels[int(given.output.argmax())]}")
        print(f"a {data.test.targets[number]}: {', '.join(said)}")
    print(f"try: edgeexit inspect {folder}/digits")


if __name__ == "__main__":
    main(*sys.argv[1:])
