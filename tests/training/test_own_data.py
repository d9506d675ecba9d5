"""Somebody's own data, named in one word, become parts that share no image and fit the network."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeexit.errors import ConfigError, DataError
from edgeexit.training.data import Samples
from edgeexit.training.fitting import FittedBatches, fitted
from edgeexit.training.own_data import is_own_data, own_data
from edgeexit.training.recipe import RecipeData

SHAPE = (3, 8, 8)


def picture(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 9), (shade, 0, 0)).save(path)


def folder(root: Path, *, each: int = 20, first: int = 0) -> Path:
    for index, name in enumerate(("a", "b")):
        for number in range(each):
            picture(root / name / f"{number:02d}.png", first + 2 * number + index)
    return root


def shades(samples: Samples) -> set[int]:
    return {round(float(image[0].mean()) * 255) for image in samples.images}


def silent(line: str) -> None:
    pass


def test_what_is_held_out_is_in_no_other_part_and_does_not_depend_on_the_seed(tmp_path: Path) -> None:
    data = own_data(f"imagefolder:{folder(tmp_path / 'p')}", SHAPE, silent)
    parts = [shades(part) for part in (data.items, data.held_out, data.test)]
    assert [len(part) for part in parts] == [28, 6, 6]
    assert len(set.union(*parts)) == 40
    again = own_data(f"imagefolder:{tmp_path / 'p'}", SHAPE, silent)
    assert shades(again.test) == parts[2]
    seen = [shades(data.train(seed).batch(0, 28)) for seed in (0, 1)]
    assert seen == [parts[0], parts[0]]
    assert data.task == "classification"


def test_parts_that_are_named_are_taken_as_they_are(tmp_path: Path) -> None:
    folder(tmp_path / "train", each=20)
    folder(tmp_path / "val", each=3, first=100)
    folder(tmp_path / "test", each=2, first=200)
    (tmp_path / "val" / "a" / "broken.png").write_bytes(b"")
    told: list[str] = []
    data = own_data(f"imagefolder:{tmp_path}", SHAPE, told.append)
    assert [len(part) for part in (data.items, data.held_out, data.test)] == [40, 6, 4]
    assert min(shades(data.test)) >= 200
    assert data.skipped == 1
    assert "broken.png" in told[0]
    picture(tmp_path / "val" / "c" / "0.png", 0)
    with pytest.raises(DataError, match="3 classes"):
        own_data(f"imagefolder:{tmp_path}", SHAPE, silent)


def table(path: Path, values: list[float]) -> None:
    lines = [f"{index}.png,{value}" for index, value in enumerate(values)]
    for index in range(len(values)):
        picture(path.parent / f"{index}.png", 3 * index)
    path.write_text("\n".join(["image,value", *lines]) + "\n")


def test_a_table_of_values_is_a_regression_that_knows_its_range(tmp_path: Path) -> None:
    table(tmp_path / "v.csv", [float(10 + index % 5) for index in range(40)])
    data = own_data(f"csv:{tmp_path / 'v.csv'}", SHAPE, silent)
    assert (data.task, data.classes) == ("regression", ())
    assert [len(part) for part in (data.items, data.held_out, data.test)] == [28, 6, 6]
    assert data.value_offset == pytest.approx(12.0, abs=1.0)
    assert 0.5 < data.value_scale < 2.0
    (tmp_path / "train.csv").write_text((tmp_path / "v.csv").read_text())
    (tmp_path / "test.csv").write_text("image,value\n0.png,1\n1.png,2\n")
    parts = own_data(f"csv:{tmp_path}", SHAPE, silent)
    assert [len(part) for part in (parts.items, parts.held_out, parts.test)] == [34, 6, 2]
    table(tmp_path / "same.csv", [4.0] * 40)
    with pytest.raises(DataError, match="one value alone"):
        own_data(f"csv:{tmp_path / 'same.csv'}", SHAPE, silent)


def idx(path: Path, array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(head + array.tobytes())


def test_idx_files_of_any_number_of_classes_are_fitted(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for prefix, count in (("train", 40), ("t10k", 10)):
        idx(tmp_path / f"{prefix}-images-idx3-ubyte", random.integers(0, 256, (count, 6, 6)).astype(np.uint8))
        idx(tmp_path / f"{prefix}-labels-idx1-ubyte", (np.arange(count) % 4).astype(np.uint8))
    data = own_data(f"idx:{tmp_path}", SHAPE, silent)
    assert data.classes == ("0", "1", "2", "3")
    assert data.test.images.shape == (10, *SHAPE)
    assert data.train(0).batch(0, 5).images.shape == (5, *SHAPE)
    assert len(data.held_out) == 6


def test_cifar_is_opened_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "batches.meta.txt").write_text("\n".join(f"class{i}" for i in range(10)))
    records = np.zeros((1010, 3073), dtype=np.uint8)
    records[:, 0] = np.arange(1010) % 10
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        (tmp_path / name).write_bytes(records.tobytes())
    data: RecipeData = own_data(f"cifar10:{tmp_path}", SHAPE, silent)
    assert [len(part) for part in (data.items, data.held_out, data.test)] == [50, 5000, 1010]
    assert len(data.classes) == 10


@pytest.mark.parametrize("text", ["zip:x", "http://x"])
def test_other_kinds_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="unknown") as caught:
        own_data(text, SHAPE, silent)
    assert "imagefolder:PATH" in str(caught.value.fix)


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too few"):
        own_data(f"imagefolder:{folder(tmp_path / 'p', each=1)}", SHAPE, silent)


def test_a_directory_is_no_word_for_own_data(tmp_path: Path) -> None:
    odd = tmp_path / "a:b"
    odd.mkdir()
    assert not is_own_data(str(odd))
    assert not is_own_data("somewhere/else")
    assert is_own_data("imagefolder:photos")


def test_images_are_resized_cut_and_coloured_to_whole_steps() -> None:
    wide = np.zeros((2, 1, 4, 8), dtype=np.float32)
    wide[:, :, :, 2:6] = 1.0  # what a square in the middle shows
    for shape in ((1, 4, 4), (3, 4, 4), (1, 2, 2)):
        assert fitted(wide, shape).shape == (2, *shape)
    assert (fitted(wide, (3, 4, 4)) == 1.0).all()
    colours = np.random.default_rng(0).integers(0, 256, (3, 3, 9, 7)).astype(np.float32) / np.float32(255)
    for shape in ((1, 12, 12), (3, 5, 5), (3, 9, 7)):
        steps = fitted(colours, shape) * 255
        assert np.abs(steps - np.rint(steps)).max() < 1e-3
        assert steps.min() >= 0
    grey = fitted(np.full((1, 3, 4, 4), 0.2, dtype=np.float32), (1, 4, 4))
    assert grey.max() == pytest.approx(0.2, abs=1e-3)
    same = np.ones((1, 1, 4, 4), dtype=np.float32)
    assert fitted(same, (1, 4, 4)) is same


def test_fitted_batches_follow_from_their_source() -> None:
    class Ones:
        def batch(self, number: int, size: int) -> Samples:
            images = np.full((size, 1, 4, 4), number / 255, dtype=np.float32)
            return Samples(images, np.full(size, number, dtype=np.int64), "ones")

    batch = FittedBatches(Ones(), (3, 8, 8)).batch(5, 2)
    assert batch.images.shape == (2, 3, 8, 8)
    assert batch.images.max() == pytest.approx(5 / 255)
    assert batch.targets.tolist() == [5, 5]
