"""Training batches changed at random, by torchvision; each batch still a function of its number."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from edgeexit.errors import ConfigError, MissingExtra
from edgeexit.models.torchvision_operators import make_importable
from edgeexit.training.augmentation import Augmentation
from edgeexit.training.batches import BatchSource
from edgeexit.training.data import Samples

if TYPE_CHECKING:
    from collections.abc import Callable


class _Transforms(Protocol):
    """What is used of torchvision.transforms.v2."""

    def MixUp(self, *, alpha: float, num_classes: int) -> Callable[[Tensor, Tensor], list[Tensor]]: ...  # noqa: N802
    def CutMix(self, *, alpha: float, num_classes: int) -> Callable[[Tensor, Tensor], list[Tensor]]: ...  # noqa: N802
    def RandAugment(self, *, num_ops: int, magnitude: int) -> Callable[[Tensor], Tensor]: ...  # noqa: N802


@dataclass(frozen=True, slots=True)
class AugmentedBatches:
    """Batches of another source, augmented. `classes` is how many there are, 0 for values."""

    source: BatchSource
    augmentation: Augmentation
    classes: int
    seed: int

    def __post_init__(self) -> None:
        """Refuse what does not fit the data. Raises: ConfigError."""
        if self.augmentation.mixes and not self.classes:
            raise ConfigError(
                "values cannot be mixed",
                key="augmentation",
                why="mixup and cutmix give shares of classes",
                fix="leave --mixup and --cutmix out; --randaugment is for values too",
            )

    def batch(self, number: int, size: int) -> Samples:
        """Batch `number`, from 0; mixed targets are shares. Shapes: targets (B,), or (B, classes).

        Raises: MissingExtra.
        """
        samples = self.source.batch(number, size)
        # torchvision draws from torch's own random numbers: they are lent to it.
        with torch.random.fork_rng(devices=[]):
            seeds = np.random.SeedSequence([self.seed, 2, number]).generate_state(1, np.uint64)
            torch.manual_seed(int(seeds[0] >> np.uint64(1)))
            return self._augmented(samples)

    def _augmented(self, samples: Samples) -> Samples:
        how, transforms = self.augmentation, _transforms()
        if how.operations:
            change = transforms.RandAugment(num_ops=how.operations, magnitude=how.magnitude)
            pixels = torch.from_numpy(samples.pixels())
            changed = torch.stack([change(image) for image in pixels])  # B C H W
            samples = replace(samples, images=changed.numpy().astype(np.float32) / np.float32(255))
        mixings = [
            mixing(alpha=alpha, num_classes=self.classes)
            for mixing, alpha in ((transforms.MixUp, how.mixup_alpha), (transforms.CutMix, how.cutmix_alpha))
            if alpha > 0
        ]
        if not mixings:
            return samples
        mix = mixings[int(torch.randint(len(mixings), ()))]
        images, targets = mix(torch.from_numpy(samples.images), torch.from_numpy(samples.targets))
        # B classes -> B classes; shares of a class that is drawn twice are summed already
        return replace(samples, images=images.numpy(), targets=targets.numpy())


def _transforms() -> _Transforms:
    make_importable()
    try:
        from torchvision.transforms import v2
    except ImportError as error:
        raise MissingExtra("torchvision", extra="models", needed_for="augmenting images") from error
    transforms: _Transforms = v2
    return transforms
