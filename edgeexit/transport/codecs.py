"""Codecs: how the tensors of a boundary travel, and how they come back.

raw    as they are
f16    float32 as float16
int8   float32 as 8 bits, affine, one scale and zero point a tensor; int8-token, int8-channel: one of each
       for every token or channel
int4   the same with 4 bits, two values a byte
u8     values from 0 to 1 as 8 bits: lossless for pixels that were bytes divided by 255
-zstd, -lz4 compressed on top of that, without further loss, where it makes fewer bytes
jpeg95 images from 0 to 1 as JPEG files of quality 95
pool4-int8, pool4-int4: what a bundle's packer made of the boundary, four patches in one, 8 or 4 bits a value
with one scale a token
merge8-int8, merge8-int4: of a packer that makes eight patches one by what they hold, one scale a tensor
bottleneck8: what a learnt packer made of it, eight values a patch, each a whole number from -8 to 7

What travels under the last three is not the boundary: `edgeexit.runner.packing` makes it there and back. Of
several tensors that a packer gives, the one of its own name is coded; what goes along with that travels raw.

Tensors that are not float32 always travel raw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import CodecName, TensorSpec
from edgeexit.errors import WireError
from edgeexit.transport import wire
from edgeexit.transport.affine import Per, affine, axis_of
from edgeexit.transport.protocol import Tensor
from edgeexit.transport.storage import (
    JPEG,
    NIBBLES,
    Compression,
    Storage,
    jpeg_cap_bytes,
    store,
    write_jpeg,
)
from edgeexit.transport.wire import Header, Kind, WireTensor

_F32 = np.dtype(np.float32)

# A code covers the whole range of its tensor: beyond this, range and rounding leave float32.
_RANGE_CAP = 1e38

# Beyond it float16 is infinite: a large activation cut short harms an answer less than an infinite one.
_F16_MAX = np.float32(65504.0)

_UNIT_SCALE = 1.0 / 255.0

_WIRE_DTYPE: dict[str, str] = {"float32": "f4", "float16": "f2", "int8": "i1", "uint8": "u1", "int32": "i4"}


@dataclass(frozen=True, slots=True)
class _Coding:
    """What a codec does to a float32 tensor.

    `quality` is that of JPEG, None without. `whole` values are rounded and keep the scale 1. `packed`: a
    bundle's packer comes before it, and its other half after it.
    """

    dtype: Literal["f4", "f2", "i1", "u1"]
    bits: int = 8
    per: Per = "tensor"
    compression: Compression | None = None
    quality: int | None = None
    whole: bool = False
    packed: bool = False

    @property
    def abilities(self) -> frozenset[str]:
        """What sender and receiver must be able to do."""
        needed = {NIBBLES} if self.bits == 4 else set()
        needed |= set() if self.compression is None else {self.compression}
        return frozenset(needed | ({JPEG} if self.quality is not None else set()))


_RAW = _Coding("f4")

_CODINGS: dict[CodecName, _Coding] = {
    "raw": _RAW,
    "f16": _Coding("f2"),
    "int8": _Coding("i1"),
    "u8": _Coding("u1"),
    "int8-token": _Coding("i1", per="token"),
    "int8-channel": _Coding("i1", per="channel"),
    "int4": _Coding("i1", bits=4),
    "int4-token": _Coding("i1", bits=4, per="token"),
    "int4-channel": _Coding("i1", bits=4, per="channel"),
    "u8-zstd": _Coding("u1", compression="zstd"),
    "int8-zstd": _Coding("i1", compression="zstd"),
    "int4-zstd": _Coding("i1", bits=4, compression="zstd"),
    "int4-token-zstd": _Coding("i1", bits=4, per="token", compression="zstd"),
    "u8-lz4": _Coding("u1", compression="lz4"),
    "int8-lz4": _Coding("i1", compression="lz4"),
    "int4-lz4": _Coding("i1", bits=4, compression="lz4"),
    "jpeg95": _Coding("u1", quality=95),
    "jpeg85": _Coding("u1", quality=85),
    "jpeg70": _Coding("u1", quality=70),
    "jpeg50": _Coding("u1", quality=50),
    "jpeg30": _Coding("u1", quality=30),
    "pool4-int8": _Coding("i1", per="token", packed=True),
    "pool4-int4": _Coding("i1", bits=4, per="token", packed=True),
    "merge4-int8": _Coding("i1", packed=True),
    "merge4-int4": _Coding("i1", bits=4, packed=True),
    "merge8-int8": _Coding("i1", packed=True),
    "merge8-int4": _Coding("i1", bits=4, packed=True),
    "merge16-int8": _Coding("i1", packed=True),
    "merge16-int4": _Coding("i1", bits=4, packed=True),
    "bottleneck8": _Coding("i1", bits=4, whole=True, packed=True),
    "bottleneck4": _Coding("i1", bits=4, whole=True, packed=True),
    "bottleneck2": _Coding("i1", bits=4, whole=True, packed=True),
    "bottleneck8-zstd": _Coding("i1", bits=4, whole=True, packed=True, compression="zstd"),
    "bottleneck4-zstd": _Coding("i1", bits=4, whole=True, packed=True, compression="zstd"),
    "bottleneck2-zstd": _Coding("i1", bits=4, whole=True, packed=True, compression="zstd"),
}


_NAMES: dict[str, CodecName] = {name: name for name in _CODINGS}

_ABILITIES: dict[CodecName, frozenset[str]] = {name: coding.abilities for name, coding in _CODINGS.items()}


def codec_name(text: str) -> CodecName:
    """The codec called so. Raises: WireError when none is."""
    name = _NAMES.get(text)
    if name is None:
        raise WireError(f"codec {text[:16]!r} is unknown")
    return name


def abilities_for(codec: str, boundary: int) -> frozenset[str]:
    """What both ends must be able to do for this codec there; every version and gateway knows those of none.

    Raises: WireError for a name that is no codec.
    """
    name = codec_name(codec)
    abilities = _ABILITIES[name]
    return abilities | {packer_ability(boundary, codec)} if _CODINGS[name].packed else abilities


def packer_ability(boundary: int, codec: str) -> str:
    """What a gateway that has proved the packer behind this codec says that it can do with a bundle."""
    return f"{codec}@{boundary}"


def size_varies(codec: CodecName) -> bool:
    """Whether the size of a payload depends on its values."""
    coding = _CODINGS[codec]
    return coding.compression is not None or coding.quality is not None


def is_packed(codec: str) -> bool:
    """Whether a bundle's packer makes what travels. Raises: WireError for a name that is no codec."""
    return _CODINGS[codec_name(codec)].packed


def packer_name(codec: str) -> str:
    """What the packer behind a packed codec is called, and the tensor of it that is coded."""
    return codec.partition("-")[0]


def uncompressed(codec: CodecName) -> CodecName:
    """The codec that gives the same values without compressing them; itself where it compresses nothing."""
    compression = _CODINGS[codec].compression
    return codec if compression is None else codec_name(codec.removesuffix(f"-{compression}"))


def encode_tensors(tensors: Mapping[str, Tensor], codec: CodecName) -> tuple[WireTensor, ...]:
    """The tensors as they travel.

    Raises: WireError for values that are not finite where the codec has none such, for types that do not
    travel, for what is no image under JPEG, and where a library that the codec needs is not installed.
    """
    coding = _CODINGS[codec]
    if coding.packed and len(tensors) > 1:
        own = packer_name(codec)
        return tuple(
            _encode(name, tensor, codec, coding, 1) if name == own else WireTensor.of(name, tensor)
            for name, tensor in tensors.items()
        )
    return tuple(_encode(name, tensor, codec, coding, len(tensors)) for name, tensor in tensors.items())


def decode_tensors(received: Sequence[WireTensor], specs: Sequence[TensorSpec]) -> dict[str, Tensor]:
    """The tensors of a boundary as its specifications want them; views where nothing had to be done.

    Raises: WireError when names, shapes or types are not those of the boundary.
    """
    by_name = {tensor.name: tensor for tensor in received}
    if len(received) != len(specs) or by_name.keys() != {spec.name for spec in specs}:
        raise WireError(f"expected the tensors {', '.join(spec.name for spec in specs)}")
    return {spec.name: _decode(by_name[spec.name], spec) for spec in specs}


def payload_bytes(specs: Sequence[TensorSpec], codec: CodecName) -> int:
    """Size of a request frame with these tensors, header included; the most there is where sizes vary.

    Numbers in the header take one byte or a few more; the size given here is for long ones (frames up
    to 2**32), so that the true frame is never larger, and where sizes do not vary at most 16 bytes and one
    for each scale smaller.
    """
    coding = _CODINGS[codec]
    if coding.packed and len(specs) > 1:
        own = packer_name(codec)
        return _frame_bytes([_describe(spec, coding if spec.name == own else _RAW, 1) for spec in specs])
    return _frame_bytes([_describe(spec, coding, len(specs)) for spec in specs])


def sent_bytes(tensors: Sequence[WireTensor]) -> int:
    """Size of a request frame with just these encoded tensors; as exact as `payload_bytes`."""
    return _frame_bytes([tensor.header for tensor in tensors])


def _frame_bytes(described: Sequence[wire.TensorHeader]) -> int:
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


def _encode(name: str, tensor: Tensor, codec: CodecName, coding: _Coding, tensors: int) -> WireTensor:
    if tensor.dtype != _F32 or coding.dtype == "f4":
        return WireTensor.of(name, tensor)
    values: NDArray[np.float32] = tensor.astype(np.float32, copy=False)
    if coding.dtype == "f2":
        return WireTensor(name, "f2", np.clip(values, -_F16_MAX, _F16_MAX).astype(np.float16))
    low, high = float(values.min()), float(values.max())
    # Written so that NaN fails too.
    if not (low > -_RANGE_CAP and high < _RANGE_CAP):
        raise WireError(f"tensor {name}: values that are not finite cannot travel as {codec}")
    if coding.dtype == "u1":
        scaled = values * np.float32(255.0)
        if low < 0.0 or high > 1.0:
            np.clip(scaled, 0.0, 255.0, out=scaled)
        np.rint(scaled, out=scaled)
        pixels = scaled.astype(np.uint8)
        coded = WireTensor(name, "u1", pixels, (_UNIT_SCALE,), (0,))
        if coding.quality is not None:
            file = write_jpeg(pixels, coding.quality)
            return coded.kept_as(Storage.JPEG, file)
    elif coding.whole:
        # Runtimes differ in the last bits, and a value halfway between two codes may become either.
        codes = np.clip(np.rint(values), -8, 7).astype(np.int8)
        coded = WireTensor(name, "i1", codes, (1.0,), (0,))
    else:
        found = affine(values, coding.bits, axis_of(values.shape, coding.per, tensors))
        coded = WireTensor(name, "i1", found.codes, found.scale, found.zero_point, found.axis)
    if coding.compression is None and coding.bits == 8:
        return coded
    storage, stored = store(coded.data, compression=coding.compression, nibbles=coding.bits == 4)
    if storage is Storage.PLAIN:
        return coded
    return coded.kept_as(storage, stored)


def _decode(tensor: WireTensor, spec: TensorSpec) -> Tensor:
    if tensor.shape != spec.shape:
        raise WireError(f"tensor {spec.name}: {list(tensor.shape)}, expected {list(spec.shape)}")
    if tensor.storage is not Storage.PLAIN:
        # Only now, when it is known to be wanted.
        tensor = tensor.kept_as(Storage.PLAIN, tensor.values())
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


def _describe(spec: TensorSpec, coding: _Coding, tensors: int) -> wire.TensorHeader:
    coded = spec.dtype == "float32"
    dtype = coding.dtype if coded else _WIRE_DTYPE[spec.dtype]
    raw_bytes = stored_bytes = spec.size * wire.WIRE_DTYPES[dtype].itemsize
    storage, scales, axis = Storage.PLAIN, 0, None
    if coded and dtype in ("i1", "u1"):
        scales = 1
        axis = axis_of(spec.shape, coding.per, tensors)
        if axis is not None:
            scales = spec.shape[axis]
        if coding.bits == 4:
            storage, stored_bytes = Storage.NIBBLES, (raw_bytes + 1) // 2
        elif coding.quality is not None:
            storage, stored_bytes = Storage.JPEG, jpeg_cap_bytes(raw_bytes)
    return wire.TensorHeader(
        name=spec.name,
        dtype=dtype,
        shape=spec.shape,
        raw_bytes=raw_bytes,
        stored_bytes=stored_bytes,
        codec=int(storage),
        scale=(1.0,) * scales,
        zero_point=(-128 if coding.bits == 8 else -8,) * scales,
        axis=axis,
    )
