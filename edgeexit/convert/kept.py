"""Finished steps of a conversion, kept until its bundle stands: one that was killed goes on from them.

Every step is kept under the digest of all that it was made from, so that steps of other weights, code or
settings are never taken for one's own.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Sequence
from glob import escape
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from edgeexit.errors import BundleError, ConfigError, EdgeExitError

# 96 bits of a digest each: no two steps of a folder meet, and names stay readable.
_DIGITS = 24
_LOCK = "lock"


def steps_path(out: Path) -> Path:
    """Where the finished steps of an unfinished conversion to `out` lie."""
    return out.with_name(f".{out.name}.steps")


class KeptSteps:
    """The steps of one conversion; a context manager, one at a time for each place.

    `base` is what all steps depend on: code and tools. The folder goes when the conversion is done, or is
    refused; it stays when the process is stopped.
    """

    def __init__(self, out: Path, base: str) -> None:
        self._out = out
        self._base = base
        self._folder = steps_path(out)
        self._lock: int | None = None
        self._kept = 0
        self._found = 0

    @staticmethod
    def count(out: Path) -> int:
        """How many finished steps of an unfinished conversion to `out` there are, of whatever settings."""
        return sum(path.name != _LOCK for path in steps_path(out).glob("*"))

    @property
    def kept(self) -> int:
        """How many finished steps of an earlier run there were, of whatever settings."""
        return self._kept

    @property
    def found(self) -> int:
        """How many of them were used."""
        return self._found

    def __enter__(self) -> KeptSteps:
        """Take the place. Raises: ConfigError when another conversion has it, BundleError."""
        while self._lock is None:
            self._lock = self._locked()
        self._clear_drafts()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A refusal would come again, and nothing of it is of use; who was interrupted goes on.
        if kind is None or issubclass(kind, EdgeExitError):
            shutil.rmtree(self._folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)

    def file(self, name: str, parts: Sequence[str], make: Callable[[], bytes]) -> Path:
        """The file of a step: found where it was finished before, else made and kept.

        `parts` are what it is made from, besides the base. Raises: what `make` raises, BundleError.
        """
        key = hashlib.sha256("\n".join((self._base, name, *parts)).encode()).hexdigest()[:_DIGITS]
        for path in self._folder.glob(f"{name}.{key}.*"):
            # A file is named by its content too: one that the disk has damaged is made again.
            if path.suffix == f".{_digest(path.read_bytes())}":
                self._found += 1
                return path
            path.unlink()
        data = make()
        path = self._folder / f"{name}.{key}.{_digest(data)}"
        part = path.with_name(f"{path.name}.part")
        try:
            with part.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(path)
        except OSError as error:
            raise BundleError(f"{path} cannot be written", file=str(path), why=str(error)) from error
        return path

    def array(
        self, name: str, parts: Sequence[str], make: Callable[[], NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """The same for an array. Raises: as `file`."""

        def encoded() -> bytes:
            stream = io.BytesIO()
            np.save(stream, make(), allow_pickle=False)
            return stream.getvalue()

        array: NDArray[np.float32] = np.load(self.file(name, parts, encoded), allow_pickle=False)
        return array

    def _locked(self) -> int | None:
        """The lock, held; None when the folder went with another conversion just now.

        Raises: ConfigError, BundleError.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise BundleError(
                f"{self._out} cannot be written", file=str(self._out), why=str(error)
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise ConfigError(
                f"{self._out} is being made",
                key="out",
                why="another conversion is at work on it",
                fix="wait until it has ended, or choose another place",
            ) from error
        try:
            if os.fstat(lock).st_ino == (self._folder / _LOCK).stat().st_ino:
                return lock
        except OSError:
            pass
        os.close(lock)
        return None

    def _clear_drafts(self) -> None:
        """Remove what a killed conversion left of a bundle; one that stepped aside comes back."""
        for draft in self._out.parent.glob(f".{escape(self._out.name)}.*.part*"):
            if draft.name.endswith(".part.old") and not self._out.exists():
                with contextlib.suppress(OSError):
                    draft.rename(self._out)
                continue
            shutil.rmtree(draft, ignore_errors=True)
        for part in self._folder.glob("*.part"):
            part.unlink(missing_ok=True)
        self._kept = self.count(self._out)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_DIGITS]
