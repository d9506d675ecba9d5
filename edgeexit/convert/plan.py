"""What a conversion is asked to make, and the data that it may look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import Precision, Task
from edgeexit.errors import ConfigError, DataError


class LabelledSet(Protocol):
    """Images with their answers.

    Shapes: images (N, C, H, W); targets (N,), class indices, or values for regression.
    Units: images 0 to 255 when they are uint8, else 0 to 1.
    """

    @property
    def images(self) -> NDArray[np.generic]:
        """The images."""
        ...

    @property
    def targets(self) -> NDArray[np.generic]:
        """The right answers."""
        ...


@dataclass(frozen=True, slots=True)
class Tolerances:
    """How far a lowered stage may stray before the conversion is refused.

    `parity` bounds the largest absolute difference of a float variant to the network, times the
    largest absolute value of that tensor where this is over 1. `agreement` is the least fraction of
    calibration inputs on which a quantised variant must answer as the float one does, at each exit.
    """

    # Measured on ViT, CNN, Mixer and attention stages: 2e-6 at most. Fifty times that is still far
    # below what moves an answer, and leaves room for longer sums.
    parity: float = 1e-4
    # Dynamic int8 agreed on 99 % of answers where it was measured; half of that loss again, tenfold,
    # is a broken quantisation and not an imprecise one.
    agreement: float = 0.85
    # 16-bit weights keep 11 bits: 5e-4 relative a weight, a few times that after a stage.
    half_parity: float = 5e-2


@dataclass(frozen=True, slots=True)
class ConversionPlan:
    """What the bundle is, what it comes from, and how much is measured on the way.

    `network` names architecture and size, `dataset` what calibrated it, `licence` what covers the
    weights. `variants` always begins with f32, the one that parity is proven on.
    `risk_epsilons` are the accuracy drops for which early-exit thresholds are certified.
    Raises: ConfigError.
    """

    name: str
    version: str
    network: str
    dataset: str
    licence: str
    labels: tuple[str, ...]
    task: Task = "classification"
    serial: int = 1
    checkpoint_sha256: str | None = None
    variants: tuple[Precision, ...] = ("f32", "int8")
    tolerances: Tolerances = Tolerances()
    # Parity is a property of arithmetic, not of data: a few real inputs show it.
    parity_samples: int = 16
    golden_samples: int = 8
    # Half a point of quality is seen with some confidence; deeper boundaries make this step long.
    codec_samples: int = 500
    # Regression only: mean absolute error of always answering the training median (quality 0).
    error_scale: float | None = None
    risk_epsilons: tuple[float, ...] = (0.01, 0.02, 0.05)
    risk_delta: float = 0.1
    # Interpreters running side by side while whole sets are answered; None takes every core.
    workers: int | None = None

    def __post_init__(self) -> None:
        if not self.variants or self.variants[0] != "f32" or len(set(self.variants)) != len(self.variants):
            raise ConfigError(
                "conversion plan is refused",
                key="variants",
                why=f"{self.variants} must begin with f32 and name each precision once",
            )
        if self.task == "classification" and len(self.labels) < 2:
            raise ConfigError(
                "conversion plan is refused", key="labels", why="a classifier has at least two labels"
            )
        if self.task == "regression" and (self.labels or not self.error_scale or self.error_scale <= 0.0):
            raise ConfigError(
                "conversion plan is refused",
                key="error_scale",
                why="a regression has no labels, and an error_scale above 0",
            )
        if not all(0.0 < fraction < 1.0 for fraction in (*self.risk_epsilons, self.risk_delta)):
            raise ConfigError(
                "conversion plan is refused", key="risk_epsilons", why="risks lie between 0 and 1"
            )
        # Eight is what a board verifies a stage with; fewer would leave a broken kernel unseen.
        if self.golden_samples < 8 or self.parity_samples < 1 or self.codec_samples < 1:
            raise ConfigError(
                "conversion plan is refused",
                key="golden_samples",
                why="at least 8 golden inputs, 1 parity input and 1 codec input are needed",
            )

    @property
    def quality_scale(self) -> float:
        """`error_scale`; a classifier's quality has none, and never reads it."""
        return self.error_scale or 1.0


def network_input(images: NDArray[np.generic]) -> NDArray[np.float32]:
    """Images as the network takes them: float32, 0 to 1; 8-bit values are divided by 255.

    Shapes: kept.
    """
    if images.dtype == np.uint8:
        return images.astype(np.float32) / np.float32(255.0)
    return images.astype(np.float32)


def evenly(count: int, wanted: int) -> list[int]:
    """At most `wanted` indices below `count`, spread evenly, the same ones each time."""
    return sorted({int(i) for i in np.linspace(0, count - 1, num=min(wanted, count))})


def check_set(labelled: LabelledSet, *, what: str, plan: ConversionPlan, empty: bool = False) -> None:
    """Refuse a set that cannot be what the plan says.

    Raises: DataError.
    """
    images, targets = labelled.images, labelled.targets
    why = None
    if images.ndim != 4:
        why = f"images have shape {images.shape}, not (N, C, H, W)"
    elif len(images) != len(targets):
        why = f"{len(images)} images have {len(targets)} targets"
    elif len(images) == 0 and not empty:
        why = "it is empty"
    elif images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
        why = f"images are {images.dtype}, neither uint8 nor floating"
    elif plan.task == "classification" and len(targets):
        classes = targets.astype(np.int64)
        if not ((classes >= 0) & (classes < len(plan.labels))).all():
            why = f"a target is none of the {len(plan.labels)} labels"
    if why is not None:
        raise DataError(f"the {what} set is refused", file=what, why=why)
