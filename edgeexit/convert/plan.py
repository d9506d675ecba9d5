"""What a conversion is asked to make, and the data that it may look at."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import CodecName, Task
from edgeexit.errors import ConfigError, DataError

# What a manifest takes: refused here, before anything is lowered, and not when all is done.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VERSION = re.compile(r"\d{1,9}\.\d{1,9}\.\d{1,9}([-+][A-Za-z0-9.+-]{1,64})?")
_LONGEST_TEXT = 4096

# Two values are the same answer when they lie within this share of the error that makes one worthless.
SAME_VALUE = 0.1

# What a board verifies a stage with; fewer would leave a broken kernel unseen.
LEAST_GOLDEN = 8

# What every gateway understands with no library; the rest is for those who ask, because each codec of each
# boundary lengthens the conversion and every decision of a policy.
PLAIN_CODECS: tuple[CodecName, ...] = ("raw", "u8", "f16", "int8")

VariantName = Literal["f32", "f16", "int8", "int8-tensor", "int8-static", "int8-full", "onnx", "onnx-int8"]
"""What a conversion can make of each stage; `edgeexit.convert.quantise` says what each is."""


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
    calibration inputs on which a quantised variant must answer as the float one does, at each exit;
    `accuracy_loss` is how much less often than the float one it may be right there, None for any.
    """

    # Measured on ViT, CNN, Mixer and attention stages: 2e-6 at most. Fifty times that is still far
    # below what moves an answer, and leaves room for longer sums.
    parity: float = 1e-4
    # Dynamic int8 agreed on 99 % of answers where it was measured; half of that loss again, tenfold,
    # is a broken quantisation and not an imprecise one.
    agreement: float = 0.85
    # 16-bit weights keep 11 bits: 5e-4 relative a weight, a few times that after a stage.
    half_parity: float = 5e-2
    # Agreement bounds it too, but not as tightly as somebody may want.
    accuracy_loss: float | None = None


@dataclass(frozen=True, slots=True)
class ConversionPlan:
    """What the bundle is, what it comes from, and how much is measured on the way.

    `network` names architecture and size, `dataset` what calibrated it, `licence` what covers the
    weights; `recipe_sha256` is the digest of the recipe's own file, where one made the plan.
    `variants` always begins with f32, the one that parity is proven on.
    `codecs` are the ways of sending a boundary that are measured, each where it suits; raw is one of them.
    Bottlenecks among them are trained on `bottleneck_samples` images for each boundary, or until so many
    seconds have passed.
    `risk_epsilons` are the accuracy drops for which early-exit thresholds are certified,
    `inconsistency_epsilons` the shares of early answers that are not the last exit's; with
    `inconsistency_tolerance`, regression only, values are the same answer up to this difference.
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
    recipe_sha256: str | None = None
    variants: tuple[VariantName, ...] = ("f32", "int8")
    codecs: tuple[CodecName, ...] = PLAIN_CODECS
    tolerances: Tolerances = Tolerances()
    # Parity is a property of arithmetic, not of data: a few real inputs show it.
    parity_samples: int = 16
    golden_samples: int = 8
    # A cost is then known in steps of 0.2 points; every codec of every boundary runs all stages behind it.
    codec_samples: int = 500
    # Two and a half times round the 8,000 images whose tensors are kept in memory meanwhile.
    bottleneck_samples: int = 20_000
    bottleneck_seconds: float | None = None
    # Regression only: mean absolute error of always answering the training median (quality 0).
    error_scale: float | None = None
    risk_epsilons: tuple[float, ...] = (0.01, 0.02, 0.05)
    # Up to twice the largest accuracy drop: answers may differ and both be wrong, and the thresholds of
    # each accuracy drop should lie within some inconsistency, the only risk that a device can watch.
    inconsistency_epsilons: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1)
    # None takes a tenth of `error_scale`, as for the agreement of variants.
    inconsistency_tolerance: float | None = None
    risk_delta: float = 0.1
    # How much quality an exit may lose, as a fraction, to the fastest mixture of variants; None seeks none.
    mixture_loss: float | None = None
    # Milliseconds of each stage by variant, from the board that it is for; empty times them here.
    mixture_times: tuple[tuple[str, tuple[float | None, ...]], ...] = ()
    # Interpreters running side by side while whole sets are answered; None takes every core.
    workers: int | None = None

    def __post_init__(self) -> None:
        for key, refused, why in (
            ("name", _NAME.fullmatch(self.name) is None, "letters, digits, dots, hyphens; at most 64"),
            ("version", _VERSION.fullmatch(self.version) is None, "three numbers are wanted, like 1.0.0"),
            ("network", not _is_text(self.network), "one printable line is wanted"),
            ("dataset", not _is_text(self.dataset), "one printable line is wanted"),
            ("licence", not _is_text(self.licence), "one printable line is wanted: what covers the weights"),
            ("labels", not all(map(_is_text, self.labels)), "each is one printable line"),
            ("variants", self.variants[:1] != ("f32",), "f32 comes first: parity is proven on it"),
            ("variants", not set(self.variants) <= set(get_args(VariantName)), "one of them is unknown"),
            ("variants", len(set(self.variants)) != len(self.variants), "each is named once"),
            ("codecs", not set(self.codecs) <= set(get_args(CodecName)), "one of them is unknown"),
            ("codecs", "raw" not in self.codecs, "raw is one of them: the others are held against it"),
            ("risk_epsilons", not all(0.0 < e < 1.0 for e in self.risk_epsilons), "they lie between 0 and 1"),
            (
                "inconsistency_epsilons",
                not all(0.0 < e < 1.0 for e in self.inconsistency_epsilons),
                "they lie between 0 and 1",
            ),
            ("risk_delta", not 0.0 < self.risk_delta < 1.0, "it lies between 0 and 1"),
            ("parity_samples", self.parity_samples < 1, "at least 1 is needed"),
            ("golden_samples", self.golden_samples < LEAST_GOLDEN, f"at least {LEAST_GOLDEN} are needed"),
            ("codec_samples", self.codec_samples < 1, "at least 1 is needed"),
            ("bottleneck_samples", self.bottleneck_samples < 1, "at least 1 is needed"),
            (
                "bottleneck_seconds",
                self.bottleneck_seconds is not None and not 0.0 < self.bottleneck_seconds < float("inf"),
                "more than 0 are wanted",
            ),
            (
                "mixture_loss",
                self.mixture_loss is not None and not 0.0 <= self.mixture_loss < 1.0,
                "it lies from 0 to below 1: 0.005 is half a point",
            ),
            *self._task_rules(),
        ):
            if refused:
                raise ConfigError("conversion plan is refused", key=key, why=f"{key}: {why}")

    def _task_rules(self) -> tuple[tuple[str, bool, str], ...]:
        tolerance = self.inconsistency_tolerance
        if self.task == "classification":
            return (
                ("labels", len(self.labels) < 2, "a classifier has at least two"),
                ("inconsistency_tolerance", tolerance is not None, "classes have none"),
            )
        scaled = self.error_scale is not None and self.error_scale > 0.0
        tolerated = tolerance is None or 0.0 < tolerance < float("inf")
        return (
            ("labels", bool(self.labels), "a regression has none"),
            ("error_scale", not scaled, "a regression needs one, above 0"),
            ("inconsistency_tolerance", not tolerated, "it lies above 0"),
        )

    @property
    def quality_scale(self) -> float:
        """`error_scale`; a classifier's quality has none, and never reads it."""
        return self.error_scale or 1.0

    @property
    def tolerance(self) -> float | None:
        """Up to which difference two values are the same answer; None for classes."""
        if self.task == "classification":
            return None
        return self.inconsistency_tolerance or SAME_VALUE * self.quality_scale


def _is_text(text: str) -> bool:
    return 0 < len(text) <= _LONGEST_TEXT and text.isprintable()


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


def check_set(labelled: LabelledSet, *, what: str, plan: ConversionPlan, least: int = 1) -> None:
    """Refuse a set that cannot be what the plan says, or has fewer than `least` images.

    Raises: DataError.
    """
    images, targets = labelled.images, labelled.targets
    why = None
    if images.ndim != 4:
        why = f"images have shape {images.shape}, not (N, C, H, W)"
    elif len(images) != len(targets):
        why = f"{len(images)} images have {len(targets)} targets"
    elif len(images) < least:
        why = f"it has {len(images)} images, at least {least} are needed"
    elif images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
        why = f"images are {images.dtype}, neither uint8 nor floating"
    elif plan.task == "classification" and len(targets):
        classes = targets.astype(np.int64)
        if not ((classes >= 0) & (classes < len(plan.labels))).all():
            why = f"a target is none of the {len(plan.labels)} labels"
    if why is not None:
        few = images.ndim == 4 and len(images) < least
        fix = "hold out more images; of your own data 15 % are" if few else None
        raise DataError(f"the {what} set is refused", file=what, why=why, fix=fix)
