"""How the bytes of one tensor are stored in a frame: as they are, packed, compressed, or as a JPEG file.

What is stored is only unpacked by whoever needs the values, and never beyond the size that the frame
declares: that is known, and held against its cap, before anything is allocated.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from enum import IntEnum
from functools import cache
from importlib import import_module, util
from math import prod
from types import ModuleType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeexit.errors import MissingExtra, WireError

# How values may be compressed on their way; both lose nothing.
Compression = Literal["zstd", "lz4"]

# The fastest level: what a codec has quantised is close to noise, and more searching finds little in it.
_ZSTD_LEVEL = 1

# A zstd frame may ask its reader for this much memory, as a power of two: twice the largest tensor that
# fits in a frame of the usual size.
_ZSTD_WINDOW_LOG = 21

# Tables, quantisers and markers of a JPEG file with three components take about 600 bytes; doubled, and
# again, because a small noisy image at high quality is larger than its pixels.
_JPEG_OVERHEAD_BYTES = 2400

_Bytes = NDArray[np.uint8]


class Storage(IntEnum):
    """The `codec` of a tensor in a frame."""

    PLAIN = 0
    ZSTD = 1
    LZ4 = 2
    """An LZ4 block, without a frame: how much it holds is in the header."""
    NIBBLES = 3
    """Two 4-bit values a byte, the first in the lower half."""
    NIBBLES_ZSTD = 4
    JPEG = 5
    NIBBLES_LZ4 = 6


# What a gateway says in its adverts that it can unpack; the names of abilities, not of libraries.
NIBBLES, ZSTD, LZ4, JPEG = "nibbles", "zstd", "lz4", "jpeg"

ABILITIES: dict[Storage, frozenset[str]] = {
    Storage.PLAIN: frozenset(),
    Storage.ZSTD: frozenset({ZSTD}),
    Storage.LZ4: frozenset({LZ4}),
    Storage.NIBBLES: frozenset({NIBBLES}),
    Storage.NIBBLES_ZSTD: frozenset({NIBBLES, ZSTD}),
    Storage.NIBBLES_LZ4: frozenset({NIBBLES, LZ4}),
    Storage.JPEG: frozenset({JPEG}),
}

_STORAGES: dict[int, Storage] = {int(storage): storage for storage in Storage}


@cache
def abilities() -> frozenset[str]:
    """What can be packed and unpacked here, by what is installed."""
    found = {NIBBLES}
    if _zstd_module() is not None:
        found.add(ZSTD)
    if util.find_spec("lz4") is not None:
        found.add(LZ4)
    if util.find_spec("PIL") is not None:
        found.add(JPEG)
    return frozenset(found)


def require_abilities(wanted: frozenset[str], *, needed_for: str) -> None:
    """Raises: MissingExtra naming the package that is not installed."""
    missing = wanted - abilities()
    if ZSTD in missing:
        raise MissingExtra("backports.zstd", extra="zstd", needed_for=needed_for)
    if LZ4 in missing:
        raise MissingExtra("lz4", extra="lz4", needed_for=needed_for)
    if JPEG in missing:
        raise MissingExtra("pillow", extra="device", needed_for=needed_for)


def storage_of(codec: int, dtype: str, shape: Sequence[int], raw_bytes: int, stored_bytes: int) -> Storage:
    """The storage with this number, its declared sizes sound. Raises: WireError."""
    storage = _STORAGES.get(codec)
    if storage is None:
        raise WireError(f"compression {codec} is unknown")
    packed_bytes = (raw_bytes + 1) // 2
    sound = {
        Storage.PLAIN: stored_bytes == raw_bytes,
        # What does not get smaller travels as it is.
        Storage.ZSTD: 0 < stored_bytes < raw_bytes,
        Storage.LZ4: 0 < stored_bytes < raw_bytes,
        Storage.NIBBLES: dtype == "i1" and stored_bytes == packed_bytes,
        Storage.NIBBLES_ZSTD: dtype == "i1" and 0 < stored_bytes < packed_bytes,
        Storage.NIBBLES_LZ4: dtype == "i1" and 0 < stored_bytes < packed_bytes,
        Storage.JPEG: dtype == "u1"
        and _picture(shape) is not None
        and 0 < stored_bytes <= jpeg_cap_bytes(raw_bytes),
    }[storage]
    if not sound:
        raise WireError(f"{stored_bytes} bytes of {dtype} cannot be stored as {storage.name.lower()}")
    return storage


def jpeg_cap_bytes(raw_bytes: int) -> int:
    """The largest JPEG file taken for an image with so many bytes."""
    return raw_bytes + _JPEG_OVERHEAD_BYTES


def store(
    data: NDArray[np.generic], *, compression: Compression | None, nibbles: bool = False
) -> tuple[Storage, _Bytes]:
    """The bytes of a tensor, and how they are stored: compressed only where that makes them fewer.

    With `nibbles`, int8 values from -8 to 7 take half a byte each. Raises: WireError without the library.
    """
    values = np.ascontiguousarray(data).reshape(-1).view(np.uint8)  # shape → (bytes,)
    plain = Storage.PLAIN
    if nibbles:
        plain, values = Storage.NIBBLES, _pack(values)
    if compression is None:
        return plain, values
    if compression == "zstd":
        smaller = Storage.NIBBLES_ZSTD if nibbles else Storage.ZSTD
        compressed = np.frombuffer(_zstd().compress(values.data, _ZSTD_LEVEL), np.uint8)
    else:
        smaller = Storage.NIBBLES_LZ4 if nibbles else Storage.LZ4
        compressed = np.frombuffer(_lz4().compress(values.tobytes(), store_size=False), np.uint8)
    return (smaller, compressed) if compressed.size < values.size else (plain, values)


def restore(
    stored: NDArray[np.generic], storage: Storage, dtype: np.dtype[np.generic], shape: tuple[int, ...]
) -> NDArray[np.generic]:
    """The tensor that was stored.

    Shapes: stored (bytes,); result `shape`. Raises: WireError for anything that is not just that.
    """
    if storage is Storage.JPEG:
        return _read_jpeg(stored.tobytes(), shape)
    count = prod(shape)
    raw_bytes = count * dtype.itemsize
    packed = storage in (Storage.NIBBLES, Storage.NIBBLES_ZSTD, Storage.NIBBLES_LZ4)
    stored_bytes = (raw_bytes + 1) // 2 if packed else raw_bytes
    data = stored
    if storage in (Storage.ZSTD, Storage.NIBBLES_ZSTD):
        data = np.frombuffer(_decompress(stored.tobytes(), stored_bytes), np.uint8)
    elif storage in (Storage.LZ4, Storage.NIBBLES_LZ4):
        data = np.frombuffer(_decompress_lz4(stored.tobytes(), stored_bytes), np.uint8)
    if packed:
        data = _unpack(data.view(np.uint8), count)
    return data.view(dtype).reshape(shape)  # (bytes,) → shape


def write_jpeg(pixels: _Bytes, quality: int) -> _Bytes:
    """An image as a JPEG file. Shapes: pixels (1, C, H, W) or (1, H, W, C), C 1 or 3. Raises: WireError."""
    picture = _picture(pixels.shape)
    if picture is None:
        raise WireError(f"{list(pixels.shape)} is no image")
    try:
        from PIL import Image
    except ImportError as error:
        raise WireError("pillow is not installed here, and JPEG needs it") from error
    planar, (height, width, channels) = picture
    plane = pixels[0].transpose(1, 2, 0) if planar else pixels[0]  # → H W C
    plane = plane.reshape(height, width) if channels == 1 else plane  # H W 1 → H W
    file = io.BytesIO()
    try:
        Image.fromarray(np.ascontiguousarray(plane)).save(file, "JPEG", quality=quality, optimize=True)
    except (OSError, ValueError) as error:
        raise WireError(f"the image cannot be written as JPEG: {error}") from error
    return np.frombuffer(file.getvalue(), np.uint8)


def _read_jpeg(file: bytes, shape: tuple[int, ...]) -> _Bytes:
    picture = _picture(shape)
    if picture is None:
        raise WireError(f"{list(shape)} is no image")
    try:
        from PIL import Image
    except ImportError as error:
        raise WireError("pillow is not installed here, and JPEG needs it") from error
    planar, (height, width, channels) = picture
    # What claims to be a giant is refused by Pillow's own cap before it is read, by error or by warning.
    bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    try:
        with Image.open(io.BytesIO(file), formats=("JPEG",)) as image:
            # Both are known from the file's beginning: no pixel is read for another size.
            if image.size != (width, height) or image.mode != ("L" if channels == 1 else "RGB"):
                raise WireError(f"a JPEG of {image.size} {image.mode}, expected {(width, height)}")
            pixels = np.asarray(image, np.uint8).reshape(height, width, channels)
    except (*bombs, OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, EOFError) as error:
        raise WireError(f"not a JPEG file: {error}") from error
    except ArithmeticError as error:
        raise WireError(f"not a JPEG file: {error}") from error
    placed = pixels.transpose(2, 0, 1) if planar else pixels  # H W C → C H W
    return np.ascontiguousarray(placed)[None]


def _picture(shape: Sequence[int]) -> tuple[bool, tuple[int, int, int]] | None:
    """Whether channels come first, and height, width, channels; None where this is no image."""
    if len(shape) != 4 or shape[0] != 1:
        return None
    if shape[1] in (1, 3):
        return True, (shape[2], shape[3], shape[1])
    if shape[3] in (1, 3):
        return False, (shape[1], shape[2], shape[3])
    return None


def _pack(values: _Bytes) -> _Bytes:
    """Shapes: (n,) → (⌈n/2⌉,)."""
    halves = values & np.uint8(15)
    if halves.size % 2:
        halves = np.append(halves, np.uint8(0))
    return halves[::2] | (halves[1::2] << np.uint8(4))


def _unpack(packed: _Bytes, count: int) -> NDArray[np.int8]:
    """Shapes: (⌈count/2⌉,) → (count,)."""
    halves = np.empty(2 * packed.size, np.uint8)
    np.bitwise_and(packed, np.uint8(15), out=halves[::2])
    np.right_shift(packed, np.uint8(4), out=halves[1::2])
    # 0 … 15 → -8 … 7: the sign bit is flipped, then taken away again.
    signed: NDArray[np.int8] = (halves ^ np.uint8(8)).view(np.int8) - np.int8(8)
    return signed[:count]


def _decompress(data: bytes, expected_bytes: int) -> bytes:
    zstd = _zstd()
    try:
        stated = zstd.get_frame_info(data).decompressed_size
        if stated != expected_bytes:
            raise WireError(f"zstd: {stated} bytes, the frame declares {expected_bytes}")
        reader = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})
        # One byte more than expected, so that an end that is missing, or too much, is seen.
        found: bytes = reader.decompress(data, max_length=expected_bytes + 1)
    except (zstd.ZstdError, EOFError, ValueError) as error:
        raise WireError(f"zstd: {error}") from error
    if len(found) != expected_bytes or not reader.eof or reader.unused_data:
        raise WireError(f"zstd: not the {expected_bytes} bytes that the frame declares")
    return found


def _decompress_lz4(data: bytes, expected_bytes: int) -> bytes:
    lz4 = _lz4()
    try:
        found: bytes = lz4.decompress(data, uncompressed_size=expected_bytes)
    except (lz4.LZ4BlockError, MemoryError, OverflowError, ValueError) as error:
        raise WireError(f"lz4: {error}") from error
    if len(found) != expected_bytes:
        raise WireError(f"lz4: {len(found)} bytes, the frame declares {expected_bytes}")
    return found


def _lz4() -> ModuleType:
    try:
        return import_module("lz4.block")
    except ImportError as error:
        raise WireError("lz4 is not installed here: pip install 'edgeexit[lz4]'") from error


def _zstd() -> ModuleType:
    module = _zstd_module()
    if module is None:
        raise WireError("backports.zstd is not installed here: pip install 'edgeexit[zstd]'")
    return module


@cache
def _zstd_module() -> ModuleType | None:
    """The standard library has it from Python 3.14 on."""
    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    try:
        return import_module(name)
    except ImportError:
        return None
