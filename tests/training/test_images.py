"""Image files hold exactly the pixels that were evaluated."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeexit.training.data import Samples
from edgeexit.training.images import TRUTH_FILE, write_images


def samples(count: int, channels: int = 1, seed: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, channels, 6, 9)).astype(np.float32) / np.float32(255)
    return Samples(images, rng.integers(0, 10, count), "noise")


@pytest.mark.parametrize("channels", [1, 3])
def test_files_hold_the_same_pixels(tmp_path: Path, channels: int) -> None:
    given = samples(5, channels)
    assert write_images(given, tmp_path / "new", count=3) == 3
    paths = sorted((tmp_path / "new").glob("*.png"))
    assert [path.name for path in paths] == [f"{i:05d}-{given.targets[i]}.png" for i in range(3)]
    for i, path in enumerate(paths):
        with Image.open(path) as image:
            read = np.asarray(image)
        expected = given.images[i].transpose(1, 2, 0)
        assert np.array_equal(read.reshape(6, 9, channels) / np.float32(255), expected)


def test_writing_again_replaces_its_own_files_only(tmp_path: Path) -> None:
    (tmp_path / "holiday.png").write_bytes(b"mine")
    write_images(samples(8, seed=1), tmp_path, count=8)
    again = samples(4, seed=2)
    assert write_images(again, tmp_path, count=100) == 4
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"holiday.png", TRUTH_FILE, *(f"{i:05d}-{again.targets[i]}.png" for i in range(4))}
    truth = json.loads((tmp_path / TRUTH_FILE).read_text())
    assert truth == {f"{i:05d}-{again.targets[i]}.png": again.targets[i] for i in range(4)}
