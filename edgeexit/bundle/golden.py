"""Golden vectors: inputs, and what the float network answered to them at every exit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import Manifest
from edgeexit.errors import BundleError, MissingExtra, ShapeError

# 32 colour images of 512 by 512 as float32 are 96 MiB; a bundle for a small board stays far below.
GOLDEN_CAP_BYTES = 128 * 2**20

# 16 to 32 vectors tell a broken kernel from a sound one; more would only slow every start.
MOST_VECTORS = 1024


@dataclass(frozen=True, slots=True, eq=False)
class GoldenVectors:
    """Inputs and the float network's answers to them.

    Shapes: inputs, (n, *shape) for each tensor of boundary 0, so (n, 1, 1, 28, 28) for one grey NCHW
    image; outputs, one (n, C) for each exit. All float32, n ≥ 1.
    """

    inputs: Mapping[str, NDArray[np.float32]]
    outputs: tuple[NDArray[np.float32], ...]

    @property
    def count(self) -> int:
        """n."""
        return int(self.outputs[0].shape[0])

    def sample(self, index: int) -> dict[str, NDArray[np.float32]]:
        """The tensors of boundary 0 of one vector, batch 1."""
        return {name: values[index] for name, values in self.inputs.items()}


def encode_golden(inputs: Mapping[str, NDArray[np.float32]], outputs: Sequence[NDArray[np.float32]]) -> bytes:
    """Golden vectors as safetensors: `input.<name>` and `exit.<k>`.

    Raises: MissingExtra.
    """
    try:
        from safetensors.numpy import save
    except ImportError as error:
        raise MissingExtra("safetensors", extra="device", needed_for="writing golden vectors") from error
    tensors = {f"input.{name}": _dense(values) for name, values in inputs.items()}
    tensors |= {f"exit.{k}": _dense(values) for k, values in enumerate(outputs)}
    return bytes(save(tensors))


def decode_golden(data: bytes, manifest: Manifest, *, file: str) -> GoldenVectors:
    """Read golden vectors and hold them against the manifest.

    Raises: BundleError (not safetensors, or a number that is not finite), ShapeError, MissingExtra.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load
    except ImportError as error:
        raise MissingExtra("safetensors", extra="device", needed_for="reading golden vectors") from error
    try:
        tensors: dict[str, NDArray[np.generic]] = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise BundleError(f"{file} holds no golden vectors", file=file, why=str(error)) from error
    specs = manifest.boundaries[0].tensors
    exits = range(manifest.stage_count)
    wanted = {f"input.{spec.name}" for spec in specs} | {f"exit.{k}" for k in exits}
    if set(tensors) != wanted:
        raise ShapeError(file=file, stage=0, expected=_names(wanted), got=_names(set(tensors)))
    count = _count(tensors["exit.0"], file)
    return GoldenVectors(
        inputs={
            spec.name: _checked(tensors[f"input.{spec.name}"], (count, *spec.shape), stage=0, file=file)
            for spec in specs
        },
        outputs=tuple(
            _checked(tensors[f"exit.{k}"], (count, manifest.exits[k].output.shape[-1]), stage=k, file=file)
            for k in exits
        ),
    )


def _dense(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(values, dtype=np.float32)


def _names(names: set[str]) -> str:
    return "tensors " + ", ".join(sorted(names)[:16])


def _count(values: NDArray[np.generic], file: str) -> int:
    count = values.shape[0] if values.ndim else 0
    if not 1 <= count <= MOST_VECTORS:
        raise ShapeError(file=file, stage=0, expected=f"1 to {MOST_VECTORS} vectors", got=str(count))
    return count


def _checked(
    values: NDArray[np.generic], shape: tuple[int, ...], *, stage: int, file: str
) -> NDArray[np.float32]:
    if values.shape != shape or values.dtype != np.float32:
        raise ShapeError(
            file=file, stage=stage, expected=f"{shape} float32", got=f"{values.shape} {values.dtype}"
        )
    floats = values.astype(np.float32, copy=False)
    if not np.isfinite(floats).all():
        raise BundleError(f"{file} is refused", file=file, why="a golden vector is not finite")
    return floats
