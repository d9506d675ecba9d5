"""Labelled images: IDX files (Fashion-MNIST, MNIST), the small digits of scikit-learn, and their splits."""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeexit.errors import DataError, MissingExtra

# Where Debian's package dataset-fashion-mnist puts its files.
FASHION_MNIST_ROOT = Path("/usr/share/datasets/fashion-mnist")
FASHION_MNIST_CLASSES = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip

# The largest set in this format is EMNIST ByClass, 697,932 images of 28 × 28: 547 MB.
IDX_CAP_BYTES = 600 * 2**20
# IDX type byte of unsigned bytes, the only one that image sets use.
IDX_UINT8 = 0x08


# Class indices, or values for a regression.
Targets = NDArray[np.int64] | NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Samples:
    """Images with their targets.

    Shapes: images (N, C, H, W) float32, targets (N,) int64 classes or float32 values.
    Units: images 0 to 1, each value k/255 with a whole k, so that 8-bit files hold them losslessly.
    """

    images: NDArray[np.float32]
    targets: Targets
    name: str

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, indices: NDArray[np.int64] | slice) -> Samples:
        """The chosen samples, in the order given."""
        return Samples(images=self.images[indices], targets=self.targets[indices], name=self.name)

    def pixels(self) -> NDArray[np.uint8]:
        """The same images as 8-bit values.

        Shapes: (N, C, H, W).
        """
        return np.rint(self.images * 255).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Splits:
    """A data set in three parts that share no item: train, calibration (held out of train), test."""

    train: Samples
    calibration: Samples
    test: Samples
    classes: tuple[str, ...]


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def read_idx(path: Path) -> NDArray[np.uint8]:
    """One IDX file of unsigned bytes, gzipped or plain.

    Raises: DataError when it is missing, malformed, truncated, too long or over the cap.
    Source: file format on the MNIST page of LeCun, Cortes, Burges.
    """
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if not zipped:
                return _parse_idx(raw, path)
            with gzip.open(raw) as unzipped:
                return _parse_idx(unzipped, path)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path.name} cannot be read", file=str(path), why=str(error)) from error


def _parse_idx(stream: _Readable, path: Path) -> NDArray[np.uint8]:
    def malformed(why: str) -> DataError:
        return DataError(
            f"{path.name} is no usable IDX file", file=str(path), why=why, fix="fetch the file again"
        )

    head = stream.read(4)
    if len(head) != 4 or head[:2] != b"\0\0" or head[2] != IDX_UINT8 or not 1 <= head[3] <= 4:
        raise malformed("it does not begin with the IDX magic of unsigned bytes")
    sizes_bytes = stream.read(4 * head[3])
    if len(sizes_bytes) != 4 * head[3]:
        raise malformed("the header is cut off")
    shape = struct.unpack(f">{head[3]}I", sizes_bytes)
    size = 1
    for length in shape:
        size *= length
    if size == 0 or size > IDX_CAP_BYTES:
        raise malformed(f"shape {shape} is empty or over the cap of {IDX_CAP_BYTES} bytes")
    body = stream.read(size + 1)
    if len(body) != size:
        raise malformed(
            f"shape {shape} needs {size} bytes, the file has {'more' if body[size:] else 'fewer'}"
        )
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)


def idx_split(root: Path, prefix: str, name: str) -> Samples:
    """Images and labels that share a prefix (`train`, `t10k`) in one directory.

    Raises: DataError when a file is missing or unusable, or the two do not fit together.
    """
    images = read_idx(_find(root, f"{prefix}-images-idx3-ubyte"))
    labels = read_idx(_find(root, f"{prefix}-labels-idx1-ubyte"))
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise DataError(
            f"images and labels of {prefix} do not fit together",
            file=str(root),
            why=f"shapes are {images.shape} and {labels.shape}",
            fix="fetch both files again",
        )
    return Samples(
        images=images[:, None].astype(np.float32) / np.float32(255),  # N H W -> N 1 H W
        targets=labels.astype(np.int64),
        name=name,
    )


def _find(root: Path, stem: str) -> Path:
    for path in (root / f"{stem}.gz", root / stem):
        if path.is_file():
            return path
    raise DataError(
        f"{stem} is missing",
        file=str(root / stem),
        why=f"{root} holds neither it nor {stem}.gz",
        fix="sudo apt-get install dataset-fashion-mnist, or give the directory of the IDX files",
    )


def split_off(samples: Samples, count: int, *, seed: int) -> tuple[Samples, Samples]:
    """`samples` without `count` random ones, and those, for calibration.

    Raises: ValueError when nothing would be left.
    """
    if not 0 < count < len(samples):
        raise ValueError(f"cannot hold {count} of {len(samples)} samples out")
    order = np.random.default_rng(seed).permutation(len(samples))
    return samples.take(order[count:]), samples.take(order[:count])


def fashion_mnist(root: Path = FASHION_MNIST_ROOT, *, calibration: int = 5000, seed: int = 0) -> Splits:
    """Fashion-MNIST, or any set in its four files and ten classes.

    Raises: DataError.
    Source: Xiao, Rasul, Vollgraf, 2017.
    """
    train, held_out = split_off(idx_split(root, "train", "fashion-mnist"), calibration, seed=seed)
    return Splits(
        train=train,
        calibration=held_out,
        test=idx_split(root, "t10k", "fashion-mnist"),
        classes=FASHION_MNIST_CLASSES,
    )


def digits(*, seed: int = 0) -> Splits:
    """The 1,797 digits of 8 × 8 that scikit-learn carries, each pixel tripled to 24 × 24.

    Raises: MissingExtra.
    Source: UCI optical recognition of handwritten digits; values 0 to 16.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtra("scikit-learn", extra="convert", needed_for="the digits data set") from error
    bunch = load_digits()
    values = np.rint(np.asarray(bunch.images) * (255 / 16)).astype(np.float32) / np.float32(255)
    images = values.repeat(3, axis=1).repeat(3, axis=2)[:, None]  # N 8 8 -> N 1 24 24
    whole = Samples(
        images=images.astype(np.float32), targets=np.asarray(bunch.target, dtype=np.int64), name="digits"
    )
    # A fifth each for test and calibration: the set is too small for 5,000.
    rest, test = split_off(whole, 359, seed=seed)
    train, held_out = split_off(rest, 359, seed=seed + 1)
    return Splits(train=train, calibration=held_out, test=test, classes=tuple("0123456789"))
