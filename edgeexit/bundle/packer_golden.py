"""Golden vectors of a packer: what it makes of boundaries, and what becomes of that on the other side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import Packer
from edgeexit.errors import BundleError, MissingExtra, ShapeError

Floats = NDArray[np.float32]

# Four vectors prove a model of a few layers; this many times the packed tensors of a large boundary stay
# below the cap.
MOST_PACKER_VECTORS = 64
PACKER_GOLDEN_CAP_BYTES = 32 * 2**20


@dataclass(frozen=True, slots=True, eq=False)
class PackerGolden:
    """Of the first n golden vectors: what the packer gives, what of it arrives, and the answer to that.

    Shapes: packed and arrived, (n, *shape) for each tensor of the packer; answers (n, C), the last exit's.
    """

    packed: Mapping[str, Floats]
    arrived: Mapping[str, Floats]
    answers: Floats

    @property
    def count(self) -> int:
        """n."""
        return int(self.answers.shape[0])


def encode_packer_golden(golden: PackerGolden) -> bytes:
    """As safetensors: `packed.<name>`, `arrived.<name>` and `answers`. Raises: MissingExtra."""
    try:
        from safetensors.numpy import save
    except ImportError as error:
        raise MissingExtra("safetensors", extra="device", needed_for="writing golden vectors") from error
    tensors = {f"packed.{name}": np.ascontiguousarray(value) for name, value in golden.packed.items()}
    tensors |= {f"arrived.{name}": np.ascontiguousarray(value) for name, value in golden.arrived.items()}
    return bytes(save({**tensors, "answers": np.ascontiguousarray(golden.answers)}))


def decode_packer_golden(data: bytes, packer: Packer, *, classes: int) -> PackerGolden:
    """Read them and hold them against the manifest; `classes` is C of the last exit.

    Raises: BundleError (not safetensors, or a number that is not finite), ShapeError, MissingExtra.
    """
    file = packer.golden.file
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load
    except ImportError as error:
        raise MissingExtra("safetensors", extra="device", needed_for="reading golden vectors") from error
    try:
        tensors: dict[str, NDArray[np.generic]] = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise BundleError(f"{file} holds no golden vectors", file=file, why=str(error)) from error
    sides = ("packed", "arrived")
    wanted = {f"{side}.{spec.name}" for side in sides for spec in packer.tensors} | {"answers"}
    if set(tensors) != wanted:
        names = ["tensors " + ", ".join(sorted(each)[:16]) for each in (wanted, set(tensors))]
        raise ShapeError(file=file, stage=0, expected=names[0], got=names[1])
    answers = tensors["answers"]
    count = answers.shape[0] if answers.ndim else 0
    if not 1 <= count <= MOST_PACKER_VECTORS:
        raise ShapeError(file=file, stage=0, expected=f"1 to {MOST_PACKER_VECTORS} vectors", got=str(count))
    read = [
        {
            spec.name: _checked(tensors[f"{side}.{spec.name}"], (count, *spec.shape), file)
            for spec in packer.tensors
        }
        for side in sides
    ]
    return PackerGolden(read[0], read[1], _checked(answers, (count, classes), file))


def _checked(values: NDArray[np.generic], shape: tuple[int, ...], file: str) -> Floats:
    if values.shape != shape or values.dtype != np.float32:
        raise ShapeError(
            file=file, stage=0, expected=f"{shape} float32", got=f"{values.shape} {values.dtype}"
        )
    floats = values.astype(np.float32, copy=False)
    if not np.isfinite(floats).all():
        raise BundleError(f"{file} is refused", file=file, why="a golden vector is not finite")
    return floats
