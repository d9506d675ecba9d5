"""What `benchmarks.convert` finds, as rows."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec


class VariantRow(msgspec.Struct, frozen=True, kw_only=True):
    """One variant of a whole network.

    Units: mb; parity, largest absolute difference to the float network in any tensor, on real inputs;
    ms, all stages, with LiteRT, or ONNX Runtime for the variants of its own; tflite_runtime_ms, the same
    there. None where the runtime may not load it or it proved wrong: `refused` says which.
    """

    variant: str
    mb: float
    parity: float
    ms: float | None
    tflite_runtime_ms: float | None = None
    refused: str | None = None
    tflite_runtime_refused: str | None = None


class OtherRow(msgspec.Struct, frozen=True, kw_only=True):
    """The same network by onnx2tf, beside litert-torch's f32 files, one thread, taken in turn.

    Units: seconds, of lowering all stages, its environment being there.
    """

    version: str
    seconds: float
    parity: float
    mb: float
    ms: float
    litert_torch_seconds: float
    litert_torch_mb: float
    litert_torch_ms: float


class CaseRow(msgspec.Struct, frozen=True, kw_only=True):
    """One network. Units: as the names end; `seconds` and `peak_mb` of the default conversion."""

    case: str
    what: str
    stages: int
    parameters: int
    seconds: float
    peak_mb: float
    f32_parity: float
    variants: tuple[VariantRow, ...]
    onnx2tf: OtherRow | None = None


class TrainedRow(msgspec.Struct, frozen=True, kw_only=True):
    """The trained network. Units: points of accuracy lost to f32 at each exit, by variant; ms by variant."""

    checkpoint: str
    test_images: int
    accuracy: dict[str, tuple[float, ...]]
    lost_points: dict[str, tuple[float, ...]]
    ms: dict[str, float]
    f32_parity: float


class TfliteTimes(msgspec.Struct, frozen=True, kw_only=True):
    """What tflite-runtime found: ms by variant, and why others were refused."""

    version: str
    ms: dict[str, float]
    refused: dict[str, str]


@dataclass(frozen=True, slots=True)
class Result:
    """Units: as the names end; parities are absolute; speed-ups, f32's time over dynamic int8's."""

    cases: tuple[CaseRow, ...]
    trained: TrainedRow
    worst_f32_parity: float
    int8_speedup: float
    int8_worst_loss_points: float
    vit_tiny_int8_speedup: float
    vit_tiny_s: float
    onnx2tf_worst_parity: float
