"""CIFAR-10 and CIFAR-100 as their binary version has them; the Python version is pickled and never read.

Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009; format on its page.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from edgeexit.errors import DataError
from edgeexit.training.data import Samples, Splits, split_off

CifarKind = Literal["cifar-10", "cifar-100"]

_PIXELS = 3 * 32 * 32
# The largest file is CIFAR-100's train.bin: 50,000 records of 3,074 bytes.
FILE_CAP_BYTES = 50_000 * (_PIXELS + 2)
_FILES: dict[CifarKind, tuple[tuple[str, ...], tuple[str, ...], str]] = {
    "cifar-10": (tuple(f"data_batch_{i}.bin" for i in range(1, 6)), ("test_batch.bin",), "batches.meta.txt"),
    "cifar-100": (("train.bin",), ("test.bin",), "fine_label_names.txt"),
}


def cifar(root: Path, kind: CifarKind, *, calibration: int = 5000, seed: int = 0) -> Splits:
    """The set of a folder as the binary archive unpacks: `cifar-10-batches-bin` or `cifar-100-binary`.

    Raises: DataError when a file is missing or malformed.
    """
    train_files, test_files, names_file = _FILES[kind]
    classes = _names(root / names_file, 10 if kind == "cifar-10" else 100)
    whole = _read(root, train_files, kind, len(classes))
    if len(whole) <= calibration:
        raise DataError(
            f"{root} has too few images", file=str(root), why=f"{len(whole):,}, {calibration:,} are held out"
        )
    train, held_out = split_off(whole, calibration, seed=seed)
    return Splits(train, held_out, _read(root, test_files, kind, len(classes)), classes)


def _read(root: Path, files: tuple[str, ...], kind: CifarKind, classes: int) -> Samples:
    labels = 1 if kind == "cifar-10" else 2  # CIFAR-100 has the coarse class first
    images, targets = [], []
    for name in files:
        path = root / name
        content = _bytes(path)
        if not content or len(content) % (labels + _PIXELS):
            raise DataError(
                f"{name} is no file of {kind}",
                file=str(path),
                why=f"{len(content)} bytes are no whole number of records of {labels + _PIXELS}",
                fix="unpack the binary version of the archive again",
            )
        records = np.frombuffer(content, dtype=np.uint8).reshape(-1, labels + _PIXELS)
        if int(records[:, labels - 1].max()) >= classes:
            raise DataError(
                f"{name} has a class {int(records[:, labels - 1].max())}",
                file=str(path),
                why=f"{kind} has {classes}",
                fix="unpack the binary version of the archive again",
            )
        targets.append(records[:, labels - 1].astype(np.int64))
        images.append(records[:, labels:].reshape(-1, 3, 32, 32))  # N 3072 -> N 3 32 32
    pixels = np.concatenate(images).astype(np.float32) / np.float32(255)
    return Samples(images=pixels, targets=np.concatenate(targets), name=kind)


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > FILE_CAP_BYTES:
            raise DataError(f"{path.name} is refused", file=str(path), why=f"over {FILE_CAP_BYTES} bytes")
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path.name} cannot be read",
            file=str(path),
            why=str(error),
            fix="unpack the binary version of the archive and name its folder; the Python version is pickled",
        ) from error


def _names(path: Path, count: int) -> tuple[str, ...]:
    try:
        names = tuple(line.strip() for line in _bytes(path).decode("utf-8").splitlines() if line.strip())
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} cannot be read", file=str(path), why=str(error)) from error
    if len(names) != count:
        raise DataError(f"{path.name} names {len(names)} classes", file=str(path), why=f"{count} are known")
    return names
