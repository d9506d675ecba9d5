"""The typed description of a bundle: what its files are, how they chain, and what each exit is worth.

Numbering, everywhere in edgeexit: stages and exits run from 0 to K-1. Boundary b is what stage b
takes: boundary 0 is the input, boundary b (b ≥ 1) the named tensors between stage b-1 and stage b.
Offloading boundary b asks a gateway to run stages b … K-1.
"""

from __future__ import annotations

from math import prod
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

# The one schema this version writes; it reads no other. Raise it when a field changes its meaning.
SCHEMA = 1

DType = Literal["float32", "float16", "int8", "uint8", "int32"]
ITEM_BYTES: dict[str, int] = {"float32": 4, "float16": 2, "int8": 1, "uint8": 1, "int32": 4}

Task = Literal["classification", "regression"]
Precision = Literal["f32", "f16", "int8"]
Format = Literal["tflite", "onnx"]
# The number behind "jpeg" is the quality, 1 to 95 as libjpeg counts; behind "pool" and "merge" how many
# patches become one; behind "bottleneck" how many values each patch comes down to.
CodecName = Literal[
    "raw",
    "f16",
    "int8",
    "u8",
    "int8-token",
    "int8-channel",
    "int4",
    "int4-token",
    "int4-channel",
    "u8-zstd",
    "int8-zstd",
    "int4-zstd",
    "int4-token-zstd",
    "u8-lz4",
    "int8-lz4",
    "int4-lz4",
    "jpeg95",
    "jpeg85",
    "jpeg70",
    "jpeg50",
    "jpeg30",
    "pool4-int8",
    "pool4-int4",
    "merge4-int8",
    "merge4-int4",
    "merge8-int8",
    "merge8-int4",
    "merge16-int8",
    "merge16-int4",
    "bottleneck8",
    "bottleneck4",
    "bottleneck2",
    "bottleneck8-zstd",
    "bottleneck4-zstd",
    "bottleneck2-zstd",
]


class _Noun(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Frozen and strict: an unknown field is an error, not a surprise later."""


class TensorSpec(_Noun, frozen=True):
    """One named tensor. Shapes: batch first, always 1 on a device."""

    name: str
    shape: tuple[int, ...]
    dtype: DType = "float32"

    @property
    def size(self) -> int:
        """How many elements the tensor has."""
        return prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """How many bytes the tensor has, raw."""
        return self.size * ITEM_BYTES[self.dtype]

    def __str__(self) -> str:
        return f"{self.name}{list(self.shape)} {self.dtype}"


class BoundaryCodec(_Noun, frozen=True):
    """One way of sending a boundary, and what it costs.

    Units: payload_bytes, all tensors together, the mean on the calibration split where the size depends
    on the values; p95_bytes, what 95 of 100 payloads do not exceed, UNSET where all are of one size;
    quality_cost, fraction of answers lost (0 = lossless), measured on the calibration split at the last
    exit.
    """

    codec: CodecName
    payload_bytes: int
    quality_cost: float
    p95_bytes: int | UnsetType = UNSET


class Blob(_Noun, frozen=True):
    """A file of the bundle. `file` is relative, with forward slashes, and stays inside."""

    file: str
    sha256: str
    size_bytes: int


class Packer(_Noun, frozen=True):
    """Two models that make a boundary smaller on the device, and whole again on the gateway.

    `pack` takes the boundary's tensors and gives `tensors`; `unpack` takes what came of these and gives the
    boundary's. Each of `codecs` says how `tensors` travel. `golden` are the float packer's tensors of the
    first golden vectors, and the answers of the last exit to what becomes of them.
    """

    name: str
    codecs: tuple[CodecName, ...]
    tensors: tuple[TensorSpec, ...]
    pack: Blob
    unpack: Blob
    golden: Blob
    runtimes: tuple[str, ...]

    def blobs(self) -> tuple[Blob, ...]:
        """Its files."""
        return (self.pack, self.unpack, self.golden)


class Boundary(_Noun, frozen=True):
    """What stage b takes, and the codecs in which it may travel.

    `packers` stand behind those codecs that send something made of the boundary instead of it. UNSET:
    there are none, and none in the file.
    """

    tensors: tuple[TensorSpec, ...]
    codecs: tuple[BoundaryCodec, ...]
    packers: tuple[Packer, ...] | UnsetType = UNSET

    def packer(self, codec: str) -> Packer | None:
        """The packer behind a codec; None where it needs none."""
        packers = () if isinstance(self.packers, UnsetType) else self.packers
        return next((packer for packer in packers if codec in packer.codecs), None)


class Variant(_Noun, frozen=True):
    """One lowering of a stage: its file, and what may load it.

    Units: parity_max_abs, largest absolute difference to the float network on real inputs.
    """

    name: str
    format: Format
    precision: Precision
    blob: Blob
    runtimes: tuple[str, ...]
    parity_max_abs: float


class Stage(_Noun, frozen=True):
    """The part of the network between exit k-1 and exit k, its exit branch included.

    `preferred` names the variant that a search chose: the fastest mixture of all stages within a loss of
    quality, where it was timed. UNSET: none was made, and not in the file.
    """

    parameters: int
    macs: int
    variants: tuple[Variant, ...]
    preferred: str | UnsetType = UNSET


class Calibration(_Noun, frozen=True):
    """What a score at exit k promises, for the exits k … K-1, on held-out data.

    `upper_scores[i]` is the upper edge of score bin i, rising, the last one 1.0.
    `quality[j - k][i]` is the expected quality of exit j given a score of exit k in bin i.
    Scores are the largest softmax probability after division of the logits by `temperature`.
    Units: fractions. Source: specification of the decision policy, isotonic quality tables.
    """

    variant: str
    temperature: float
    upper_scores: tuple[float, ...]
    quality: tuple[tuple[float, ...], ...]
    accuracy: float
    samples: int


class Exit(_Noun, frozen=True):
    """What stage k answers, with one calibration per variant of its stage.

    `accuracy_float` is the float network's accuracy at this exit, for comparison.
    """

    output: TensorSpec
    accuracy_float: float
    calibrations: tuple[Calibration, ...]

    def calibration(self, variant: str) -> Calibration:
        """The calibration fitted with this variant, else the first one.

        A mixture of variants is calibrated by the variant of the exit's own stage, which decides
        its scores most.
        """
        for calibration in self.calibrations:
            if calibration.variant == variant:
                return calibration
        return self.calibrations[0]


class RiskControl(_Noun, frozen=True):
    """An early-exit rule with a stated guarantee.

    Stop at the first exit k whose score is at least thresholds[k]; then, with confidence
    1 - delta, the risk named is at most epsilon on data like the calibration data.
    A threshold above 1 is never met: that exit is not certified.
    `accuracy-drop`: a right answer of the last exit is lost. `inconsistency`: the early answer is not
    the last exit's, whichever of the bundle's variants runs that; values of a regression differ when
    they are more than `tolerance` apart, in their own unit. UNSET: classes, and not in the file.
    """

    variant: str
    method: Literal["learn-then-test", "conformal-risk-control", "upper-confidence-bound"]
    risk: Literal["accuracy-drop", "inconsistency"]
    epsilon: float
    delta: float
    samples: int
    thresholds: tuple[float, ...]
    empirical_risk: float
    data: str
    tolerance: float | UnsetType = UNSET


class Preprocessing(_Noun, frozen=True):
    """How an image becomes the input tensor: colour, resize, then 8-bit values divided by 255.

    Normalisation by mean and deviation is part of stage 0, so that the input can travel as bytes.
    """

    height: int
    width: int
    color: Literal["gray", "rgb"]
    layout: Literal["NHWC", "NCHW"]


class Provenance(_Noun, frozen=True):
    """Where the bundle comes from, so that it can be made again.

    `tools` are names with versions. The digests are of the recipe's file, of all weights with the structure
    that they fill, and of the calibration images with their answers. UNSET: not stated, and not in the file.
    """

    network: str
    dataset: str
    licence: str
    tools: tuple[str, ...]
    checkpoint_sha256: str | None = None
    recipe_sha256: str | UnsetType = UNSET
    weights_sha256: str | UnsetType = UNSET
    data_sha256: str | UnsetType = UNSET


class Manifest(_Noun, frozen=True):
    """The whole description; its canonical JSON names the bundle by SHA-256.

    A date in it would give the same conversion another digest every time: `created` is what bundles of
    another making may carry, a conversion leaves it UNSET and dates its report and its signature instead.
    """

    schema: int
    name: str
    version: str
    serial: int
    task: Task
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    boundaries: tuple[Boundary, ...]
    stages: tuple[Stage, ...]
    exits: tuple[Exit, ...]
    golden: Blob
    provenance: Provenance
    risk_controls: tuple[RiskControl, ...] = ()
    created: str | UnsetType = UNSET

    @property
    def stage_count(self) -> int:
        """K: how many stages, and how many exits."""
        return len(self.stages)

    def blobs(self) -> tuple[Blob, ...]:
        """Every file of the bundle but the manifest itself."""
        files = [variant.blob for stage in self.stages for variant in stage.variants]
        return (*files, *(blob for packer in self.packers() for blob in packer.blobs()), self.golden)

    def packers(self) -> tuple[Packer, ...]:
        """Every packer of every boundary, in order."""
        each = [boundary.packers for boundary in self.boundaries]
        return tuple(packer for found in each if not isinstance(found, UnsetType) for packer in found)
