"""The results file: records as JSON lines, with one older file kept when it grows too large."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import FileIO
from pathlib import Path

from edgeexit.device.records import LARGEST_LINE_BYTES, LINE_START, LogRecord, encode_record
from edgeexit.errors import DeviceError


class ResultsFile:
    """A sink that appends records to `path`; beyond `cap_bytes` the file becomes `<path>.1`.

    Every write goes to the operating system at once. A disk that fills up while running costs records,
    not answers: `trouble` is told once of each such time, and writing goes on when there is room again.
    """

    def __init__(self, path: Path, *, cap_bytes: int, trouble: Callable[[DeviceError], None]) -> None:
        self._path = path
        self._cap_bytes = cap_bytes
        self._trouble = trouble
        self._file: FileIO | None = None
        self._in_trouble = False

    def open(self) -> None:
        """Open the file for appending.

        Raises: DeviceError when it cannot be written, or holds something else.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._append()
        except OSError as error:
            raise DeviceError(
                f"results file {self._path} cannot be written",
                why=error.strerror,
                fix="set results.path to a place where this user may write",
            ) from error

    def write(self, records: Sequence[LogRecord]) -> None:
        """Append the records."""
        lines = b"".join(encode_record(record) for record in records)
        try:
            if self._file is None:
                self._file = self._append()
            if self._file.write(lines) != len(lines):
                raise OSError(None, "the disk is full")
            if self._file.tell() >= self._cap_bytes:
                self.close()
                self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            self._in_trouble = False
        except (OSError, DeviceError) as error:
            self.close()
            if not self._in_trouble:
                self._in_trouble = True
                why = error.strerror if isinstance(error, OSError) else error.why
                self._trouble(DeviceError(f"{self._path} cannot be written", why=why))

    def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _append(self) -> FileIO:
        """The file, at its end, after a line that a power cut or a full disk has torn was taken off."""
        file = FileIO(self._path, "ab+")
        size_bytes = file.seek(0, 2)
        file.seek(max(0, size_bytes - LARGEST_LINE_BYTES))
        tail = file.read(LARGEST_LINE_BYTES)
        torn = tail[tail.rfind(b"\n") + 1 :]
        if torn:
            if not (torn.startswith(LINE_START) or LINE_START.startswith(torn)):
                file.close()
                raise DeviceError(
                    f"{self._path} is not a results file",
                    why="its last line is no record",
                    fix="set results.path to another file",
                )
            file.truncate(size_bytes - len(torn))
        file.seek(0, 2)
        return file
