"""Recipe: timm's DeiT-Tiny with three early exits, its branches trained on Fashion-MNIST.

The backbone stays as it was published: what it computes is, bit by bit, what timm computes. Only the exits
are new. Weights are yours to bring, or timm fetches them:

    python export/deit_tiny_timm.py --checkpoint deit_tiny_patch16_224.safetensors --out build/deit-tiny
    python export/deit_tiny_timm.py --download --out build/deit-tiny
    python export/deit_tiny_timm.py --tiny --out build/deit-tiny-tiny

To put a model of your own on a board, replace `attached` and the data. It needs
`pip install 'edgeexit[models]'`.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edgeexit.convert.conversion import convert
from edgeexit.convert.plan import ConversionPlan
from edgeexit.convert.progress import ProgressLines
from edgeexit.convert.report import render
from edgeexit.errors import ConfigError, DataError, EdgeExitError
from edgeexit.models.attach import attach_exits
from edgeexit.models.attached import AttachedNetwork
from edgeexit.models.branch_config import BRANCH_KINDS
from edgeexit.models.cost import branch_costs, cumulative_macs, stage_costs
from edgeexit.models.description import read_description
from edgeexit.models.torchvision_operators import make_importable
from edgeexit.training.batches import ItemBatches
from edgeexit.training.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint, settings_key
from edgeexit.training.data import FASHION_MNIST_ROOT, Samples, Splits, digits, fashion_mnist
from edgeexit.training.evaluation import exit_accuracies, exit_logits
from edgeexit.training.loop import TrainingConfig, TrainingProgress, train
from edgeexit.training.stored import describing_notes

ARCHITECTURE = "deit_tiny_patch16_224"


@dataclass(frozen=True, slots=True)
class Size:
    """One size of this recipe. Units: image_size, pixels a side; calibration and test, items at most."""

    name: str
    image_size: int
    after: tuple[int, ...]
    training: TrainingConfig
    calibration: int
    test: int
    int8: bool


FULL = Size(
    name="deit-tiny-fashion",
    image_size=224,
    after=(3, 6, 9),
    # Enough to see the way; the branches go on gaining from more. Rate and schedule are the loop's own.
    training=TrainingConfig(samples=6_000, batch_size=32),
    calibration=1000,
    test=1000,
    int8=True,
)

# For continuous integration: every step is real, the network small and random.
TINY = Size(
    name="deit-tiny-fashion-tiny",
    image_size=32,
    after=(1,),
    training=TrainingConfig(samples=256, batch_size=32),
    calibration=64,
    test=32,
    int8=False,
)


@dataclass(frozen=True, slots=True)
class Enlarged:
    """Training batches of grey items, in colour and as large as the network wants them."""

    source: ItemBatches
    image_size: int

    def batch(self, number: int, size: int) -> Samples:
        """Batch `number`, from 0."""
        samples = self.source.batch(number, size)
        return replace(samples, images=enlarged(samples.images, self.image_size))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the recipe; the exit code."""
    options = _parser().parse_args(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    size = TINY if options.tiny else FULL
    training = replace(size.training, seed=options.seed, seconds=options.train_seconds)
    try:
        _run(replace(size, training=training), options)
    except EdgeExitError as error:
        parts = (("what", error.what), ("why", error.why), ("fix", error.fix))
        sys.stderr.write("".join(f"{word}: {text}\n" for word, text in parts if text))
        return 1
    return 0


def _run(size: Size, options: argparse.Namespace) -> None:
    splits = load(options.data)
    calibration = some(splits.calibration, size.calibration, size.image_size)
    test = some(splits.test, size.test, size.image_size)
    network = attached(size, len(splits.classes), options)
    digest = train_or_load(network, splits, size, options.work)
    describe(network, test)
    plan = ConversionPlan(
        name=size.name,
        version="1.0.0",
        network=str(read_description(describing_notes(network)["network"])),
        dataset=f"{splits.train.name}, {size.image_size} × {size.image_size}",
        licence="Apache-2.0 (weights), MIT (data)",
        labels=splits.classes,
        checkpoint_sha256=digest,
        recipe_sha256=hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        variants=("f32", "int8") if size.int8 else ("f32",),
        codec_samples=min(size.calibration, 64),
    )
    progress = ProgressLines(say)
    say(
        render(convert(network, plan, calibration=calibration, test=test, out=options.out, progress=progress))
    )


def attached(size: Size, classes: int, options: argparse.Namespace) -> AttachedNetwork:
    """DeiT-Tiny with exits, its ImageNet head replaced by one for these classes.

    Raises: ConfigError when there are no weights, DataError when they cannot be read.
    """
    model: torch.nn.Module | str = ARCHITECTURE
    if options.tiny:
        model = tiny_model(size, options.seed)
    elif options.checkpoint is None and not options.download:
        raise ConfigError(
            "no weights are given",
            key="checkpoint",
            why="nothing is fetched unless it is asked for",
            fix="give --checkpoint FILE, or --download; --tiny shows the way with random weights",
        )
    return attach_exits(
        model,
        size.after,
        options.branch,
        classes=classes,
        final="linear",
        checkpoint=None if options.tiny else options.checkpoint,
        download=not options.tiny and options.checkpoint is None,
        seed=options.seed,
    )


def tiny_model(size: Size, seed: int) -> torch.nn.Module:
    """The same architecture, small and with random weights."""
    make_importable()
    import timm

    torch.manual_seed(seed)
    model: torch.nn.Module = timm.create_model(
        ARCHITECTURE, img_size=size.image_size, patch_size=8, embed_dim=24, depth=3, num_heads=3
    )
    return model


def load(root: Path | None) -> Splits:
    """The items: Fashion-MNIST of the directory given or installed, else digits with a warning.

    Raises: DataError when a directory was given and cannot be used.
    """
    if root is not None:
        return fashion_mnist(root)
    try:
        return fashion_mnist(FASHION_MNIST_ROOT)
    except DataError as error:
        say(f"warning    {error}; {error.fix}", "warning    going on with scikit-learn's digits")
        return digits()


def some(samples: Samples, count: int, image_size: int) -> Samples:
    """The first `count` items, enlarged."""
    few = samples.take(slice(0, count))
    return replace(few, images=enlarged(few.images, image_size))


def enlarged(images: NDArray[np.float32], image_size: int) -> NDArray[np.float32]:
    """Grey items in three channels, each pixel repeated or left out to fill the size.

    Shapes: (N, 1, h, w) to (N, 3, image_size, image_size).
    """
    rows, columns = (np.arange(image_size) * side // image_size for side in images.shape[2:])
    fitted = images[:, :, rows][:, :, :, columns]  # N 1 h w -> N 1 s s
    return np.ascontiguousarray(fitted.repeat(3, axis=1))  # N 1 s s -> N 3 s s


def train_or_load(network: AttachedNetwork, splits: Splits, size: Size, work: Path) -> str:
    """Branches of an earlier run on these weights, else of a training run; the checkpoint's SHA-256."""
    for parameter in network.backbone_parameters():
        parameter.requires_grad_(False)
    weights = hashlib.sha256()
    for tensor in network.state_dict().values():
        weights.update(tensor.numpy().tobytes())
    key = settings_key([network.config, size.training, weights.hexdigest()], [splits.train])
    path = checkpoint_path(work, size.name, key)
    try:
        digest = load_checkpoint(network, path, key=key)
    except DataError as error:
        say(f"warning    {error}; training again")
        digest = None
    if digest is not None:
        say(f"train      already done: {path}")
        return digest
    say(f"train      branches on {size.training.samples:,} items, the backbone stays as it is")
    # Clothes stay what they are in a mirror, digits do not.
    items = ItemBatches(splits.train, seed=size.training.seed, mirror=splits.train.name == "fashion-mnist")
    train(network, Enlarged(items, size.image_size), size.training, clock_s=time.monotonic, progress=_tell)
    return save_checkpoint(
        network, path, key=key, notes={"name": size.name} | describing_notes(network, labels=splits.classes)
    )


def describe(network: AttachedNetwork, test: Samples) -> None:
    """What each exit and its branch cost, and how often the float network is right there."""
    image = torch.from_numpy(test.images[:1])
    totals = cumulative_macs(stage_costs(network, image))
    branches = branch_costs(network, network.branches, image)
    accuracies = exit_accuracies(exit_logits(network, test), test.targets)
    say(f"evaluate   float network on {len(test):,} test items")
    for k, (macs, branch, accuracy) in enumerate(zip(totals, branches, accuracies, strict=True)):
        say(
            f"           exit {k}: {accuracy:7.2%} right, {macs / 1e6:7.1f} M multiply-adds,"
            f" {branch.macs / 1e6:6.2f} M of them and {branch.parameters:,} parameters its branch's"
        )


def _tell(progress: TrainingProgress) -> None:
    losses = " ".join(f"{loss:.3f}" for loss in progress.losses)
    say(f"train      {progress.fraction:4.0%}  {progress.samples:>6,} items  loss by exit {losses}")


def say(*lines: str) -> None:
    """Write lines at once, for people and logs alike."""
    for line in lines:
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(text)
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="where the bundle goes")
    parser.add_argument(
        "--checkpoint", type=Path, help="weights of deit_tiny_patch16_224: safetensors or torch"
    )
    parser.add_argument("--download", action="store_true", help="let timm fetch the weights")
    parser.add_argument(
        "--tiny", action="store_true", help="a small network of random weights, within a minute"
    )
    parser.add_argument("--branch", choices=BRANCH_KINDS, default="mlp", help="of the early exits")
    parser.add_argument("--work", type=Path, default=Path("build/work"), help="where checkpoints are kept")
    parser.add_argument("--data", type=Path, help="directory with the four IDX files")
    parser.add_argument("--train-seconds", type=_positive, help="train no longer than this")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=_count, help="for training; all cores when left out")
    return parser


if __name__ == "__main__":
    sys.exit(main())
