"""What each boundary costs to send: accuracy at the last exit against bytes, beside image files of the input.

    python -m benchmarks.boundaries [--quick] [--samples N] [--page]

The network is a small ViT with three exits on canvases of 224 × 224 pixels (`benchmarks/_canvas.py`); it and
the bottlenecks of its boundaries are trained once, and kept under build/. Every payload is made by the codecs
that devices use, its bytes are those of the whole request, and the answer is that of the stages behind it.
To be fair to image files, they are tried at half the size too, and counted with the same request around them.
With `--page` the table and the plot of docs/boundaries.md are made of the result that was published.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from benchmarks._canvas import FULL, QUICK, CanvasBatches, CanvasSize, canvas_set, trained
from benchmarks.results import publish
from edgeexit.bundle.manifest import CodecName, TensorSpec
from edgeexit.models.packers import Bottleneck, PackerModules, pooling
from edgeexit.models.protocol import IMAGE, State, run_stage
from edgeexit.models.vit import TOKENS, VisionTransformer
from edgeexit.models.windows import PATCHES
from edgeexit.training.bottleneck import (
    BottleneckProgress,
    BottleneckTraining,
    bits_per_row,
    train_bottleneck,
)
from edgeexit.training.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint, settings_key
from edgeexit.training.data import Samples, Splits, fashion_mnist
from edgeexit.transport.codecs import decode_tensors, encode_tensors, sent_bytes, uncompressed
from edgeexit.transport.storage import Storage
from edgeexit.transport.wire import WireTensor

BUILD = Path(__file__).parent.parent / "build" / "benchmarks" / "boundaries"

# What may be lost: half a point of accuracy.
HALF_POINT = 0.005
# By how many times the image is made smaller before: the qualities tried.
JPEG_QUALITIES = {1: (5, 10, 20, 30, 50, 85), 2: (10, 30, 85)}
WEBP_QUALITIES = {1: (1, 10, 30, 50, 85), 2: (1, 30, 85)}
TOKEN_CODECS: tuple[CodecName, ...] = (
    *("raw", "f16", "int8", "int8-token", "int8-zstd", "int8-lz4"),
    *("int4", "int4-token", "int4-zstd", "int4-lz4", "int4-token-zstd"),
)
# Batches that keep the tensors of all samples out of memory at once.
BATCH = 50

Tokens = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Row:
    """One way of sending. Boundary 0 is the image.

    Units: bytes, of whole requests; accuracy, of the last exit on test canvases, fraction; lost_points,
    percentage points to the same boundary sent raw, with the standard error of this difference; ideal_bytes,
    what the values alone would take under the prior that was learnt beside a bottleneck.
    """

    boundary: int
    codec: str
    mean_bytes: int
    p95_bytes: int
    accuracy: float
    lost_points: float
    lost_points_error: float
    ideal_bytes: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """All rows, and what they come to; the cheapest ways within half a point are named."""

    task: str
    samples: int
    accuracy_by_exit: tuple[float, ...]
    rows: tuple[Row, ...]
    best_image: str | None
    best_image_bytes: int | None
    best_boundary: str | None
    best_boundary_bytes: int | None
    bytes_ratio_at_half_point: float | None


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is done."""

    size: CanvasSize
    bottleneck: BottleneckTraining
    samples: int
    items: int | None


WHOLE = Extent(FULL, BottleneckTraining(samples=60_000, seconds=200.0), samples=1_000, items=None)
QUICKLY = Extent(QUICK, BottleneckTraining(samples=300, batch_size=20), samples=30, items=1_000)


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


class _Tally:
    """Bytes and right answers of one way of sending."""

    def __init__(self, boundary: int, codec: str) -> None:
        self.boundary = boundary
        self.codec = codec
        self.sizes: list[int] = []
        self.right: list[NDArray[np.bool_]] = []
        self.ideal_bits = 0.0

    def row(self, raw: NDArray[np.bool_], values: int | None) -> Row:
        """Shapes: raw (n,), whether the untouched boundary's answer was right."""
        right = np.concatenate(self.right)
        difference = raw.astype(float) - right.astype(float)
        ideal = None if values is None else self.ideal_bits / len(right) / 8.0
        return Row(
            boundary=self.boundary,
            codec=self.codec,
            mean_bytes=round(float(np.mean(self.sizes))),
            p95_bytes=round(float(np.quantile(self.sizes, 0.95))),
            accuracy=round(float(right.mean()), 4),
            lost_points=round(100.0 * float(difference.mean()), 2),
            lost_points_error=round(100.0 * float(difference.std()) / sqrt(len(right)), 2),
            ideal_bytes=None if ideal is None else round(ideal, 1),
        )


class Bench:
    """Sends test canvases in every way, and counts what arrives and what is answered to it."""

    def __init__(self, network: VisionTransformer, bottlenecks: Sequence[Bottleneck]) -> None:
        self._network = network
        self._bottlenecks = tuple(bottlenecks)
        config = network.config
        self._tokens = config.num_prefix_tokens + config.grid_size**2
        self._tallies: dict[tuple[int, str], _Tally] = {}
        self.exits: list[list[NDArray[np.bool_]]] = [[] for _ in config.exits]

    @torch.no_grad()
    def send(self, samples: Samples) -> None:
        """One batch."""
        images = torch.from_numpy(samples.images)
        state: State = {IMAGE: images}
        boundaries: list[Tokens] = []
        for stage in range(len(self._network.stages)):
            boundaries.append(next(iter(state.values())).numpy())
            state, output = run_stage(self._network, stage, state)
            self.exits[stage].append(output.argmax(dim=1).numpy() == samples.targets)
        raw = self.exits[-1][-1]
        self._images(samples, raw)
        for boundary in range(1, len(boundaries)):
            self._boundary(boundary, boundaries[boundary], samples, raw)

    def rows(self) -> tuple[Row, ...]:
        """What was counted."""
        raw = np.concatenate(self.exits[-1])
        return tuple(
            tally.row(raw, 1 if tally.codec.startswith("bottleneck") else None)
            for tally in self._tallies.values()
        )

    def _images(self, samples: Samples, raw: NDArray[np.bool_]) -> None:
        self._count(0, "u8", [_as_sent(image, "u8") for image in samples.images], raw)
        pixels = samples.pixels()
        for share in (1, 2):
            for kind, qualities in (("JPEG", JPEG_QUALITIES), ("WEBP", WEBP_QUALITIES)):
                for quality in qualities[share]:
                    coded = [_file(image[0], kind, quality, share) for image in pixels]
                    arrived = np.stack([picture for _, picture in coded])[:, None]  # n H W -> n 1 H W
                    right = self._right(0, arrived.astype(np.float32) / np.float32(255.0), samples)
                    name = f"{kind.lower()}{quality}" + ("" if share == 1 else " at half size")
                    self._count(0, name, [size for size, _ in coded], right)

    def _boundary(self, boundary: int, tokens: Tokens, samples: Samples, raw: NDArray[np.bool_]) -> None:
        spec = TensorSpec(name=TOKENS, shape=(1, *tokens.shape[1:]))
        # Compression changes no value, so the answers are those without it, which come first.
        answers = {"raw": raw}
        for codec in TOKEN_CODECS:
            sent = [encode_tensors({TOKENS: each[None]}, codec) for each in tokens]
            if uncompressed(codec) not in answers:
                arrived = [decode_tensors(each, [spec])[TOKENS] for each in sent]
                answers[codec] = self._right(boundary, np.concatenate(arrived).astype(np.float32), samples)
            right = answers[uncompressed(codec)]
            self._count(boundary, codec, [sent_bytes(each) for each in sent], right)
        bottleneck = self._bottlenecks[boundary - 1]
        for packer in (pooling(TOKENS, self._tokens, boundary), *bottleneck.halves(TOKENS, boundary)):
            self._packed(packer, tokens, samples)
        values = bottleneck.pack(torch.from_numpy(tokens))
        for packer in bottleneck.halves(TOKENS, boundary):
            width = PATCHES * int(packer.name.removeprefix("bottleneck"))
            bits = float(bits_per_row(values[..., :width].round(), bottleneck.levels[:width]))
            for codec in packer.codecs:
                self._tallies[boundary, codec].ideal_bits += bits * values.shape[1] * len(tokens)

    def _packed(self, packer: PackerModules, tokens: Tokens, samples: Samples) -> None:
        made = packer.pack(**{TOKENS: torch.from_numpy(tokens)})[packer.name].numpy()
        spec = TensorSpec(name=packer.name, shape=(1, *made.shape[1:]))
        answers: dict[str, NDArray[np.bool_]] = {}
        for codec in packer.codecs:
            sent = [encode_tensors({packer.name: each[None]}, codec) for each in made]
            if uncompressed(codec) not in answers:
                arrived = np.concatenate([decode_tensors(each, [spec])[packer.name] for each in sent])
                back = packer.unpack(**{packer.name: torch.from_numpy(arrived.astype(np.float32))})[TOKENS]
                answers[codec] = self._right(packer.boundary, back.numpy(), samples)
            right = answers[uncompressed(codec)]
            self._count(packer.boundary, codec, [sent_bytes(each) for each in sent], right)

    def _right(self, boundary: int, tensors: Tokens, samples: Samples) -> NDArray[np.bool_]:
        """Whether the last exit answers rightly to what arrived at a boundary. Shapes: result (n,)."""
        state: State = {TOKENS if boundary else IMAGE: torch.from_numpy(tensors)}
        for stage in range(boundary, len(self._network.stages)):
            state, output = run_stage(self._network, stage, state)
        right: NDArray[np.bool_] = output.argmax(dim=1).numpy() == samples.targets
        return right

    def _count(self, boundary: int, codec: str, sizes: Sequence[int], right: NDArray[np.bool_]) -> None:
        tally = self._tallies.setdefault((boundary, codec), _Tally(boundary, codec))
        tally.sizes += sizes
        tally.right.append(right)


def _as_sent(image: NDArray[np.float32], codec: CodecName) -> int:
    return sent_bytes(encode_tensors({IMAGE: image[None]}, codec))


def _file(image: NDArray[np.uint8], kind: str, quality: int, share: int) -> tuple[int, NDArray[np.uint8]]:
    """Bytes of the request with this image as a file, and the image that comes of it. Shapes: (H, W)."""
    picture = Image.fromarray(image)
    if share > 1:
        picture = picture.resize((image.shape[1] // share, image.shape[0] // share), Image.Resampling.BOX)
    file = io.BytesIO()
    if kind == "JPEG":
        picture.save(file, "JPEG", quality=quality, optimize=True)
    else:
        picture.save(file, "WEBP", quality=quality, method=6)
    stored = np.frombuffer(file.getvalue(), np.uint8)
    # The header of a JPEG tensor, whatever the file is: WebP would need one as long.
    sent = WireTensor(IMAGE, "u1", stored, (1.0 / 255.0,), (0,), None, Storage.JPEG, (1, 1, *image.shape))
    back = Image.open(io.BytesIO(file.getvalue())).convert("L")
    if share > 1:
        back = back.resize((image.shape[1], image.shape[0]), Image.Resampling.BICUBIC)
    return sent_bytes([sent]), np.asarray(back, np.uint8)


def summary(task: str, samples: int, exits: Sequence[float], rows: tuple[Row, ...]) -> Result:
    """The result, with the cheapest ways within half a point."""
    within = [row for row in rows if row.lost_points <= 100.0 * HALF_POINT]

    def cheapest(of_images: bool) -> Row | None:
        fitting = [row for row in within if (row.boundary == 0) == of_images]
        return min(fitting, key=lambda row: row.mean_bytes, default=None)

    image, boundary = cheapest(True), cheapest(False)
    ratio = None if image is None or boundary is None else boundary.mean_bytes / image.mean_bytes
    return Result(
        task=task,
        samples=samples,
        accuracy_by_exit=tuple(round(each, 4) for each in exits),
        rows=rows,
        best_image=None if image is None else image.codec,
        best_image_bytes=None if image is None else image.mean_bytes,
        best_boundary=None if boundary is None else f"{boundary.codec} at boundary {boundary.boundary}",
        best_boundary_bytes=None if boundary is None else boundary.mean_bytes,
        bytes_ratio_at_half_point=None if ratio is None else round(ratio, 3),
    )


def measure(extent: Extent, splits: Splits, folder: Path) -> Result:
    """Train what is not there yet, and send the test canvases in every way."""
    size = extent.size
    items = splits.train.take(slice(0, extent.items))
    network = trained(size, items, folder, tell=say)
    network.stages.eval()
    boundaries = range(1, len(size.network.exits))
    bench = Bench(network, [bottleneck_of(network, b, extent, items, folder) for b in boundaries])
    test = canvas_set(splits.test.take(slice(0, extent.samples)), size.canvas, seed=2)
    for start in range(0, len(test), BATCH):
        bench.send(test.take(slice(start, start + BATCH)))
        say(f"sent {min(start + BATCH, len(test)):,} of {len(test):,} canvases")
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
    options = parser.parse_args(arguments)
    if options.page:
        from benchmarks._boundaries_page import write

        write()
        return 0
    torch.set_num_threads(1)
    extent = QUICKLY if options.quick else WHOLE
    if options.samples is not None:
        extent = replace(extent, samples=options.samples)
    result = measure(extent, fashion_mnist(), options.work)
    publish("boundaries_quick" if options.quick else "boundaries", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
