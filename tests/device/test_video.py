from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeexit.device.video import CameraReader, VideoReader
from edgeexit.errors import DeviceError

# People walking, shipped with Debian's opencv-doc.
PUBLISHED_CLIP = Path("/usr/share/doc/opencv-doc/examples/data/vtest.avi")

FRAMES, RATE_HZ = 8, 12.0


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight frames, red first, blue in the end."""
    path = tmp_path_factory.mktemp("video") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), RATE_HZ, (64, 48))
    assert writer.isOpened()
    for index in range(FRAMES):
        picture = np.zeros((48, 64, 3), dtype=np.uint8)
        picture[:, :, 2 if index < FRAMES // 2 else 0] = 200  # OpenCV writes blue, green, red
        writer.write(picture)
    writer.release()
    return path


def test_a_video_is_read_frame_by_frame_in_rgb(clip: Path) -> None:
    source = VideoReader(clip, loop=False, clock=lambda: 3.0)
    source.open()
    assert source.rate_hz == pytest.approx(RATE_HZ)
    shots = []
    while (shot := source.read()) is not None:
        shots.append(shot)
    source.close()
    assert [shot.source for shot in shots] == [f"clip.avi#{index}" for index in range(FRAMES)]
    red, blue = shots[0].image, shots[-1].image
    assert red.shape == (48, 64, 3)
    assert red.dtype == np.uint8
    assert red[:, :, 0].mean() > 150 > 50 > red[:, :, 2].mean()
    assert blue[:, :, 2].mean() > 150 > 50 > blue[:, :, 0].mean()


def test_a_looped_video_begins_again(clip: Path) -> None:
    source = VideoReader(clip, loop=True, clock=lambda: 3.0)
    source.open()
    names = [shot.source for _ in range(FRAMES + 2) if (shot := source.read()) is not None]
    source.close()
    assert names[-3:] == [f"clip.avi#{FRAMES - 1}", "clip.avi#0", "clip.avi#1"]


def test_a_published_clip_reads(clip: Path) -> None:
    path = PUBLISHED_CLIP if PUBLISHED_CLIP.exists() else clip
    source = VideoReader(path, loop=False, clock=lambda: 3.0)
    source.open()
    first = source.read()
    source.close()
    assert first is not None
    assert first.image.ndim == 3
    assert first.image.std() > 0


@pytest.mark.parametrize("content", [None, b"", b"not a video" * 100])
def test_what_is_no_video_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.avi"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DeviceError) as caught:
        VideoReader(path, loop=False, clock=lambda: 3.0).open()
    assert "broken.avi" in str(caught.value)


@pytest.mark.parametrize("kept", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_truncated_video_ends_early_or_is_refused(clip: Path, tmp_path: Path, kept: float) -> None:
    path = tmp_path / "torn.avi"
    content = clip.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    source = VideoReader(path, loop=False, clock=lambda: 3.0)
    count = 0
    with suppress(DeviceError):
        source.open()
        while source.read() is not None:
            count += 1
    source.close()
    assert count <= FRAMES


@pytest.mark.parametrize("name", ["front door", "/dev/sda", "-1", "/dev/video0; rm", ""])
def test_a_camera_has_a_number_or_a_device_file(name: str) -> None:
    with pytest.raises(DeviceError):
        CameraReader(name, clock=lambda: 0.0)


def test_a_camera_that_is_not_plugged_in_is_named() -> None:
    with pytest.raises(DeviceError) as caught:
        CameraReader("/dev/video97", clock=lambda: 0.0).open()
    assert "/dev/video97" in str(caught.value)
