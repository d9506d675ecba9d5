"""What each boundary costs to send: accuracy at the last exit against bytes, beside image files of the input.

    python -m benchmarks.boundaries [--quick] [--samples N] [--minutes M] [--page]

The network is a small ViT with three exits on canvases of 224 × 224 pixels (`benchmarks/_canvas.py`); it and
the bottlenecks of its boundaries are trained once, and kept under build/. Every payload is made by the files
and codecs that devices use, its bytes are those of the whole request, and the answer is that of the stages
behind it. To be fair to image files, they are tried smaller too, and counted with the same request around
them. Ways that are surely too lossy or far too large after the first canvases are not sent with all of them.
With `--page` the table and the plot of docs/boundaries.md are made of the result that was published.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks._boundaries_rows import Result, summary
from benchmarks._boundaries_sending import Bench, LoweredPacker, lowered
from benchmarks._canvas import FULL, QUICK, CanvasBatches, CanvasSize, canvas_batch, trained
from benchmarks.results import publish
from edgeexit.models.merging import MERGED_ROUNDS, merging
from edgeexit.models.packers import Bottleneck, pooling
from edgeexit.models.vit import TOKENS, VisionTransformer
from edgeexit.training.bottleneck import BottleneckProgress, BottleneckTraining, train_bottleneck
from edgeexit.training.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint, settings_key
from edgeexit.training.data import Samples, Splits, fashion_mnist

BUILD = Path(__file__).parent.parent / "build" / "benchmarks" / "boundaries"

# Batches that keep the tensors of all samples out of memory at once.
BATCH = 50
# After so many canvases it shows which ways are worth the others: losses are known to about two points.
FIRST = 200

# With a limit in minutes training ends by it, not by samples.
ENDLESS = 10**9


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is done."""

    size: CanvasSize
    bottleneck: BottleneckTraining
    samples: int
    items: int | None
    merged: tuple[int, ...] = tuple(MERGED_ROUNDS)


WHOLE = Extent(FULL, BottleneckTraining(samples=24_000), samples=2_000, items=None)
QUICKLY = Extent(QUICK, BottleneckTraining(samples=300, batch_size=20), samples=30, items=1_000, merged=(8,))


class _Kept:
    """A module as checkpoints want it."""

    def __init__(self, module: nn.Module) -> None:
        self.stages = nn.ModuleList([module])


def bottleneck_of(
    network: VisionTransformer, boundary: int, extent: Extent, items: Samples, folder: Path
) -> Bottleneck:
    """The trained bottleneck of a boundary, from the checkpoint in `folder`, else trained now."""
    config = network.config
    torch.manual_seed(boundary)
    made = Bottleneck(config.embed_dim, config.num_prefix_tokens + config.grid_size**2)
    size = extent.size
    settings = [size.network, size.canvas, size.quarter, size.whole, extent.bottleneck, boundary]
    key = settings_key(settings, [items])
    path = checkpoint_path(folder, f"{size.name}-bottleneck-{boundary}", key)
    if load_checkpoint(_Kept(made), path, key=key) is not None:
        return made.eval()

    def tell(state: BottleneckProgress) -> None:
        say(
            f"bottleneck {boundary}: {state.fraction:.0%}, {state.distillation:.3f} nats,"
            f" {state.bits_per_token:.2f} bits a token"
        )

    source = CanvasBatches(items, seed=100 + boundary, mirror=True, canvas=size.canvas)
    train_bottleneck(
        network, boundary, made, source, extent.bottleneck, clock_s=time.process_time, progress=tell
    )
    save_checkpoint(_Kept(made), path, key=key, notes={})
    return made.eval()


def packers_of(
    network: VisionTransformer, bottlenecks: Mapping[int, Bottleneck], merged: Sequence[int], folder: Path
) -> list[LoweredPacker]:
    """Every packer of every boundary, on the runtime."""
    config = network.config
    tokens = config.num_prefix_tokens + config.grid_size**2
    example = np.zeros((1, tokens, config.embed_dim), np.float32)
    made = []
    for boundary, bottleneck in bottlenecks.items():
        reducing = [merging(TOKENS, tokens, boundary, each) for each in merged]
        reducing.append(pooling(TOKENS, tokens, boundary))
        made += [lowered(one, example, folder) for one in reducing]
        made += [lowered(half, example, folder, bottleneck) for half in bottleneck.halves(TOKENS, boundary)]
    return made


def measure(extent: Extent, splits: Splits, folder: Path) -> Result:
    """Train what is not there yet, and send the test canvases in every way."""
    size = extent.size
    items = splits.train.take(slice(0, extent.items))
    network = trained(size, items, folder, tell=say)
    network.stages.eval()
    boundaries = range(1, len(size.network.exits))
    bottlenecks = {b: bottleneck_of(network, b, extent, items, folder) for b in boundaries}
    test, rng = splits.test.take(slice(0, extent.samples)), np.random.default_rng(2)
    with tempfile.TemporaryDirectory(prefix="edgeexit-boundaries-") as files:
        bench = Bench(network, packers_of(network, bottlenecks, extent.merged, Path(files)))
        for start in range(0, len(test), BATCH):
            done = min(start + BATCH, len(test))
            bench.send(canvas_batch(test, np.arange(start, done), size.canvas, rng))
            say(f"sent {done:,} of {len(test):,} canvases")
            if done == FIRST < len(test):
                say(f"{bench.leave()} ways go on")
    exits = [float(np.concatenate(right).mean()) for right in bench.exits]
    side = size.canvas.side
    return summary(f"garment on a cluttered canvas of {side} × {side}", len(test), exits, bench.rows())


def say(line: str) -> None:
    """A line of progress, apart from the result."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def main(arguments: list[str] | None = None) -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(description="accuracy against bytes, by boundary and codec")
    parser.add_argument("--quick", action="store_true", help="a small network, hardly trained: does it run?")
    parser.add_argument("--page", action="store_true", help="make table and plot of the published result")
    parser.add_argument("--work", type=Path, default=BUILD, help="where trained weights are kept")
    parser.add_argument("--samples", type=int, help="how many test canvases are sent")
    parser.add_argument("--minutes", type=float, help="how long each bottleneck is trained, of the processor")
    options = parser.parse_args(arguments)
    if options.page:
        from benchmarks._boundaries_page import write

        write()
        return 0
    torch.set_num_threads(1)
    extent = QUICKLY if options.quick else WHOLE
    if options.samples is not None:
        extent = replace(extent, samples=options.samples)
    if options.minutes is not None:
        learning = replace(extent.bottleneck, samples=ENDLESS, seconds=60.0 * options.minutes)
        extent = replace(extent, bottleneck=learning)
    result = measure(extent, fashion_mnist(), options.work)
    publish("boundaries_quick" if options.quick else "boundaries", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
