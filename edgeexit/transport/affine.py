"""Values in few bits: affine codes with one scale for a tensor, or one for each index along an axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Per = Literal["tensor", "token", "channel"]

# Scales of one boundary, all tensors together: at 9 bytes, and up to 2 for the zero point, they leave a
# quarter of a header's 4096 bytes to everything else. A boundary with more is coded with one a tensor.
SCALES_CAP = 256

# The smallest normal float32 keeps the quotient finite where a tensor holds next to nothing.
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True)
class Affine:
    """Codes with value = (code - zero_point) * scale.

    Shapes: codes as the values; scale and zero_point (1,), or with `axis` (n,).
    """

    codes: NDArray[np.int8]
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None


def axis_of(shape: tuple[int, ...], per: Per, tensors: int) -> int | None:
    """The axis that has its own scales; None for one scale.

    Tokens lie along the middle of (1, T, C), channels along its end; channels of (1, C, H, W) come first.
    Other shapes have neither, and more scales than the header holds for so many tensors are none.
    """
    axis = {("token", 3): 1, ("channel", 3): 2, ("channel", 4): 1}.get((per, len(shape)))
    if axis is None or shape[axis] > SCALES_CAP // max(1, tensors):
        return None
    return axis


def affine(values: NDArray[np.float32], bits: int, axis: int | None) -> Affine:
    """Code finite values. Shapes: kept.

    Zero is always representable: attention masks and ReLU outputs are full of exact zeros. No value comes
    back further off than one step, (largest or 0 - smallest or 0) / (2**bits - 1), of its scale.
    """
    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    if axis is None:
        low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
        scale = max((high - low) / (highest - lowest), _TINY)
        zero_point = max(lowest, min(highest, round(lowest - low / scale)))
        coded = values * np.float32(1.0 / scale)
        coded += np.float32(zero_point)
        return Affine(_rounded(coded, lowest, highest), (scale,), (zero_point,), None)
    others = tuple(index for index in range(values.ndim) if index != axis)
    lows = np.minimum(values.min(axis=others), 0.0).astype(np.float64)  # (n,)
    highs = np.maximum(values.max(axis=others), 0.0).astype(np.float64)  # (n,)
    scales = np.maximum((highs - lows) / (highest - lowest), _TINY)  # (n,)
    zero_points = np.clip(np.rint(lowest - lows / scales), lowest, highest)  # (n,)
    spread = [1] * values.ndim
    spread[axis] = scales.size
    coded = values * (1.0 / scales).astype(np.float32).reshape(spread)  # (n,) → 1…n…1
    coded += zero_points.astype(np.float32).reshape(spread)  # (n,) → 1…n…1
    codes = _rounded(coded, lowest, highest)
    return Affine(codes, tuple(scales.tolist()), tuple(int(point) for point in zero_points), axis)


def _rounded(coded: NDArray[np.float32], lowest: int, highest: int) -> NDArray[np.int8]:
    np.rint(coded, out=coded)
    np.clip(coded, lowest, highest, out=coded)
    return coded.astype(np.int8)
