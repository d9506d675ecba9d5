"""A harder task of 224 × 224 pixels: one whole garment at some place and size, among scraps of others.

All of it comes from real Fashion-MNIST items, enlarged; test canvases hold test items only. The network that
is trained on it here is a small ViT with the tokens of the large ones: 14 × 14 patches of 16 pixels.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from edgeexit.models.vit import FirstStage, VisionTransformer, ViTConfig, vit
from edgeexit.training.batches import ItemBatches
from edgeexit.training.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint, settings_key
from edgeexit.training.data import Samples
from edgeexit.training.loop import train
from edgeexit.training.schedule import TrainingConfig, TrainingProgress

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Canvas:
    """How a canvas is made. Units: side, scrap_px and item_px (least, most), side lengths in pixels.

    `scraps` lie under the item. A scrap shows between a third and two thirds of an item's side, so that
    none is a whole garment.
    """

    side: int = 224
    scraps: int = 24
    item_px: tuple[int, int] = (56, 84)
    scrap_px: tuple[int, int] = (24, 56)


def canvas_batch(
    items: Samples, chosen: NDArray[np.int64], canvas: Canvas, rng: np.random.Generator
) -> Samples:
    """One canvas for each chosen item; its target is the item's. Black counts as see-through.

    Shapes: items (N, 1, h, w); canvases (len(chosen), 1, side, side).
    """
    images = np.zeros((len(chosen), 1, canvas.side, canvas.side), dtype=np.float32)
    for index, item in enumerate(chosen):
        place = images[index, 0]
        for donor in rng.integers(0, len(items), size=canvas.scraps):
            source = items.images[donor, 0]
            side = int(rng.integers(source.shape[0] // 3, 2 * source.shape[0] // 3 + 1))
            y, x = rng.integers(0, source.shape[0] - side + 1, size=2)
            _lay(place, source[y : y + side, x : x + side], canvas.scrap_px, rng)
        _lay(place, items.images[item, 0], canvas.item_px, rng)
    return Samples(images=images, targets=items.targets[chosen], name=f"{items.name}-canvas")


def _lay(
    canvas: NDArray[np.float32], piece: NDArray[np.float32], px: tuple[int, int], rng: np.random.Generator
) -> None:
    """Enlarge a square piece and lay it somewhere, whole."""
    side = int(rng.integers(px[0], px[1] + 1))
    large = cv2.resize(piece, (side, side), interpolation=cv2.INTER_LINEAR)
    # Whole steps of 255, as a camera gives them.
    pixels = np.rint(np.asarray(large, np.float32) * np.float32(255.0)) / np.float32(255.0)
    y, x = rng.integers(0, len(canvas) - side + 1, size=2)
    place = canvas[y : y + side, x : x + side]
    np.copyto(place, pixels, where=pixels > 0)


def canvas_set(items: Samples, canvas: Canvas, *, seed: int) -> Samples:
    """One canvas for every item, in order. Shapes: (N, 1, h, w) to (N, 1, side, side)."""
    return canvas_batch(items, np.arange(len(items)), canvas, np.random.default_rng(seed))


@dataclass(slots=True)
class CanvasBatches(ItemBatches):
    """Canvases made anew for every batch."""

    canvas: Canvas = field(kw_only=True)

    def batch(self, number: int, size: int) -> Samples:
        """Batch `number`."""
        rng = self.rng(number)
        return self._mirrored(canvas_batch(self.items, self.chosen(number, size), self.canvas, rng), rng)


@dataclass(frozen=True, slots=True)
class CanvasSize:
    """One size of the task: the network, and how it is trained, first on a quarter of the canvas."""

    name: str
    network: ViTConfig
    canvas: Canvas
    quarter: TrainingConfig
    whole: TrainingConfig


NETWORK = ViTConfig(
    img_size=224,
    patch_size=16,
    in_chans=1,
    num_classes=10,
    embed_dim=96,
    depth=6,
    num_heads=3,
    exits=(2, 4, 6),
    # Of the canvases.
    mean=(0.2,),
    std=(0.3,),
    head_hidden_dims=(64,),
    stem_dims=(8, 16, 32),
)

# A quarter of the canvas has a quarter of the tokens and is learnt four times as fast; what is learnt of
# garments there holds on the whole canvas. Units: the seconds are the processor's.
FULL = CanvasSize(
    name="canvas-224",
    network=NETWORK,
    canvas=Canvas(),
    quarter=TrainingConfig(samples=160_000, seconds=1_000.0),
    whole=TrainingConfig(samples=48_000, seconds=1_200.0, learning_rate=3e-3),
)

QUICK = CanvasSize(
    name="canvas-112-quick",
    network=replace(
        NETWORK, img_size=112, embed_dim=48, depth=2, exits=(1, 2), head_hidden_dims=(), stem_dims=(8, 16)
    ),
    canvas=Canvas(side=112, scraps=4, item_px=(40, 56), scrap_px=(16, 32)),
    quarter=TrainingConfig(samples=960),
    whole=TrainingConfig(samples=320),
)


def trained(
    size: CanvasSize, items: Samples, folder: Path, *, tell: Callable[[str], None]
) -> VisionTransformer:
    """The network of this size, from the checkpoint in `folder`, else trained now and kept there.

    `tell` learns where training is. Raises: DataError for a checkpoint that is damaged.
    """
    network = vit(size.network, seed=0)
    key = settings_key([size.network, size.canvas, size.quarter, size.whole], [items])
    path = checkpoint_path(folder, size.name, key)
    if load_checkpoint(network, path, key=key) is not None:
        return network
    quarter = replace(
        size.canvas, side=max(size.canvas.side // 2, size.canvas.item_px[1]), scraps=size.canvas.scraps // 4
    )
    patches = -(-quarter.side // size.network.patch_size)
    quarter = replace(quarter, side=patches * size.network.patch_size)
    small = vit(replace(size.network, img_size=quarter.side), seed=0)
    for name, part, canvas, config in (
        ("quarter", small, quarter, size.quarter),
        ("whole", network, size.canvas, size.whole),
    ):
        if part is network:
            _enlarge(small, network)

        def report(state: TrainingProgress, name: str = name) -> None:
            losses = " ".join(f"{loss:.3f}" for loss in state.losses)
            tell(
                f"{name}: {state.samples:,} canvases, {state.fraction:.0%}, "
                f"{state.elapsed_s:.0f} s, losses {losses}"
            )

        source = CanvasBatches(items, seed=config.seed, mirror=True, canvas=canvas)
        train(part, source, config, clock_s=time.process_time, progress=report)
    save_checkpoint(network, path, key=key, notes={})
    return network


def _enlarge(small: VisionTransformer, large: VisionTransformer) -> None:
    """Give a network the weights of one for smaller images, positions spread by interpolation."""
    weights = dict(small.stages.state_dict())
    first, other = large.stages[0], small.stages[0]
    if not isinstance(first, FirstStage) or not isinstance(other, FirstStage):
        raise TypeError("a ViT begins with its first stage")
    positions = other.pos_embed.detach()
    grid = positions[:, 1:].transpose(1, 2)  # 1 N D -> 1 D N
    before = small.config.grid_size
    grid = grid.reshape(1, -1, before, before)  # 1 D N -> 1 D g g
    side = large.config.grid_size
    grid = F.interpolate(grid, size=(side, side), mode="bilinear", align_corners=False)  # 1 D G G
    spread = grid.flatten(2).transpose(1, 2)  # 1 D G G -> 1 N D
    weights["0.pos_embed"] = torch.cat((positions[:, :1], spread), dim=1)  # 1 1+N D
    large.stages.load_state_dict(weights)
