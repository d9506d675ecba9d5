"""Paths inside a bundle: which ones may be followed, and how files are read without surprises."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from edgeexit.errors import BundleError, IntegrityError, MissingFile, UnsafePath

# The longest honest path is blobs/sha256/ and 64 hex digits, 77 characters; rounded up.
LONGEST_PATH = 128

# Large enough that hashing dominates the calls, small enough not to matter beside a model in memory.
_CHUNK_BYTES = 2**20


def inside(root: Path, file: str) -> Path:
    """The place of `file`, a relative path with forward slashes, below the resolved `root`.

    Raises: UnsafePath when it is absolute, climbs, is not in its plain form, or leaves by a link;
    MissingFile when nothing is there; BundleError when it is not an ordinary file.
    """
    check_plain(file)
    place = root / file
    try:
        real = place.resolve(strict=True)
        mode = real.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingFile(file=file) from error
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        raise BundleError(f"{file} cannot be read", file=file, why=str(error)) from error
    if not real.is_relative_to(root):
        raise UnsafePath(file=file, why="it is a link that leaves the bundle")
    if not stat.S_ISREG(mode):
        raise BundleError(f"{file} is refused", file=file, why="it is not an ordinary file")
    return real


def check_plain(file: str) -> None:
    """Refuse every path but the plain relative form. Raises: UnsafePath."""
    if not file or len(file) > LONGEST_PATH:
        raise UnsafePath(file=file[:LONGEST_PATH], why=f"a path has 1 to {LONGEST_PATH} characters")
    if "\\" in file or ":" in file or not file.isprintable():
        raise UnsafePath(file=file, why="it has a backslash, a colon or a control character")
    if file.startswith("/"):
        raise UnsafePath(file=file, why="it is absolute")
    if any(part in ("", ".", "..") for part in file.split("/")):
        raise UnsafePath(file=file, why="it has an empty, '.' or '..' part")


def read_capped(root: Path, file: str, *, cap_bytes: int) -> bytes:
    """The whole file, when it is no larger than `cap_bytes`. Raises: what `inside` raises, BundleError."""
    place = inside(root, file)
    try:
        with place.open("rb") as stream:
            data = stream.read(cap_bytes + 1)
    except OSError as error:
        raise BundleError(f"{file} cannot be read", file=file, why=str(error)) from error
    if len(data) > cap_bytes:
        raise BundleError(f"{file} is refused", file=file, why=f"it is larger than {cap_bytes} bytes")
    return data


def check_size(root: Path, file: str, *, size_bytes: int) -> None:
    """Compare a file's size with the one promised. Raises: what `inside` raises, BundleError."""
    place = inside(root, file)
    try:
        actual_bytes = place.stat().st_size
    except OSError as error:
        raise BundleError(f"{file} cannot be read", file=file, why=str(error)) from error
    if actual_bytes != size_bytes:
        raise BundleError(
            f"{file} has another size than it had when the bundle was made",
            file=file,
            why=f"it has {actual_bytes} bytes, the manifest says {size_bytes}",
            fix="flash or copy the bundle again",
        )


def check_sha256(root: Path, file: str, *, sha256: str) -> None:
    """Compare a file's digest with the one promised. Raises: what `inside` raises, IntegrityError."""
    place = inside(root, file)
    digest = hashlib.sha256()
    try:
        with place.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise BundleError(f"{file} cannot be read", file=file, why=str(error)) from error
    if digest.hexdigest() != sha256:
        raise IntegrityError(file=file, expected_sha256=sha256, actual_sha256=digest.hexdigest())


def fsync_directory(directory: Path) -> None:
    """Make the names in a directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
