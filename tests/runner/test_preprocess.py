"""From images as people have them to the tensor that stage 0 takes."""

from __future__ import annotations

import io
import os
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from edgeexit.bundle.manifest import Preprocessing, TensorSpec
from edgeexit.errors import DataError
from edgeexit.runner.preprocess import FILE_CAP_BYTES, decode_image, input_tensors, read_image

Pixels = NDArray[np.uint8]


def wanted(height: int, width: int, color: str, layout: str) -> tuple[Preprocessing, TensorSpec]:
    how = msgspec.convert({"height": height, "width": width, "color": color, "layout": layout}, Preprocessing)
    channels = 1 if color == "gray" else 3
    shape = (1, height, width, channels) if layout == "NHWC" else (1, channels, height, width)
    return how, TensorSpec(name="image", shape=shape)


def picture(*shape: int) -> Pixels:
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("color", ["gray", "rgb"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 1), (6, 4, 3), (12, 9), (31, 2, 3), (1, 1)])
def test_any_image_becomes_the_tensor_wanted(shape: tuple[int, ...], color: str, layout: str) -> None:
    how, spec = wanted(6, 4, color, layout)
    tensors = input_tensors(picture(*shape), how, spec)
    assert list(tensors) == ["image"]
    tensor = tensors["image"]
    assert tensor.shape == spec.shape
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    assert tensor.min() >= 0.0
    assert tensor.max() <= 1.0


@given(hnp.arrays(np.uint8, (5, 7)))
def test_a_fitting_image_is_only_divided_by_255(image: Pixels) -> None:
    how, spec = wanted(5, 7, "gray", "NCHW")
    tensor = input_tensors(image, how, spec)["image"]
    np.testing.assert_array_equal(tensor[0, 0], image.astype(np.float32) / np.float32(255.0))
    np.testing.assert_array_equal(np.round(tensor[0, 0] * 255.0).astype(np.uint8), image)


def test_colours_land_in_their_channels() -> None:
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 255
    how, spec = wanted(2, 2, "rgb", "NCHW")
    np.testing.assert_array_equal(input_tensors(red, how, spec)["image"].mean(axis=(0, 2, 3)), [1, 0, 0])
    how, spec = wanted(2, 2, "rgb", "NHWC")
    np.testing.assert_array_equal(input_tensors(red, how, spec)["image"].mean(axis=(0, 1, 2)), [1, 0, 0])


def test_grey_becomes_three_equal_channels_and_back() -> None:
    grey = picture(4, 4)
    how, spec = wanted(4, 4, "rgb", "NHWC")
    tensor = input_tensors(grey, how, spec)["image"]
    for c in range(3):
        np.testing.assert_array_equal(tensor[0, :, :, c], grey.astype(np.float32) / np.float32(255.0))
    how, spec = wanted(4, 4, "gray", "NHWC")
    again = input_tensors(np.repeat(grey[:, :, None], 3, axis=2), how, spec)["image"]
    np.testing.assert_allclose(again[0, :, :, 0] * 255.0, grey, atol=1.0)


def test_shrinking_averages_instead_of_skipping() -> None:
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    how, spec = wanted(8, 8, "gray", "NCHW")
    tensor = input_tensors(stripes, how, spec)["image"]
    np.testing.assert_allclose(tensor, 0.5, atol=0.05)


def test_the_image_is_not_changed() -> None:
    image = picture(9, 9, 3)
    before = image.copy()
    how, spec = wanted(4, 4, "gray", "NCHW")
    input_tensors(image, how, spec)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.float32),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4,), np.uint8),
        np.zeros((0, 4), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
    ],
)
def test_what_is_no_image_is_a_data_error(image: Pixels) -> None:
    how, spec = wanted(4, 4, "gray", "NCHW")
    with pytest.raises(DataError):
        input_tensors(image, how, spec)


def encoded(image: NDArray[np.integer], kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM"])
@pytest.mark.parametrize("shape", [(5, 8), (5, 8, 3)])
def test_lossless_files_come_back_exactly(tmp_path: Path, kind: str, shape: tuple[int, ...]) -> None:
    image = picture(*shape)
    (tmp_path / "image").write_bytes(encoded(image, kind))
    np.testing.assert_array_equal(read_image(tmp_path / "image"), image)


def test_jpeg_and_webp_come_back_nearly() -> None:
    image = np.full((16, 16, 3), 77, np.uint8)
    for kind in ("JPEG", "WEBP"):
        np.testing.assert_allclose(decode_image(encoded(image, kind), name="x").astype(int), 77, atol=3)


def test_a_photograph_comes_upright() -> None:
    image = np.zeros((4, 8), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", exif=exif)
    assert decode_image(stream.getvalue(), name="x").shape == (8, 4)


def test_palettes_transparency_and_sixteen_bits_are_understood() -> None:
    image = picture(6, 6, 3)
    stream = io.BytesIO()
    Image.fromarray(image).quantize(8).save(stream, "PNG")
    assert decode_image(stream.getvalue(), name="x").shape == (6, 6, 3)
    stream = io.BytesIO()
    Image.fromarray(image).convert("RGBA").save(stream, "PNG")
    np.testing.assert_array_equal(decode_image(stream.getvalue(), name="x"), image)
    deep = (picture(6, 6).astype(np.uint16) << 8) + 17
    np.testing.assert_array_equal(decode_image(encoded(deep, "PNG"), name="x"), deep >> 8)


def test_a_missing_file_or_directory_is_a_data_error(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.png", tmp_path):
        with pytest.raises(DataError) as caught:
            read_image(path)
        assert caught.value.file == str(path)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", FILE_CAP_BYTES + 1)
    with pytest.raises(DataError, match="larger than"):
        read_image(tmp_path / "huge")


@pytest.mark.parametrize("side", [8_000, 12_000, 30_000])
def test_a_small_file_of_huge_pictures_is_refused_before_it_is_decoded(side: int) -> None:
    header = b"P5\n%d %d\n255\n" % (side, side)
    with pytest.raises(DataError, match="pixels"):
        decode_image(header + b"\0" * 100, name="bomb")


def test_formats_that_no_camera_writes_are_not_decoded() -> None:
    for kind in ("TIFF", "ICO", "TGA"):
        with pytest.raises(DataError):
            decode_image(encoded(picture(16, 16), kind), name="x")


@settings(max_examples=200, deadline=None)
@given(kind=st.sampled_from(["PNG", "JPEG", "BMP", "PPM", "WEBP"]), data=st.data())
def test_damaged_files_are_an_image_or_a_data_error(kind: str, data: st.DataObject) -> None:
    sound = encoded(picture(9, 7, 3), kind)
    cut = data.draw(st.integers(0, len(sound)))
    index = data.draw(st.integers(0, len(sound) - 1))
    patch = data.draw(st.binary(max_size=4))
    damaged = (sound[:index] + patch + sound[index + len(patch) :])[: max(cut, index + 1)]
    try:
        image = decode_image(damaged, name="x")
    except DataError:
        return
    assert image.dtype == np.uint8


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=64))
def test_bytes_that_are_no_image_are_a_data_error(data: bytes) -> None:
    with pytest.raises(DataError):
        decode_image(data, name="x")
