"""Golden vectors come back as they were written, and nothing else is taken for them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from edgeexit.bundle import Bundle, GoldenVectors, encode_golden, open_bundle
from edgeexit.bundle.golden import MOST_VECTORS, decode_golden
from edgeexit.errors import BundleError, IntegrityError, MissingFile, ShapeError


@pytest.fixture(scope="module")
def golden(tiny_bundle: Bundle) -> GoldenVectors:
    return tiny_bundle.golden()


def test_shapes_are_those_of_the_manifest(tiny_bundle: Bundle, golden: GoldenVectors) -> None:
    assert golden.inputs["image"].shape == (golden.count, 1, 1, 8, 8)
    assert [rows.shape for rows in golden.outputs] == [(golden.count, 3)] * 3
    assert golden.sample(0)["image"].shape == tiny_bundle.manifest.boundaries[0].tensors[0].shape


def test_what_is_encoded_is_decoded(tiny_bundle: Bundle, golden: GoldenVectors) -> None:
    data = encode_golden(golden.inputs, golden.outputs)
    again = decode_golden(data, tiny_bundle.manifest, file="golden")
    np.testing.assert_array_equal(again.inputs["image"], golden.inputs["image"])
    for ours, theirs in zip(again.outputs, golden.outputs, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_tensors_that_are_not_dense_are_encoded_by_value(tiny_bundle: Bundle, golden: GoldenVectors) -> None:
    turned = tuple(np.asfortranarray(rows)[::-1] for rows in golden.outputs)
    data = encode_golden(golden.inputs, turned)
    again = decode_golden(data, tiny_bundle.manifest, file="golden")
    np.testing.assert_array_equal(again.outputs[0], golden.outputs[0][::-1])


def test_a_file_changed_after_opening_is_noticed(tiny_bundle: Bundle, tmp_path: Path) -> None:
    bundle = open_bundle(Path(shutil.copytree(tiny_bundle.path, tmp_path / "bundle")))
    place = bundle.path / bundle.manifest.golden.file
    place.write_bytes(place.read_bytes()[:-1] + b"\1")
    with pytest.raises(IntegrityError):
        bundle.golden()
    place.unlink()
    with pytest.raises(MissingFile):
        bundle.golden()


def test_tensors_that_do_not_fit_are_refused(tiny_bundle: Bundle, golden: GoldenVectors) -> None:
    images, rows = golden.inputs["image"], golden.outputs
    one = np.zeros((1, 3), np.float32)
    wrong = [
        encode_golden({}, rows),
        encode_golden({"picture": images}, rows),
        encode_golden({"image": images, "other": images}, rows),
        encode_golden({"image": images}, rows[:2]),
        encode_golden({"image": images}, [*rows, rows[0]]),
        encode_golden({"image": images[:, :, :, :4]}, rows),
        encode_golden({"image": images[:4]}, rows),
        encode_golden({"image": images}, [rows[0], rows[1], rows[2][:, :2]]),
        encode_golden({"image": images[:0]}, [each[:0] for each in rows]),
        encode_golden(
            {"image": np.zeros((MOST_VECTORS + 1, 1, 1, 8, 8), np.float32)},
            [one.repeat(MOST_VECTORS + 1, axis=0)] * 3,
        ),
        save(
            {"input.image": images, **{f"exit.{k}": each.astype(np.float64) for k, each in enumerate(rows)}}
        ),
        save({"input.image": images, **{f"exit.{k}": np.array(k, np.float32) for k in range(3)}}),
    ]
    for data in wrong:
        with pytest.raises(ShapeError):
            decode_golden(data, tiny_bundle.manifest, file="golden")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(
    tiny_bundle: Bundle, golden: GoldenVectors, bad: float
) -> None:
    rows = [each.copy() for each in golden.outputs]
    rows[1][3, 1] = bad
    with pytest.raises(BundleError, match="finite"):
        decode_golden(encode_golden(golden.inputs, rows), tiny_bundle.manifest, file="golden")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_bytes_are_vectors_or_a_bundle_error(
    tiny_bundle: Bundle, golden: GoldenVectors, data: st.DataObject
) -> None:
    sound = encode_golden(golden.inputs, golden.outputs)
    index = data.draw(st.integers(0, 400))
    patch = data.draw(st.binary(min_size=1, max_size=8))
    damaged = sound[:index] + patch + sound[index + len(patch) :]
    try:
        decoded = decode_golden(damaged, tiny_bundle.manifest, file="golden")
    except BundleError:
        return
    assert len(decoded.outputs) == 3


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_bytes_that_are_no_vectors_are_a_bundle_error(tiny_bundle: Bundle, data: bytes) -> None:
    with pytest.raises(BundleError):
        decode_golden(data, tiny_bundle.manifest, file="golden")
