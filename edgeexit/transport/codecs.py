"""Codecs: how the tensors of a boundary travel, and how they come back.

raw   as they are
f16   float32 as float16
int8  float32 as 8 bits, affine, one scale and zero point a tensor
u8    values from 0 to 1 as 8 bits: lossless for pixels that were bytes divided by 255

Tensors that are not float32 always travel raw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import CodecName, TensorSpec
from edgeexit.errors import WireError
from edgeexit.transport import wire
from edgeexit.transport.protocol import Tensor
from edgeexit.transport.wire import Header, Kind, WireTensor

_F32 = np.dtype(np.float32)

# A code covers the whole range of its tensor: beyond this, range and rounding leave float32.
_RANGE_CAP = 1e38

# Beyond it float16 is infinite: a large activation cut short harms an answer less than an infinite one.
_F16_MAX = np.float32(65504.0)

_UNIT_SCALE = 1.0 / 255.0

_WIRE_DTYPE: dict[str, str] = {"float32": "f4", "float16": "f2", "int8": "i1", "uint8": "u1", "int32": "i4"}
_CODED_DTYPE: dict[CodecName, str] = {"raw": "f4", "f16": "f2", "int8": "i1", "u8": "u1"}


def codec_name(text: str) -> CodecName:
    """The codec called so. Raises: WireError when none is."""
    for name in get_args(CodecName):
        if name == text:
            known: CodecName = name
            return known
    raise WireError(f"codec {text[:16]!r} is unknown")


def encode_tensors(tensors: Mapping[str, Tensor], codec: CodecName) -> tuple[WireTensor, ...]:
    """The tensors as they travel.

    Raises: WireError for values that are not finite under int8 and u8, and for types that do not travel.
    """
    return tuple(_encode(name, tensor, codec) for name, tensor in tensors.items())


def decode_tensors(received: Sequence[WireTensor], specs: Sequence[TensorSpec]) -> dict[str, Tensor]:
    """The tensors of a boundary as its specifications want them; views where nothing had to be done.

    Raises: WireError when names, shapes or types are not those of the boundary.
    """
    by_name = {tensor.name: tensor for tensor in received}
    if len(received) != len(specs) or by_name.keys() != {spec.name for spec in specs}:
        raise WireError(f"expected the tensors {', '.join(spec.name for spec in specs)}")
    return {spec.name: _decode(by_name[spec.name], spec) for spec in specs}


def payload_bytes(specs: Sequence[TensorSpec], codec: CodecName) -> int:
    """Size of a request frame with these tensors, header included.

    Numbers in the header take one byte or a few more; the size given here is for long ones (frames up
    to 2**32), so that the true frame is never larger and at most 16 bytes smaller.
    """
    described = tuple(_describe(spec, codec) for spec in specs)
    header = Header(
        kind=Kind.REQUEST,
        request_id=bytes(wire.REQUEST_ID_BYTES),
        bundle_digest=bytes(wire.DIGEST_BYTES),
        stage_in=255,
        stage_out=255,
        frame=2**31,
        budget_left_ms=1.0,
    )
    return wire.size_bytes(header, described)


def _encode(name: str, tensor: Tensor, codec: CodecName) -> WireTensor:
    if tensor.dtype != _F32 or codec == "raw":
        return WireTensor.of(name, tensor)
    values: NDArray[np.float32] = tensor.astype(np.float32, copy=False)
    if codec == "f16":
        return WireTensor(name, "f2", np.clip(values, -_F16_MAX, _F16_MAX).astype(np.float16))
    low, high = float(values.min()), float(values.max())
    # Written so that NaN fails too.
    if not (low > -_RANGE_CAP and high < _RANGE_CAP):
        raise WireError(f"tensor {name}: values that are not finite cannot travel as {codec}")
    if codec == "u8":
        scaled = values * np.float32(255.0)
        if low < 0.0 or high > 1.0:
            np.clip(scaled, 0.0, 255.0, out=scaled)
        np.rint(scaled, out=scaled)
        return WireTensor(name, "u1", scaled.astype(np.uint8), (_UNIT_SCALE,), (0,))
    return _affine(name, values, min(low, 0.0), max(high, 0.0))


def _affine(name: str, values: NDArray[np.float32], low: float, high: float) -> WireTensor:
    """Zero is always representable: attention masks and ReLU outputs are full of exact zeros."""
    # The smallest normal float32 keeps the quotient finite where a tensor holds next to nothing.
    scale = max((high - low) / 255.0, float(np.finfo(np.float32).tiny))
    zero_point = max(-128, min(127, round(-128.0 - low / scale)))
    coded = values * np.float32(1.0 / scale)
    coded += np.float32(zero_point)
    np.rint(coded, out=coded)
    np.clip(coded, -128.0, 127.0, out=coded)
    return WireTensor(name, "i1", coded.astype(np.int8), (scale,), (zero_point,))


def _decode(tensor: WireTensor, spec: TensorSpec) -> Tensor:
    if tensor.data.shape != spec.shape:
        raise WireError(f"tensor {spec.name}: {list(tensor.data.shape)}, expected {list(spec.shape)}")
    if not tensor.scale and tensor.dtype == _WIRE_DTYPE[spec.dtype]:
        return tensor.data
    if spec.dtype != "float32":
        raise WireError(f"tensor {spec.name}: {tensor.dtype} is not {spec.dtype}")
    if tensor.scale:
        return _dequantize(tensor)
    if tensor.dtype == "f2":
        return tensor.data.astype(np.float32)
    if tensor.dtype == "bf16":
        return (tensor.data.astype(np.uint32) << np.uint32(16)).view(np.float32)
    raise WireError(f"tensor {spec.name}: {tensor.dtype} without a scale is not {spec.dtype}")


def _dequantize(tensor: WireTensor) -> NDArray[np.float32]:
    if tensor.dtype not in ("i1", "u1", "i2", "i4"):
        raise WireError(f"tensor {tensor.name}: {tensor.dtype} does not go with a scale")
    if tensor.dtype == "u1" and tensor.scale == (_UNIT_SCALE,) and tensor.zero_point == (0,):
        # Division, not multiplication: it gives the very float that byte / 255 gave before.
        return np.divide(tensor.data, np.float32(255.0), dtype=np.float32)
    spread = [1] * tensor.data.ndim
    if tensor.axis is not None:
        spread[tensor.axis] = len(tensor.scale)
    # A hostile scale may overflow; the numbers are nonsense then, and a warning would help nobody.
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        scale = np.array(tensor.scale, np.float64).astype(np.float32).reshape(spread)  # (n,) → 1…n…1
        zero_point = np.array(tensor.zero_point, np.float32).reshape(spread)  # (n,) → 1…n…1
        values = np.subtract(tensor.data, zero_point, dtype=np.float32)
        values *= scale
    return values


def _describe(spec: TensorSpec, codec: CodecName) -> wire.TensorHeader:
    coded = spec.dtype == "float32"
    dtype = _CODED_DTYPE[codec] if coded else _WIRE_DTYPE[spec.dtype]
    size_bytes = spec.size * wire.WIRE_DTYPES[dtype].itemsize
    scaled = coded and codec in ("int8", "u8")
    return wire.TensorHeader(
        name=spec.name,
        dtype=dtype,
        shape=spec.shape,
        raw_bytes=size_bytes,
        stored_bytes=size_bytes,
        scale=(1.0,) if scaled else (),
        zero_point=(-128,) if scaled else (),
    )
