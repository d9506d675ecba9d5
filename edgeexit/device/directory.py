"""Images of a folder as a source: sorted by path, once or again and again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgeexit.device.capture import Clock, Shot
from edgeexit.errors import DataError, DeviceError
from edgeexit.runner.preprocess import read_image

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".webp")


class DirectoryReader:
    """Reads the images of a folder and the folders below it; `source` is the path within the folder."""

    def __init__(self, folder: Path, *, loop: bool, clock: Clock) -> None:
        self._folder = folder
        self._loop = loop
        self._clock = clock
        self._left: Iterator[Path] = iter(())

    @property
    def live(self) -> bool:
        """False: images wait."""
        return False

    @property
    def rate_hz(self) -> float | None:
        """None: a folder has no pace of its own."""
        return None

    def open(self) -> None:
        """List the folder. Raises: DeviceError when there is no image in it."""
        self._left = iter(self._list())

    def read(self) -> Shot | None:
        """The next image. Raises: DataError when it cannot be decoded; DeviceError when all are gone."""
        path = next(self._left, None)
        if path is None and self._loop:
            self._left = iter(self._list())
            path = next(self._left, None)
        if path is None:
            return None
        name = path.relative_to(self._folder).as_posix()
        captured_ms = self._clock()
        try:
            return Shot(name, captured_ms, read_image(path))
        except DataError as error:
            raise DataError(error.what, file=name, why=error.why, fix=error.fix) from error

    def close(self) -> None:
        """Forget the list."""
        self._left = iter(())

    def _list(self) -> list[Path]:
        try:
            found = sorted(
                path for path in self._folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()
            )
        except OSError as error:
            raise DeviceError(f"{self._folder} cannot be listed", why=error.strerror) from error
        if not found:
            raise DeviceError(
                f"no image in {self._folder}",
                why="no such folder" if not self._folder.is_dir() else f"looked for {', '.join(SUFFIXES)}",
                fix="name a folder of images as source.path",
            )
        return found
