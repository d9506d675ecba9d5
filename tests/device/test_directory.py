from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeexit.device.directory import DirectoryReader
from edgeexit.errors import DataError, DeviceError


def save(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 6), value, dtype=np.uint8)).save(path)


def reader(folder: Path, *, loop: bool = False) -> DirectoryReader:
    return DirectoryReader(folder, loop=loop, clock=lambda: 12.0)


def test_images_come_sorted_with_their_place_in_the_folder(tmp_path: Path) -> None:
    for name in ("b.png", "a.png", "sub/c.bmp", "D.PNG"):
        save(tmp_path / name, 7)
    (tmp_path / "notes.txt").write_text("no image", encoding="utf-8")
    source = reader(tmp_path)
    source.open()
    shots = [source.read() for _ in range(4)]
    assert [shot.source for shot in shots if shot is not None] == ["D.PNG", "a.png", "b.png", "sub/c.bmp"]
    assert all(shot is not None and shot.captured_ms == 12.0 for shot in shots)
    assert all(shot is not None and shot.image.shape == (4, 6) for shot in shots)
    assert source.read() is None


def test_a_loop_begins_again_and_sees_new_images(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 1)
    source = reader(tmp_path, loop=True)
    source.open()
    first = source.read()
    save(tmp_path / "b.png", 2)
    again = [source.read() for _ in range(3)]
    assert first is not None
    assert [shot.source for shot in again if shot is not None] == ["a.png", "b.png", "a.png"]


def test_a_file_that_is_no_image_is_named_and_the_next_one_reads(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"this is no image")
    save(tmp_path / "b.png", 2)
    source = reader(tmp_path)
    source.open()
    with pytest.raises(DataError) as caught:
        source.read()
    assert caught.value.file == "a.png"
    assert source.read() is not None


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_a_folder_without_images_says_so_at_the_start(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DeviceError) as caught:
        reader(tmp_path / name).open()
    assert caught.value.fix is not None


def test_a_folder_emptied_meanwhile_is_a_lost_source(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 1)
    source = reader(tmp_path, loop=True)
    source.open()
    source.read()
    (tmp_path / "a.png").unlink()
    with pytest.raises(DeviceError):
        source.read()
