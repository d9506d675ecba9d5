"""From an image to the input tensor of stage 0."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from io import BytesIO
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import Preprocessing, TensorSpec
from edgeexit.errors import DataError, MissingExtra

if TYPE_CHECKING:
    from PIL import Image

Pixels = NDArray[np.uint8]

_BYTE = np.dtype(np.uint8)
_WHITE = np.float32(255.0)

# A picture of a 50-megapixel camera, the largest that a phone takes by default, is about 20 MB as JPEG.
FILE_CAP_BYTES = 64 * 2**20
# 50 megapixels are 150 MB in colour: what a board of 512 MB can just bear.
PIXEL_CAP = 50_000_000
# What cameras and people write; every further decoder is a further door.
FORMATS = ("JPEG", "PNG", "BMP", "PPM", "WEBP")


class ImageTensors(Mapping[str, NDArray[np.float32]]):
    """The tensors of boundary 0, of an image that is not changed meanwhile: numbers are made when asked for.

    A stage has them written into its own memory, and only who sends them needs them elsewhere too.
    Shapes: pixels, those of the tensor without its axes of 1.
    """

    __slots__ = ("_made", "_pixels", "_spec")

    def __init__(self, pixels: Pixels, spec: TensorSpec) -> None:
        self._pixels = pixels
        self._spec = spec
        self._made: NDArray[np.float32] | None = None

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        if name != self._spec.name:
            raise KeyError(name)
        if self._made is None:
            self._made = np.empty(self._spec.shape, np.float32)
            self.write(name, self._made)
        return self._made

    def __iter__(self) -> Iterator[str]:
        yield self._spec.name

    def __len__(self) -> int:
        return 1

    def write(self, name: str, tensor: NDArray[np.generic]) -> None:
        """Write one of them into memory made for it. Raises: KeyError, TypeError when it is of no floats."""
        if name != self._spec.name:
            raise KeyError(name)
        # Pixels are laid out anew while they are of one byte; then one pass each turns them into floats and
        # divides where they are: faster than a pass that does all, and exact with every numpy.
        tensor[...] = np.ascontiguousarray(self._pixels).reshape(tensor.shape)
        np.true_divide(tensor, _WHITE, out=tensor)


def input_tensors(image: Pixels, preprocessing: Preprocessing, spec: TensorSpec) -> ImageTensors:
    """The tensors of boundary 0: colour and size as wanted, then 8-bit values divided by 255.

    Where a resize is needed it is bilinear over the area that a pixel covers.
    Shapes: image (H, W), (H, W, 1) or (H, W, 3) in RGB order; the tensor is `spec.shape`.
    Raises: DataError, MissingExtra.
    """
    pixels = _fitted(image, preprocessing)  # (H, W) or (H, W, 3)
    if pixels.ndim == 3 and preprocessing.layout == "NCHW":
        pixels = pixels.transpose(2, 0, 1)  # (3, H, W), a view
    if pixels.size != prod(spec.shape):
        raise DataError("image cannot be used", file="image", why=f"{spec} is wanted, got {pixels.shape}")
    return ImageTensors(pixels, spec)


def read_image(path: Path) -> Pixels:
    """Read an image file, upright.

    Shapes: (H, W) where the file is grey, else (H, W, 3) in RGB order.
    Raises: DataError, MissingExtra.
    """
    try:
        size_bytes = path.stat().st_size
        if size_bytes > FILE_CAP_BYTES:
            raise DataError(
                f"{path} is refused", file=str(path), why=f"it is larger than {FILE_CAP_BYTES} bytes"
            )
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read", file=str(path), why=error.strerror or str(error)) from error
    return decode_image(data, name=str(path))


def decode_image(data: bytes, *, name: str) -> Pixels:
    """Decode a JPEG, PNG, BMP, PPM or WebP image, upright.

    Shapes: (H, W) where it is grey, else (H, W, 3) in RGB order.
    Raises: DataError, MissingExtra.
    """
    if len(data) > FILE_CAP_BYTES:
        raise DataError(f"{name} is refused", file=name, why=f"it is larger than {FILE_CAP_BYTES} bytes")
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise MissingExtra("pillow", extra="device", needed_for="reading images") from error
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if not 0 < width * height <= PIXEL_CAP:
                raise DataError(
                    f"{name} is refused", file=name, why=f"{width} × {height} is over {PIXEL_CAP} pixels"
                )
            return _pixels(ImageOps.exif_transpose(image), name)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{name} is refused", file=name, why=f"it has over {PIXEL_CAP} pixels") from error
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        KeyError,
        TypeError,
        IndexError,
        MemoryError,
    ) as error:
        # Pillow's decoders answer damaged files with all of these; of a foreign one it tells an address only.
        said = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"
        raise DataError(
            f"{name} cannot be read",
            file=name,
            why=f"it is no image, or a damaged one{said}",
            fix=f"give an image as {', '.join(FORMATS)}",
        ) from error


def _pixels(image: Image.Image, name: str) -> Pixels:
    if image.mode in ("1", "L", "LA"):
        return np.asarray(image.convert("L"))
    if image.mode.startswith("I;16"):
        return (np.asarray(image) >> 8).astype(np.uint8)  # Pillow would clip at 255
    if image.mode in ("I", "F"):
        raise DataError(
            f"{name} is refused", file=name, why=f"pixels of mode {image.mode} have no known range"
        )
    return np.asarray(image.convert("RGB"))


def _fitted(image: Pixels, how: Preprocessing) -> Pixels:
    """Colour and size. Shapes: (H, W), (H, W, 1) or (H, W, 3) → (h, w) or (h, w, 3)."""
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]  # (H, W)
    colored = image.ndim == 3 and image.shape[2] == 3
    if image.dtype != _BYTE or image.size == 0 or not (image.ndim == 2 or colored):
        raise DataError(
            "image cannot be used",
            file="image",
            why=f"8-bit (H, W) or (H, W, 3) is wanted, got {image.shape} {image.dtype}",
        )
    resized = image.shape[:2] != (how.height, how.width)
    if resized or (colored and how.color == "gray"):
        image = _with_pillow(image, how, resized=resized)
    if how.color == "rgb" and image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)  # (h, w, 3)
    return image


def _with_pillow(image: Pixels, how: Preprocessing, *, resized: bool) -> Pixels:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtra("pillow", extra="device", needed_for="fitting images to the network") from error
    picture = Image.fromarray(np.ascontiguousarray(image))
    if how.color == "gray":
        picture = picture.convert("L")
    if resized:
        picture = picture.resize((how.width, how.height), Image.Resampling.BILINEAR)
    return np.asarray(picture)
