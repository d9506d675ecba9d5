"""Model files examined where they lie: mapped, not read."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path

from edgeexit.errors import BundleError, UnsafeModel


def examine_file(path: Path, examine: Callable[[memoryview, str], None], *, file: str) -> None:
    """Run `examine` over the bytes of a file; `file` is what errors call it.

    No frame that an error keeps may hold on to the bytes: a mapping in use cannot be closed.
    Raises: UnsafeModel for an empty file, BundleError when it cannot be read; what `examine` raises.
    """
    try:
        with path.open("rb") as stream:
            if not stream.seek(0, 2):
                raise UnsafeModel(file=file, why="it is empty")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as data:
                examine(data, file)
    except OSError as error:
        raise BundleError(f"{file} cannot be read", file=file, why=str(error)) from error
