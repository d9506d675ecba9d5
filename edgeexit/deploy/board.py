"""The port behind which a board's files are written, and the board that is a folder here."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgeexit.errors import DeployError

Sent = Callable[[int], None]
"""Called with the number of bytes sent since the last call."""

# Large enough that a file costs few calls, small enough that progress moves on a slow link.
CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class BoardFile:
    """A small file that goes along with a bundle. `keep` leaves a file that is there already alone."""

    path: str
    content: bytes
    mode: int = 0o644
    keep: bool = False


class Board(Protocol):
    """Port: the files of one board. Every method raises DeployError when the board refuses."""

    @property
    def name(self) -> str:
        """Name in messages."""
        ...

    def link(self, path: str) -> str | None:
        """What a symbolic link points to; None when there is none."""
        ...

    def sha256(self, path: str) -> str | None:
        """Digest of a file, computed on the board; None when there is no such file."""
        ...

    def read(self, path: str, cap_bytes: int) -> bytes | None:
        """A small file of at most `cap_bytes`; None when there is no such file."""
        ...

    def is_directory(self, path: str) -> bool:
        """Whether this directory exists."""
        ...

    def make_directory(self, path: str) -> None:
        """Make a directory and its parents; no error when it exists."""
        ...

    def send(self, source: Path, path: str, sent: Sent) -> None:
        """Write a file whole or not at all: to `path`.part, synced, then renamed."""
        ...

    def write(self, content: bytes, path: str, mode: int) -> None:
        """Write a small file whole or not at all."""
        ...

    def copy(self, source: str, path: str) -> None:
        """Copy a file on the board, whole or not at all, without sending it again."""
        ...

    def rename(self, source: str, path: str) -> None:
        """Move a file or directory into a place where nothing is."""
        ...

    def switch_link(self, target: str, path: str) -> None:
        """Point a symbolic link elsewhere in one step: at no moment is it absent or half made."""
        ...

    def remove_tree(self, path: str) -> None:
        """Remove a directory and all in it; no error when it is absent."""
        ...

    def names(self, path: str) -> tuple[str, ...]:
        """What a directory holds, sorted; empty when it is absent."""
        ...

    def restart(self, unit: str) -> str:
        """Have systemd take up this unit anew; says in a few words what happened."""
        ...


class FolderBoard:
    """A board that is a folder here: a mounted card, an image being built, or a demo."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def name(self) -> str:
        """The folder."""
        return str(self._root)

    def _at(self, path: str) -> Path:
        return self._root / path.lstrip("/")

    def _refused(self, what: str, error: OSError) -> DeployError:
        return DeployError(
            what, host=self.name, why=error.strerror or str(error), fix="check owner and space"
        )

    def link(self, path: str) -> str | None:
        """See Board."""
        try:
            return os.readlink(self._at(path))
        except OSError:
            return None

    def sha256(self, path: str) -> str | None:
        """See Board."""
        try:
            with self._at(path).open("rb") as file:
                digest = hashlib.sha256()
                while chunk := file.read(CHUNK_BYTES):
                    digest.update(chunk)
                return digest.hexdigest()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._refused(f"cannot read {path}", error) from error

    def read(self, path: str, cap_bytes: int) -> bytes | None:
        """See Board."""
        try:
            with self._at(path).open("rb") as file:
                content = file.read(cap_bytes + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._refused(f"cannot read {path}", error) from error
        return within_cap(content, cap_bytes, path, host=self.name)

    def is_directory(self, path: str) -> bool:
        """See Board."""
        return self._at(path).is_dir()

    def make_directory(self, path: str) -> None:
        """See Board."""
        try:
            self._at(path).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._refused(f"cannot make {path}", error) from error

    def send(self, source: Path, path: str, sent: Sent) -> None:
        """See Board."""
        try:
            with source.open("rb") as reader, self._part(path).open("wb") as writer:
                while chunk := reader.read(CHUNK_BYTES):
                    writer.write(chunk)
                    sent(len(chunk))
                _sync(writer.fileno())
            self._part(path).replace(self._at(path))
        except OSError as error:
            raise self._refused(f"cannot write {path}", error) from error

    def write(self, content: bytes, path: str, mode: int) -> None:
        """See Board."""
        try:
            self._at(path).parent.mkdir(parents=True, exist_ok=True)
            with self._part(path).open("wb") as writer:
                writer.write(content)
                _sync(writer.fileno())
            self._part(path).chmod(mode)
            self._part(path).replace(self._at(path))
        except OSError as error:
            raise self._refused(f"cannot write {path}", error) from error

    def copy(self, source: str, path: str) -> None:
        """See Board."""
        try:
            shutil.copyfile(self._at(source), self._part(path))
            self._part(path).replace(self._at(path))
        except OSError as error:
            raise self._refused(f"cannot copy to {path}", error) from error

    def rename(self, source: str, path: str) -> None:
        """See Board."""
        try:
            self._at(source).rename(self._at(path))
            self._sync_directory(path)
        except OSError as error:
            raise self._refused(f"cannot rename {source}", error) from error

    def switch_link(self, target: str, path: str) -> None:
        """See Board."""
        fresh = self._at(f"{path}.new")
        try:
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(target)
            fresh.replace(self._at(path))
            self._sync_directory(path)
        except OSError as error:
            raise self._refused(f"cannot switch {path}", error) from error

    def remove_tree(self, path: str) -> None:
        """See Board."""
        try:
            shutil.rmtree(self._at(path))
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._refused(f"cannot remove {path}", error) from error

    def names(self, path: str) -> tuple[str, ...]:
        """See Board."""
        try:
            return tuple(sorted(os.listdir(self._at(path))))
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise self._refused(f"cannot read {path}", error) from error

    def restart(self, unit: str) -> str:
        """See Board: a folder runs nothing."""
        return "not started: this board is a folder"

    def _part(self, path: str) -> Path:
        return self._at(f"{path}.part")

    def _sync_directory(self, path: str) -> None:
        """Make a rename survive a power cut: it lives in the directory, not in the file."""
        descriptor = os.open(self._at(path).parent, os.O_RDONLY)
        try:
            _sync(descriptor)
        finally:
            os.close(descriptor)


def within_cap(content: bytes, cap_bytes: int, path: str, *, host: str) -> bytes:
    """The content, unless there is more of it than asked for. Raises: DeployError."""
    if len(content) > cap_bytes:
        raise DeployError(f"cannot read {path}", host=host, why=f"it is larger than {cap_bytes} bytes")
    return content


def _sync(descriptor: int) -> None:
    os.fsync(descriptor)
