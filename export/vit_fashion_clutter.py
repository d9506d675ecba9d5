"""Recipe: a ViT with four exits that names the garment on a cluttered canvas, made from Fashion-MNIST.

Each canvas shows one whole item somewhere, among scraps of other items. All pixels are real ones; test
canvases are made of test items only, calibration canvases of items that training never saw.

    python export/vit_fashion_clutter.py --out build/bundle --work build/work

Copy this file to put a network of your own on a board: what a bundle needs is a network that keeps
edgeexit.models.protocol, held-out images with their answers, and the call of `convert` below.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from edgeexit.convert.conversion import convert
from edgeexit.convert.plan import ConversionPlan
from edgeexit.convert.progress import ProgressLines
from edgeexit.convert.report import render
from edgeexit.errors import DataError, EdgeExitError
from edgeexit.models.cost import cumulative_macs, stage_costs
from edgeexit.models.description import Description
from edgeexit.models.vit import VisionTransformer, ViTConfig, vit
from edgeexit.training.batches import ClutterBatches
from edgeexit.training.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint, settings_key
from edgeexit.training.clutter import Clutter, clutter_set
from edgeexit.training.data import FASHION_MNIST_ROOT, Samples, Splits, digits, fashion_mnist
from edgeexit.training.evaluation import exit_accuracies, exit_logits
from edgeexit.training.images import write_images
from edgeexit.training.loop import TrainingConfig, TrainingProgress, train
from edgeexit.training.stored import describing_notes


@dataclass(frozen=True, slots=True)
class Size:
    """One size of this recipe. Units: calibration and test, at most so many canvases."""

    name: str
    network: ViTConfig
    clutter: Clutter
    training: TrainingConfig
    calibration: int
    test: int
    codec_samples: int


FULL = Size(
    name="vit-fashion-clutter",
    network=ViTConfig(
        img_size=32,
        patch_size=4,
        in_chans=1,
        num_classes=10,
        embed_dim=96,
        depth=8,
        num_heads=3,
        exits=(1, 3, 5, 8),
        # Of the training canvases.
        mean=(0.28,),
        std=(0.35,),
        head_hidden_dims=(64,),
        stem_dims=(16, 32),
    ),
    clutter=Clutter(canvas=32, scrap=10, under=3, over=1),
    # About what two idle x86 cores do in the seconds given; a slower machine stops at the seconds. The whole
    # of it gives 73, 77, 78 and 78 % on the test canvases, exit by exit.
    training=TrainingConfig(samples=75_000, seconds=270.0),
    calibration=5000,
    test=10_000,
    codec_samples=500,
)

# For continuous integration: every step is real, but small enough to be done within a minute. Its stages
# still take long enough that a board which plays a slower one has something to decide.
TINY = Size(
    name="vit-fashion-clutter-tiny",
    network=replace(
        FULL.network, embed_dim=48, depth=6, exits=(1, 2, 4, 6), head_hidden_dims=(32,), stem_dims=(8, 16)
    ),
    clutter=replace(FULL.clutter, under=1, over=0),
    training=TrainingConfig(samples=8_000, seconds=90.0),
    calibration=600,
    test=600,
    codec_samples=64,
)


def main(arguments: list[str] | None = None) -> int:
    """Run the recipe; the exit code."""
    options = _parser().parse_args(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    size = TINY if options.tiny else FULL
    training = replace(size.training, seed=options.seed)
    if options.train_seconds is not None:
        training = replace(training, seconds=options.train_seconds)
    try:
        _run(replace(size, training=training), options)
    except EdgeExitError as error:
        parts = (("what", error.what), ("why", error.why), ("fix", error.fix))
        sys.stderr.write("".join(f"{word}: {text}\n" for word, text in parts if text))
        return 1
    return 0


def _run(size: Size, options: argparse.Namespace) -> None:
    splits = load(options.data)
    say(f"data       {splits.train.name}: {len(splits.train):,} items to learn from")
    calibration = clutter_set(splits.calibration.take(slice(0, size.calibration)), size.clutter, seed=1)
    test = clutter_set(splits.test.take(slice(0, size.test)), size.clutter, seed=2)

    network = vit(size.network, seed=size.training.seed)
    digest = train_or_load(network, splits, size, options.work)
    describe(network, test)

    plan = ConversionPlan(
        name=size.name,
        version="1.0.0",
        network=str(Description("vit", size.network)),
        dataset=f"{splits.train.name}, cluttered canvases of {size.clutter.canvas} × {size.clutter.canvas}",
        licence="MIT",
        labels=splits.classes,
        checkpoint_sha256=digest,
        recipe_sha256=hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        codec_samples=size.codec_samples,
    )
    progress = ProgressLines(say)
    say(
        render(convert(network, plan, calibration=calibration, test=test, out=options.out, progress=progress))
    )
    if options.images is not None:
        count = write_images(test, options.images, count=options.image_count)
        say(f"images     {count:,} test canvases in {options.images}")


def load(root: Path | None) -> Splits:
    """The items: Fashion-MNIST of the directory given or installed, else digits with a warning.

    Raises: DataError when a directory was given and cannot be used.
    """
    if root is not None:
        return fashion_mnist(root)
    try:
        return fashion_mnist(FASHION_MNIST_ROOT)
    except DataError as error:
        say(
            f"warning    {error}; {error.fix}",
            "warning    going on with scikit-learn's digits: another, easier task",
        )
        return digits()


def train_or_load(network: VisionTransformer, splits: Splits, size: Size, work: Path) -> str:
    """Weights of an earlier run with the same settings, else of a training run; the checkpoint's SHA-256."""
    key = settings_key([size.network, size.clutter, size.training], [splits.train])
    path = checkpoint_path(work, size.name, key)
    try:
        digest = load_checkpoint(network, path, key=key)
    except DataError as error:
        say(f"warning    {error}; training again")
        digest = None
    if digest is not None:
        say(f"train      already done: {path}")
        return digest
    seconds = size.training.seconds
    limit = "" if seconds is None else f", {seconds:.0f} s at most"
    say(f"train      {size.training.samples:,} canvases{limit}, {torch.get_num_threads()} threads")
    # Clothes stay what they are in a mirror, digits do not.
    mirror = splits.train.name == "fashion-mnist"
    source = ClutterBatches(splits.train, seed=size.training.seed, mirror=mirror, clutter=size.clutter)
    end = train(network, source, size.training, clock_s=time.monotonic, progress=_tell)
    notes = {"samples": str(end.samples), "name": size.name}
    notes |= describing_notes(network, labels=splits.classes)
    return save_checkpoint(network, path, key=key, notes=notes)


def describe(network: VisionTransformer, test: Samples) -> None:
    """What each exit costs, and how often the float network is right there."""
    costs = stage_costs(network, torch.from_numpy(test.images[:1]))
    accuracies = exit_accuracies(exit_logits(network, test), test.targets)
    say(f"evaluate   float network on {len(test):,} test canvases")
    for k, (macs, accuracy) in enumerate(zip(cumulative_macs(costs), accuracies, strict=True)):
        say(f"           exit {k}: {accuracy:7.2%} right, {macs / 1e6:6.1f} M multiply-adds")


def _tell(progress: TrainingProgress) -> None:
    rate = progress.samples / max(progress.elapsed_s, 1e-3)
    losses = " ".join(f"{loss:.3f}" for loss in progress.losses)
    done = f"{progress.fraction:4.0%}  {progress.samples:>7,} canvases  {rate:5.0f}/s"
    say(f"train      {done}  loss by exit {losses}")


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
    parser.add_argument("--work", type=Path, default=Path("build/work"), help="where checkpoints are kept")
    parser.add_argument("--data", type=Path, help="directory with the four IDX files")
    parser.add_argument("--images", type=Path, help="also write test canvases as PNG files, here")
    parser.add_argument("--image-count", type=_count, default=2000, help="how many of them")
    parser.add_argument("--train-seconds", type=_positive, help="train no longer than this")
    parser.add_argument("--tiny", action="store_true", help="a small network on few images, within a minute")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=_count, help="for training; all cores when left out")
    return parser


if __name__ == "__main__":
    sys.exit(main())
