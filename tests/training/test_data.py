"""Data files are read whole or refused with a reason, and splits share no item."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeexit.errors import DataError
from edgeexit.training.data import (
    FASHION_MNIST_ROOT,
    Samples,
    digits,
    fashion_mnist,
    idx_split,
    read_idx,
    split_off,
)


def idx(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def write_fashion(root: Path, train: int = 40, test: int = 12, zipped: bool = True) -> None:
    rng = np.random.default_rng(0)
    for prefix, count in (("train", train), ("t10k", test)):
        images = rng.integers(0, 256, (count, 28, 28))
        for name, array in (("images-idx3", images), ("labels-idx1", rng.integers(0, 10, count))):
            content = idx(np.asarray(array))
            path = root / f"{prefix}-{name}-ubyte{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(content) if zipped else content)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_set_is_read_gzipped_or_plain(tmp_path: Path, zipped: bool) -> None:
    write_fashion(tmp_path, zipped=zipped)
    splits = fashion_mnist(tmp_path, calibration=10)
    assert [len(part) for part in (splits.train, splits.calibration, splits.test)] == [30, 10, 12]
    assert splits.train.images.shape == (30, 1, 28, 28)
    assert splits.train.images.dtype == np.float32
    assert splits.train.targets.dtype == np.int64
    assert len(splits.classes) == 10


def test_values_are_whole_8_bit_steps(tmp_path: Path) -> None:
    write_fashion(tmp_path)
    samples = idx_split(tmp_path, "t10k", "x")
    assert np.array_equal(samples.pixels().astype(np.float32) / np.float32(255), samples.images)


def test_calibration_is_held_out_of_train(tmp_path: Path) -> None:
    write_fashion(tmp_path)
    splits = fashion_mnist(tmp_path, calibration=10, seed=3)
    train = {image.tobytes() for image in splits.train.images}
    held_out = {image.tobytes() for image in splits.calibration.images}
    assert len(train) == 30
    assert len(held_out) == 10
    assert not train & held_out
    again = fashion_mnist(tmp_path, calibration=10, seed=3)
    assert np.array_equal(again.calibration.images, splits.calibration.images)


def test_a_missing_file_names_the_package(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing") as caught:
        fashion_mnist(tmp_path)
    assert caught.value.fix is not None
    assert "dataset-fashion-mnist" in caught.value.fix


def test_images_and_labels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write_fashion(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros(3))))
    with pytest.raises(DataError, match="fit together"):
        idx_split(tmp_path, "t10k", "x")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "magic"),
        (b"\0\0\x08", "magic"),
        (b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0", "magic"),
        (b"\0\0\x08\x07" + b"\0" * 64, "magic"),
        (b"\0\0\x08\x03\0\0\0\x01", "cut off"),
        (b"\0\0\x08\x01\0\0\0\x05abcd", "fewer"),
        (b"\0\0\x08\x01\0\0\0\x03abcd", "more"),
        (b"\0\0\x08\x01\0\0\0\0", "empty"),
        (b"\0\0\x08\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "cap"),
        (b"\0\0\x08\x01\x7f\xff\xff\xff", "cap"),
    ],
)
def test_malformed_files_are_refused_with_the_reason(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "x-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_idx(path)
    assert caught.value.why is not None
    assert why in caught.value.why
    assert caught.value.file == str(path)


def test_a_gzip_that_unfolds_without_end_is_cut_at_what_the_header_says(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\x02" + b"\0" * 50_000_000))
    with pytest.raises(DataError):
        read_idx(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=200), zipped=st.booleans(), cut=st.integers(0, 20))
def test_any_bytes_give_an_array_or_a_data_error(
    tmp_path: Path, content: bytes, zipped: bool, cut: int
) -> None:
    path = tmp_path / "any"
    whole = gzip.compress(content) if zipped else content
    path.write_bytes(whole[: len(whole) - cut])
    try:
        read_idx(path)
    except DataError:
        return


def test_splitting_off_refuses_to_leave_nothing() -> None:
    samples = Samples(np.zeros((4, 1, 2, 2), np.float32), np.zeros(4, np.int64), "x")
    for count in (0, 4, 5):
        with pytest.raises(ValueError, match="cannot hold"):
            split_off(samples, count, seed=0)


def test_digits_stand_in_where_nothing_is_installed() -> None:
    splits = digits()
    assert splits.train.images.shape[1:] == (1, 24, 24)
    assert len(splits.train) + len(splits.calibration) + len(splits.test) == 1797
    assert np.array_equal(splits.test.pixels().astype(np.float32) / np.float32(255), splits.test.images)
    assert set(splits.test.targets.tolist()) == set(range(10))


@pytest.mark.slow
def test_the_installed_fashion_mnist_is_whole() -> None:
    splits = fashion_mnist(FASHION_MNIST_ROOT)
    assert [len(part) for part in (splits.train, splits.calibration, splits.test)] == [55_000, 5_000, 10_000]
    assert np.bincount(splits.test.targets).tolist() == [1000] * 10
    counts = np.bincount(splits.train.targets) + np.bincount(splits.calibration.targets)
    assert counts.tolist() == [6000] * 10
