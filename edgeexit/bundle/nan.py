"""Whether weights hold what is no number, looked at in place and in little memory."""

from __future__ import annotations

from typing import Literal

import numpy as np

Floating = Literal["f32", "f16", "f64", "bf16"]

_LAYOUTS: dict[Floating, str] = {"f32": "<f4", "f16": "<f2", "f64": "<f8", "bf16": "<u2"}
# Half a megabyte of booleans at a time: the check's own memory does not grow with the model.
CHUNK = 2**19


def holds_nan(data: memoryview, start: int, size_bytes: int, kind: Floating | None) -> bool:
    """Whether numbers of a floating type hold one that is none; False for other types, which are None."""
    if kind is None:
        return False
    layout = np.dtype(_LAYOUTS[kind])
    numbers = np.frombuffer(data, layout, size_bytes // layout.itemsize, start)
    for at in range(0, len(numbers), CHUNK):
        some = numbers[at : at + CHUNK]
        # Of bfloat16, which numpy has not: exponent all ones and any digit behind it; the sign counts not.
        if ((some & 0x7FFF) > 0x7F80 if kind == "bf16" else np.isnan(some)).any():
            return True
    return False
