"""Video files and cameras as sources, through OpenCV."""

from __future__ import annotations

import re
from math import isfinite
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeexit.device.capture import Clock, Shot
from edgeexit.errors import DataError, DeviceError, MissingExtra

# Containers without a frame rate, or with nonsense in it, are played at what most cameras record.
USUAL_RATE_HZ = 25.0
HIGHEST_RATE_HZ = 1000.0

_CAMERA = re.compile(r"\A(?:/dev/video)?([0-9]{1,3})\Z")


class _VideoCapture(Protocol):
    """What is used of OpenCV's VideoCapture, which carries no types."""

    def isOpened(self) -> bool: ...  # noqa: N802

    def get(self, prop: int) -> float: ...

    def set(self, prop: int, value: float) -> bool: ...

    def grab(self) -> bool: ...

    def retrieve(self) -> tuple[bool, NDArray[np.uint8]]: ...

    def release(self) -> None: ...


class VideoReader:
    """Reads the frames of a video file, once or again and again; `source` is the file's name and frame."""

    def __init__(self, file: Path, *, loop: bool, clock: Clock) -> None:
        self._file = file
        self._loop = loop
        self._clock = clock
        self._opencv: ModuleType | None = None
        self._video: _VideoCapture | None = None
        self._position = 0

    @property
    def live(self) -> bool:
        """False: a file waits."""
        return False

    @property
    def rate_hz(self) -> float | None:
        """The file's own frame rate."""
        if self._video is None or self._opencv is None:
            return None
        rate_hz = float(self._video.get(self._opencv.CAP_PROP_FPS))
        return rate_hz if isfinite(rate_hz) and 0.0 < rate_hz <= HIGHEST_RATE_HZ else USUAL_RATE_HZ

    def open(self) -> None:
        """Open the file at its beginning. Raises: DeviceError; MissingExtra."""
        if not self._file.is_file():
            raise DeviceError(
                f"no video at {self._file}", why="no such file", fix="name a video file as source.path"
            )
        self._opencv = _opencv()
        video: _VideoCapture = self._opencv.VideoCapture(str(self._file))
        if not video.isOpened():
            raise DeviceError(f"{self._file} cannot be played", why="OpenCV knows no codec for it")
        self._video = video
        self._position = 0

    def read(self) -> Shot | None:
        """The next frame; None at the end of a file played once. Raises: DeviceError."""
        if self._video is None or self._opencv is None:
            raise DeviceError(f"{self._file} is not open")
        captured_ms = self._clock()
        grabbed = self._video.grab()
        if not grabbed and self._loop and self._position > 0:
            self.close()
            self.open()
            grabbed = self._video.grab()
        name = f"{self._file.name}#{self._position}"
        self._position += 1
        image = _decoded(self._video, self._opencv, name) if grabbed else None
        return None if image is None else Shot(name, captured_ms, image)

    def close(self) -> None:
        """Close the file."""
        if self._video is not None:
            self._video.release()
            self._video = None


class CameraReader:
    """Reads a V4L2 camera, named by number or as `/dev/video0`; `source` is its device file."""

    def __init__(self, name: str, *, clock: Clock, rate_hz: float | None = None) -> None:
        match = _CAMERA.match(name)
        if match is None:
            raise DeviceError(
                f"{name!r} is no camera", why="cameras are numbers or /dev/video0", fix="set source.path"
            )
        self._number = int(match.group(1))
        self._clock = clock
        self._rate_hz = rate_hz
        self._opencv: ModuleType | None = None
        self._video: _VideoCapture | None = None

    @property
    def live(self) -> bool:
        """True: a frame not taken is lost."""
        return True

    @property
    def rate_hz(self) -> float | None:
        """None: frames come when the camera has them."""
        return None

    def open(self) -> None:
        """Open the camera. Raises: DeviceError; MissingExtra."""
        device = Path(f"/dev/video{self._number}")
        if not device.exists():
            raise DeviceError(f"no camera at {device}", fix="plug one in, or set source.path")
        self._opencv = opencv = _opencv()
        video: _VideoCapture = opencv.VideoCapture(self._number, opencv.CAP_V4L2)
        if not video.isOpened():
            raise DeviceError(
                f"{device} cannot be opened",
                why="it is busy, or this user may not use it",
                fix="add the user to the group video",
            )
        # One buffer: with more, the driver hands out frames that are several periods old.
        video.set(opencv.CAP_PROP_BUFFERSIZE, 1)
        if self._rate_hz is not None:
            video.set(opencv.CAP_PROP_FPS, self._rate_hz)
        self._video = video

    def read(self) -> Shot | None:
        """The next frame of the camera. Raises: DeviceError when it is gone."""
        name = f"/dev/video{self._number}"
        if self._video is None or self._opencv is None:
            raise DeviceError(f"{name} is not open")
        grabbed = self._video.grab()
        captured_ms = self._clock()
        image = _decoded(self._video, self._opencv, name) if grabbed else None
        if image is None:
            raise DeviceError(f"{name} gives no frame", why="unplugged or hung")
        return Shot(name, captured_ms, image)

    def close(self) -> None:
        """Let the camera go."""
        if self._video is not None:
            self._video.release()
            self._video = None


def _decoded(video: _VideoCapture, opencv: ModuleType, name: str) -> NDArray[np.uint8] | None:
    """The frame that was grabbed, as RGB; None when there is none. Shapes: (H, W, 3). Raises: DataError."""
    try:
        decoded, image = video.retrieve()
        if not decoded:
            return None
        rgb: NDArray[np.uint8] = opencv.cvtColor(image, opencv.COLOR_BGR2RGB)
    except opencv.error as error:
        raise DataError("a frame cannot be decoded", file=name, why=str(error)) from error
    return rgb


def _opencv() -> ModuleType:
    try:
        import cv2
    except ImportError as error:
        raise MissingExtra("opencv-python-headless", extra="video", needed_for="video") from error
    module: ModuleType = cv2
    return module
