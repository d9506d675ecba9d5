"""People's own data: what is read, what is left out with a word, what is refused; and counting."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeexit.errors import DataError
from edgeexit.training.cifar import cifar
from edgeexit.training.counting import Counting, CountingBatches, counting_set
from edgeexit.training.data import Samples
from edgeexit.training.user_images import image_folder, value_csv


def picture(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 9), (shade, 0, 0)).save(path)


def test_a_folder_is_read_and_broken_images_are_told_of(tmp_path: Path) -> None:
    for shade, name in ((10, "cat/a.png"), (20, "cat/b.PNG"), (200, "dog/c.png")):
        picture(tmp_path / name, shade)
    (tmp_path / "dog" / "broken.jpg").write_bytes(b"no picture")
    (tmp_path / "dog" / "notes.txt").write_text("no picture either")
    told: list[str] = []
    read = image_folder(tmp_path, (3, 8, 8), tell=told.append)
    assert read.classes == ("cat", "dog")
    assert read.samples.targets.tolist() == [0, 0, 1]
    assert read.samples.images.shape == (3, 3, 8, 8)
    assert read.samples.images[2, 0].mean() == pytest.approx(200 / 255, abs=0.01)
    assert [Path(each.file).name for each in read.skipped] == ["broken.jpg"]
    assert len(told) == 2
    assert "left out 1 of 4" in told[-1]


def test_a_folder_of_other_classes_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "a.png", 1)
    with pytest.raises(DataError, match="1 classes"):
        image_folder(tmp_path, (3, 8, 8), tell=print)
    picture(tmp_path / "dog" / "a.png", 1)
    with pytest.raises(DataError, match="wanted: cat, cow"):
        image_folder(tmp_path, (3, 8, 8), classes=("cat", "cow"), tell=print)
    (tmp_path / "dog" / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="class dog"):
        image_folder(tmp_path, (1, 8, 8), tell=lambda _: None)


def test_values_come_with_their_images(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 255)
    picture(tmp_path / "in" / "b.png", 0)
    file = tmp_path / "values.csv"
    file.write_text("image,who,value\na.png,x,1.5\nin/b.png,y,-2\ngone.png,z,3\n")
    told: list[str] = []
    read = value_csv(file, (1, 4, 4), tell=told.append)
    assert read.samples.targets.tolist() == [1.5, -2.0]
    assert read.samples.targets.dtype == np.float32
    assert len(read.skipped) == 1
    assert read.classes == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [("a,b\n1,2\n", "columns"), ("image,value\na.png,much\n", ":2 has no value"),
     ("image,value\na.png,nan\n", "no number"), ("image,value\n,1\n", ":2 names no image"),
     ("image,value\n", "no image"), ("image,value\ngone.png,1\n", "no image")],
)  # fmt: skip
def test_a_malformed_csv_names_its_line(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "v.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=words):
        value_csv(file, (1, 4, 4), tell=lambda _: None)


def write_cifar(root: Path, labels: int, classes: int, files: tuple[str, ...], names: str) -> None:
    root.mkdir()
    (root / names).write_text("\n".join(f"class{i}" for i in range(classes)))
    for name in files:
        records = [
            struct.pack(f"{labels}B", *([7] * labels)) + bytes([i] * 1024 + [0] * 2048) for i in range(4)
        ]
        (root / name).write_bytes(b"".join(records))


def test_cifar_is_read_from_its_binary_version(tmp_path: Path) -> None:
    ten, hundred = tmp_path / "ten", tmp_path / "hundred"
    batches = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
    write_cifar(ten, 1, 10, batches, "batches.meta.txt")
    write_cifar(hundred, 2, 100, ("train.bin", "test.bin"), "fine_label_names.txt")
    splits = cifar(ten, "cifar-10", calibration=5)
    assert (len(splits.train), len(splits.calibration), len(splits.test)) == (15, 5, 4)
    assert splits.test.images[3, 0].max() == np.float32(3 / 255)
    assert splits.test.images[3, 1:].max() == 0
    assert set(splits.train.targets.tolist()) == {7}
    assert len(cifar(hundred, "cifar-100", calibration=1).classes) == 100


@pytest.mark.parametrize("damage", ["cut", "class", "names", "missing"])
def test_a_damaged_cifar_is_refused(tmp_path: Path, damage: str) -> None:
    root = tmp_path / "c"
    write_cifar(root, 2, 100, ("train.bin", "test.bin"), "fine_label_names.txt")
    whole = (root / "train.bin").read_bytes()
    if damage == "cut":
        (root / "train.bin").write_bytes(whole[:-1])
    elif damage == "class":
        (root / "train.bin").write_bytes(b"\0\xc8" + whole[2:])
    elif damage == "names":
        (root / "fine_label_names.txt").write_text("one")
    else:
        (root / "test.bin").unlink()
    with pytest.raises(DataError):
        cifar(root, "cifar-100", calibration=1)


def test_as_many_items_are_laid_as_the_value_says() -> None:
    items = Samples(np.ones((3, 1, 2, 2), np.float32), np.zeros(3, np.int64), "squares")
    canvases = counting_set(items, 60, Counting(canvas=40, least=0, most=3), seed=0)
    assert canvases.images.shape == (60, 1, 40, 40)
    assert set(canvases.targets.tolist()) == {0.0, 1.0, 2.0, 3.0}
    assert canvases.targets.dtype == np.float32
    areas = canvases.images.sum((1, 2, 3))
    assert (areas <= 4 * canvases.targets).all()
    assert (areas[canvases.targets == 1] == 4).all()
    assert (areas[canvases.targets == 0] == 0).all()


def test_counting_batches_follow_from_their_number() -> None:
    items = Samples(np.ones((3, 1, 4, 4), np.float32), np.zeros(3, np.int64), "squares")
    how = Counting(canvas=12, least=1, most=4, scraps=2, scrap=2)
    one, two = (CountingBatches(items, seed=1, mirror=False, counting=how) for _ in range(2))
    assert np.array_equal(one.batch(5, 8).images, two.batch(5, 8).images)
    assert not np.array_equal(one.batch(5, 8).images, one.batch(6, 8).images)
    with pytest.raises(ValueError, match="do not fit"):
        counting_set(items, 1, Counting(canvas=3, least=0, most=1), seed=0)
    with pytest.raises(ValueError, match="below most"):
        Counting(canvas=12, least=2, most=2)
