"""Frames, sans I/O: named tensors and a small header, in one message.

    0 magic "EEXF" | 4 version u8 | 5 flags u8 = 0 | 6 reserved u16 = 0
    8 header length u32 | 12 CRC-32 of the header u32
    16 header, msgpack | zero padding to 16 | tensor 0 | zero padding to 16 | tensor 1 ...

Little-endian, row-major. Offsets follow from the header and are never sent; every tensor starts on a
multiple of 16, so that it can be read where it lies. Bytes from the network are hostile: each length
has a cap that is checked before anything is allocated, and nothing is ever unpickled.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from enum import IntEnum
from math import isfinite, prod
from typing import Annotated

import msgspec
import numpy as np

from edgeexit.errors import WireError
from edgeexit.transport.protocol import Tensor
from edgeexit.transport.status import Status
from edgeexit.transport.storage import Storage, restore, storage_of

MAGIC = b"EEXF"
VERSION = 1

# The data of a CPython bytes object starts on a multiple of 16 on 64-bit machines: more cannot be had
# without a copy, and 16 is what NEON and SSE loads want.
ALIGNMENT = 16

# Eight tensors with 64-character names and eight dimensions need about 1.2 kB; per-channel scales of
# one tensor with 192 channels 1.7 kB more.
HEADER_CAP_BYTES = 4096

# One bundle boundary has at most four tensors in every family known (feature maps of several scales,
# latent); doubled.
TENSORS_CAP = 8

RANK_CAP = 8

# ViT-B at 224 px in float32 is 605,184 bytes; the next power of two. Brokers take 1 MB by default.
FRAME_CAP_BYTES = 1 << 20

DIGEST_BYTES = 16
REQUEST_ID_BYTES = 16

_PREFIX = struct.Struct("<4sBBHII")

# bfloat16 has no NumPy type: its 16 bits travel as they are, and `edgeexit.transport.codecs` widens them.
WIRE_DTYPES: dict[str, np.dtype[np.generic]] = {
    "i1": np.dtype("<i1"),
    "u1": np.dtype("<u1"),
    "i2": np.dtype("<i2"),
    "i4": np.dtype("<i4"),
    "f2": np.dtype("<f2"),
    "bf16": np.dtype("<u2"),
    "f4": np.dtype("<f4"),
}

# What a NumPy array is called on the wire when nothing else is said.
_NAMES: dict[np.dtype[np.generic], str] = {
    dtype: name for name, dtype in WIRE_DTYPES.items() if name != "bf16"
}


class Kind(IntEnum):
    """What a frame is."""

    REQUEST = 0
    REPLY = 1
    PING = 2
    PONG = 3
    CANCEL = 4
    """Takes back the request of this id. Gateways of before count it as malformed, and go on."""


_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_Shape = Annotated[
    tuple[Annotated[int, msgspec.Meta(ge=1, lt=2**31)], ...], msgspec.Meta(max_length=RANK_CAP)
]
_Scales = Annotated[tuple[float, ...], msgspec.Meta(max_length=HEADER_CAP_BYTES)]
_ZeroPoints = Annotated[
    tuple[Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)], ...], msgspec.Meta(max_length=HEADER_CAP_BYTES)
]
_Id = Annotated[bytes, msgspec.Meta(min_length=REQUEST_ID_BYTES, max_length=REQUEST_ID_BYTES)]
_Digest = Annotated[bytes, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
_Stage = Annotated[int, msgspec.Meta(ge=0, lt=256)]


class TensorHeader(msgspec.Struct, array_like=True, frozen=True):
    """How one tensor lies in the frame. New fields are only ever appended.

    `codec` is the number of a `Storage`. Units: raw_bytes, of the values; stored_bytes, in this frame.
    """

    name: _Name
    dtype: str
    shape: _Shape
    raw_bytes: _Count
    stored_bytes: _Count
    codec: int = 0
    scale: _Scales = ()
    zero_point: _ZeroPoints = ()
    axis: _Count | None = None


class Header(msgspec.Struct, array_like=True, frozen=True):
    """What a frame says besides its tensors. New fields are only ever appended.

    `bundle_digest` is the first half of the manifest's SHA-256. `reply_topic` may be empty: it serves
    brokers without MQTT 5. Stages: a request asks for the stages stage_in … stage_out; a reply's
    stage_out is the exit that answers.
    Units: budget_left_ms, what is left for the gateway: of the budget when the frame was sent, less the way
    there and back where the device knows it (devices of before state the whole), None for no limit;
    retry_after_ms;
    queue_ms and compute_ms, the gateway's own durations, also before a refusal, None where there are none.
    """

    kind: Kind
    request_id: _Id
    bundle_digest: _Digest
    stage_in: _Stage = 0
    stage_out: _Stage = 0
    frame: _Count = 0
    budget_left_ms: float | None = None
    reply_topic: Annotated[str, msgspec.Meta(max_length=256)] = ""
    status: Status = Status.OK
    retry_after_ms: float | None = None
    queue_ms: float | None = None
    compute_ms: float | None = None
    tensors: Annotated[tuple[TensorHeader, ...], msgspec.Meta(max_length=TENSORS_CAP)] = ()


class WireTensor(msgspec.Struct, frozen=True):
    """One tensor as it travels.

    Where `scale` is given, value = (stored - zero_point) * scale: one scale for the whole tensor, or,
    with `axis`, one for each index along it. A bf16 tensor is held as its 16 bits. Where `storage` is not
    PLAIN, `data` are the stored bytes (n,), and `packed_shape` is the shape of what they hold.
    """

    name: str
    dtype: str
    data: Tensor
    scale: tuple[float, ...] = ()
    zero_point: tuple[int, ...] = ()
    axis: int | None = None
    storage: Storage = Storage.PLAIN
    packed_shape: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the values, unpacked."""
        return self.data.shape if self.storage is Storage.PLAIN else self.packed_shape

    def values(self) -> Tensor:
        """The values as their type, unpacked. Raises: WireError where the bytes are not what was declared."""
        if self.storage is Storage.PLAIN:
            return self.data
        return restore(self.data, self.storage, WIRE_DTYPES[self.dtype], self.packed_shape)

    @property
    def header(self) -> TensorHeader:
        """How it will lie in a frame. Raises: WireError for a type that does not travel."""
        dtype = WIRE_DTYPES.get(self.dtype)
        if dtype is None:
            raise WireError(f"tensor {self.name}: type {self.dtype[:16]!r}")
        shape = self.shape
        return TensorHeader(
            self.name,
            self.dtype,
            shape,
            raw_bytes=prod(shape) * dtype.itemsize,
            stored_bytes=self.data.nbytes,
            codec=int(self.storage),
            scale=self.scale,
            zero_point=self.zero_point,
            axis=self.axis,
        )

    def kept_as(self, storage: Storage, data: Tensor) -> WireTensor:
        """The same values, stored otherwise."""
        shape = () if storage is Storage.PLAIN else self.shape
        return msgspec.structs.replace(self, data=data, storage=storage, packed_shape=shape)

    @classmethod
    def of(cls, name: str, data: Tensor) -> WireTensor:
        """An array as it is. Raises: WireError when its type does not travel."""
        dtype = _NAMES.get(data.dtype)
        if dtype is None:
            raise WireError(f"tensor {name}: {data.dtype} does not travel")
        return cls(name, dtype, data)


class Frame(msgspec.Struct, frozen=True):
    """A decoded frame; its tensors are views of the bytes it was decoded from."""

    header: Header
    tensors: tuple[WireTensor, ...]
    size_bytes: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Header)


def aligned(length: int) -> int:
    """`length` in bytes, rounded up to the alignment."""
    return -(-length // ALIGNMENT) * ALIGNMENT


def size_bytes(header: Header, tensors: Sequence[TensorHeader]) -> int:
    """How many bytes the frame of this header and such tensors takes."""
    packed = _encoder.encode(msgspec.structs.replace(header, tensors=tuple(tensors)))
    return aligned(_PREFIX.size + len(packed)) + sum(aligned(tensor.stored_bytes) for tensor in tensors)


def encode(header: Header, tensors: Sequence[WireTensor] = (), *, cap_bytes: int = FRAME_CAP_BYTES) -> bytes:
    """The frame of a header and its tensors; `header.tensors` is filled in here.

    Raises: WireError when the receiver would refuse the frame.
    """
    described: tuple[TensorHeader, ...] = ()
    if tensors:
        described = tuple([tensor.header for tensor in tensors])
        header = msgspec.structs.replace(header, tensors=described)
    packed = _encoder.encode(header)
    prefix = _PREFIX.pack(MAGIC, VERSION, 0, 0, len(packed), zlib.crc32(packed))
    parts: list[bytes | memoryview] = [prefix, packed, _padding(_PREFIX.size + len(packed))]
    total_bytes = aligned(_PREFIX.size + len(packed))
    for tensor in tensors:
        array = np.ascontiguousarray(tensor.data)
        if array.dtype != _held_as(tensor.dtype, tensor.storage):
            raise WireError(f"tensor {tensor.name}: {array.dtype} is not {tensor.dtype}")
        parts += (array.data, _padding(array.nbytes))
        total_bytes += aligned(array.nbytes)
    if total_bytes > cap_bytes:
        raise _too_large(total_bytes, cap_bytes)
    _check_header_length(len(packed))
    _check_tensors(described, cap_bytes)
    return b"".join(parts)


def decode(data: bytes, *, cap_bytes: int = FRAME_CAP_BYTES) -> Frame:
    """The frame in `data`, its tensors as views without copying.

    Raises: WireError, whose `status` a gateway can answer with, for anything but a frame of ours.
    """
    if len(data) > cap_bytes:
        raise _too_large(len(data), cap_bytes)
    if len(data) < _PREFIX.size:
        raise WireError("shorter than a frame's prefix")
    magic, version, flags, reserved, header_bytes, crc = _PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise WireError("not an EEXF frame")
    if version != VERSION:
        raise WireError(f"version {version}, supported: {VERSION}", status=Status.UNSUPPORTED_VERSION)
    if flags or reserved:
        raise WireError("unknown flags")
    _check_header_length(header_bytes)
    header_end = _PREFIX.size + header_bytes
    packed = data[_PREFIX.size : header_end]
    if len(packed) != header_bytes:
        raise WireError("cut off inside the header")
    if zlib.crc32(packed) != crc:
        raise WireError("header checksum differs")
    header = _decode_header(packed)
    _check_tensors(header.tensors, cap_bytes)
    offset = declared_bytes = aligned(header_end)
    for tensor in header.tensors:
        declared_bytes += aligned(tensor.stored_bytes)
    if declared_bytes != len(data):
        raise WireError(f"{len(data)} bytes, the header speaks of {declared_bytes}")
    if any(data[header_end:offset]):
        raise WireError("padding is not zero")
    tensors = []
    for tensor in header.tensors:
        tensors.append(_view(data, offset, tensor))
        end = offset + tensor.stored_bytes
        offset += aligned(tensor.stored_bytes)
        if any(data[end:offset]):
            raise WireError("padding is not zero")
    return Frame(header, tuple(tensors), len(data))


def _decode_header(packed: bytes) -> Header:
    try:
        header = _decoder.decode(packed)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"header: {error}") from error
    for value in (header.budget_left_ms, header.retry_after_ms, header.queue_ms, header.compute_ms):
        if value is not None and not 0.0 <= value < float("inf"):
            raise WireError("a duration in the header is not a finite positive number")
    return header


def _check_header_length(header_bytes: int) -> None:
    if header_bytes > HEADER_CAP_BYTES:
        raise WireError(f"header of {header_bytes} bytes", status=Status.TOO_LARGE)


def _check_tensors(tensors: Sequence[TensorHeader], cap_bytes: int) -> None:
    if len(tensors) > TENSORS_CAP:
        raise WireError(f"{len(tensors)} tensors")
    total_bytes = 0
    for tensor in tensors:
        dtype = WIRE_DTYPES.get(tensor.dtype)
        if dtype is None:
            raise WireError(f"tensor {tensor.name}: type {tensor.dtype[:16]!r}")
        shape, raw_bytes = tensor.shape, tensor.raw_bytes
        if len(shape) > RANK_CAP or min(shape, default=1) < 1:
            raise WireError(f"tensor {tensor.name}: shape {shape}")
        if prod(shape) * dtype.itemsize != raw_bytes:
            raise WireError(f"tensor {tensor.name}: {raw_bytes} bytes do not fit its shape")
        # Packed tensors are larger than the frame they came in: what they unpack to has the frame's cap
        # too.
        total_bytes += raw_bytes
        if total_bytes > cap_bytes:
            raise _too_large(total_bytes, cap_bytes)
        # Most are stored plain, without a scale: nothing is left to ask of those.
        if tensor.codec != Storage.PLAIN or tensor.stored_bytes != raw_bytes:
            storage_of(tensor.codec, tensor.dtype, shape, raw_bytes, tensor.stored_bytes)
        if tensor.scale or tensor.zero_point or tensor.axis is not None:
            _check_scale(tensor)
    if len(tensors) > 1 and len({tensor.name for tensor in tensors}) != len(tensors):
        raise WireError("two tensors of one name")


def _check_scale(tensor: TensorHeader) -> None:
    expected = 1
    if tensor.axis is not None:
        if tensor.axis >= len(tensor.shape):
            raise WireError(f"tensor {tensor.name}: axis {tensor.axis}")
        expected = tensor.shape[tensor.axis]
    elif not tensor.scale:
        expected = 0
    if len(tensor.scale) != expected or len(tensor.zero_point) != expected:
        raise WireError(f"tensor {tensor.name}: scales and zero points do not fit its shape")
    if not all(isfinite(scale) and scale > 0.0 for scale in tensor.scale):
        raise WireError(f"tensor {tensor.name}: scale is not a finite positive number")


def _view(data: bytes, offset: int, tensor: TensorHeader) -> WireTensor:
    shape, scale, zero_point, axis = tensor.shape, tensor.scale, tensor.zero_point, tensor.axis
    if tensor.codec == Storage.PLAIN:
        values: Tensor = np.frombuffer(data, WIRE_DTYPES[tensor.dtype], prod(shape), offset)
        if len(shape) != 1:
            values = values.reshape(shape)  # (n,) → shape
        return WireTensor(tensor.name, tensor.dtype, values, scale, zero_point, axis)
    storage = Storage(tensor.codec)
    held_as = _held_as(tensor.dtype, storage)
    stored: Tensor = np.frombuffer(data, held_as, tensor.stored_bytes, offset)
    return WireTensor(tensor.name, tensor.dtype, stored, scale, zero_point, axis, storage, shape)


def _held_as(dtype: str, storage: Storage) -> np.dtype[np.generic]:
    """What the data of a tensor is made of as long as it is stored."""
    return WIRE_DTYPES[dtype if storage is Storage.PLAIN else "u1"]


def _padding(size_bytes: int) -> bytes:
    return bytes(-size_bytes % ALIGNMENT)


def _too_large(size_bytes: int, cap_bytes: int) -> WireError:
    return WireError(f"{size_bytes} bytes, at most {cap_bytes} are taken", status=Status.TOO_LARGE)
