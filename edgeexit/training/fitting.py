"""Images of one size and colour as a network takes them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from edgeexit.training.batches import BatchSource
from edgeexit.training.data import Samples

# What red, green and blue give to grey, as Pillow and ITU-R 601 have it.
GREY_WEIGHTS = (0.299, 0.587, 0.114)


def fitted(images: NDArray[np.float32], shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Images resized to fill the shape, the longer side cut; grey ones in three channels, or colours as grey.

    Shapes: images (N, c, h, w), c 1 or 3; shape (C, H, W); result (N, C, H, W).
    Units: 0 to 1, each value k/255 with a whole k.
    """
    channels, height, width = shape
    if images.shape[1:] == shape:
        return images
    if images.shape[1] == 3 and channels == 1:
        weights = np.array(GREY_WEIGHTS, dtype=np.float32)[:, None, None]
        images = (images * weights).sum(axis=1, keepdims=True)  # N 3 h w -> N 1 h w
    grid = torch.from_numpy(images)
    if images.shape[2:] != (height, width):
        scale = max(height / images.shape[2], width / images.shape[3])
        size = (max(height, round(images.shape[2] * scale)), max(width, round(images.shape[3] * scale)))
        grid = F.interpolate(grid, size=size, mode="bilinear", align_corners=False, antialias=True)
        top, left = (size[0] - height) // 2, (size[1] - width) // 2
        grid = grid[:, :, top : top + height, left : left + width]  # N c h' w' -> N c H W
    whole = grid.mul(255).round_().clamp_(0, 255).div_(255)
    return whole.expand(-1, channels, -1, -1).contiguous().numpy()  # N c H W -> N C H W


def fitted_samples(samples: Samples, shape: tuple[int, int, int]) -> Samples:
    """The same samples, their images as `fitted` gives them."""
    return replace(samples, images=fitted(samples.images, shape))


@dataclass(frozen=True, slots=True)
class FittedBatches:
    """Batches of another source, fitted when they are asked for: large images are never held all at once."""

    source: BatchSource
    shape: tuple[int, int, int]

    def batch(self, number: int, size: int) -> Samples:
        """Batch `number`, from 0."""
        return fitted_samples(self.source.batch(number, size), self.shape)
