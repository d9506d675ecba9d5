"""How training images are changed, as values; `edgeexit.training.augmenting` does it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What is done to training batches; zeros do nothing.

    RandAugment applies `operations` random changes of `magnitude` (0 to 30) to every image. Then the batch is
    mixed with itself: by Mixup, or by CutMix, each with weights from Beta(alpha, alpha); with both given one
    of them is drawn for each batch. Mixing is for classes.

    Source: Cubuk et al., RandAugment, 2020; Zhang et al., mixup, ICLR 2018; Yun et al., CutMix, ICCV 2019.
    """

    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    operations: int = 0
    # Of the source, for ImageNet.
    magnitude: int = 9

    def __post_init__(self) -> None:
        """Refuse what cannot be done. Raises: ValueError."""
        if not (0.0 <= self.mixup_alpha < 100.0 and 0.0 <= self.cutmix_alpha < 100.0):
            raise ValueError("mixup_alpha and cutmix_alpha must be from 0 to below 100")
        if not 0 <= self.operations <= 14 or not 0 <= self.magnitude <= 30:
            raise ValueError("operations must be from 0 to 14, magnitude from 0 to 30")

    @property
    def mixes(self) -> bool:
        """Whether targets become shares of classes."""
        return self.mixup_alpha > 0 or self.cutmix_alpha > 0
