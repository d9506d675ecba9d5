"""The reference runner: recorded answers that follow their sample through any boundary and codec."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.bundle import Bundle
from edgeexit.bundle.manifest import Manifest, Preprocessing, TensorSpec
from edgeexit.errors import DataError, RunnerError
from edgeexit.runner.preprocess import input_tensors
from edgeexit.runner.protocol import Tensors
from edgeexit.runner.table import TableRunner

SAMPLES = 300


def table(samples: int = SAMPLES) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.normal(size=(samples, 3)).astype(np.float32) for _ in range(3)]


def first(manifest: Manifest, runner: TableRunner, sample: int) -> dict[str, np.ndarray]:
    spec = manifest.boundaries[0].tensors[0]
    return dict(input_tensors(runner.image_of(sample), manifest.preprocessing, spec))


@given(sample=st.integers(0, SAMPLES - 1))
def test_every_exit_answers_with_its_row(tiny_bundle: Bundle, sample: int) -> None:
    rows = table()
    runner = TableRunner(tiny_bundle.manifest, rows)
    tensors: Tensors = first(tiny_bundle.manifest, runner, sample)
    for k in range(3):
        given_ = runner.run(k, tensors)
        np.testing.assert_array_equal(given_.output, rows[k][sample])
        tensors = given_.boundary
    assert tensors == {}


@given(sample=st.integers(0, SAMPLES - 1))
def test_another_runner_goes_on_behind_a_lossy_codec(tiny_bundle: Bundle, sample: int) -> None:
    rows = table()
    device, gateway = TableRunner(tiny_bundle.manifest, rows), TableRunner(tiny_bundle.manifest, rows)
    given_ = device.run(0, first(tiny_bundle.manifest, device, sample))
    tensor = given_.boundary["tokens"].astype(np.float32)
    scale = max(float(np.abs(tensor).max()), 1e-9) / 127.0
    int8 = (np.round(tensor / scale).astype(np.int8) * scale).astype(np.float32)
    half = tensor.astype(np.float16).astype(np.float32)
    for arrived in (int8, half):
        np.testing.assert_array_equal(gateway.run(1, {"tokens": arrived}).output, rows[1][sample])


def test_boundaries_have_the_shapes_of_the_manifest(tiny_bundle: Bundle) -> None:
    runner = TableRunner(tiny_bundle.manifest, table())
    given_ = runner.run(0, first(tiny_bundle.manifest, runner, 7))
    for spec in tiny_bundle.manifest.boundaries[1].tensors:
        assert given_.boundary[spec.name].shape == spec.shape
        assert given_.boundary[spec.name].dtype == spec.dtype


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_colour_images_carry_their_sample(tiny_bundle: Bundle, layout: str) -> None:
    how = msgspec.convert({"height": 4, "width": 5, "color": "rgb", "layout": layout}, Preprocessing)
    shape = (1, 4, 5, 3) if layout == "NHWC" else (1, 3, 4, 5)
    manifest = tiny_bundle.manifest
    boundary = msgspec.structs.replace(
        manifest.boundaries[0], tensors=(TensorSpec(name="image", shape=shape),)
    )
    manifest = msgspec.structs.replace(
        manifest, preprocessing=how, boundaries=(boundary, *manifest.boundaries[1:])
    )
    rows = table()
    runner = TableRunner(manifest, rows)
    np.testing.assert_array_equal(runner.run(0, first(manifest, runner, 299)).output, rows[0][299])


def test_what_it_gives_may_be_changed_by_the_taker(tiny_bundle: Bundle) -> None:
    rows = table()
    runner = TableRunner(tiny_bundle.manifest, rows)
    tensors = first(tiny_bundle.manifest, runner, 1)
    runner.run(0, tensors).output[:] = 0.0
    np.testing.assert_array_equal(runner.run(0, tensors).output, rows[0][1])


def test_time_passes_through_work(tiny_bundle: Bundle) -> None:
    worked: list[int] = []
    runner = TableRunner(tiny_bundle.manifest, table(), work=worked.append)
    given_ = runner.run(0, first(tiny_bundle.manifest, runner, 0))
    runner.run(1, given_.boundary)
    assert worked == [0, 1]
    assert runner.variant(0) == "f32"
    assert runner.stage_count == 3
    runner.close()


def test_tensors_that_do_not_fit_are_a_runner_error(tiny_bundle: Bundle) -> None:
    runner = TableRunner(tiny_bundle.manifest, table())
    good = first(tiny_bundle.manifest, runner, 0)["image"]
    ones = np.ones_like(good)  # every bit set: sample 511 of 300
    for tensors in ({}, {"image": good[:, :, :4]}, {"image": good.astype(np.float64)}, {"image": ones}):
        with pytest.raises(RunnerError) as caught:
            runner.run(0, tensors)
        assert caught.value.stage == 0
    with pytest.raises(RunnerError, match="no such stage"):
        runner.run(3, {})
    for sample in (-1, SAMPLES):
        with pytest.raises(RunnerError):
            runner.image_of(sample)


def test_a_table_that_does_not_fit_is_refused(tiny_bundle: Bundle) -> None:
    rows = table()
    empty = [each[:0] for each in rows]
    for bad in (
        rows[:2],
        [*rows[:2], rows[2][:, :2]],
        [*rows[:2], rows[2][:5]],
        empty,
        [each[0] for each in rows],
    ):
        with pytest.raises(DataError):
            TableRunner(tiny_bundle.manifest, bad)


def test_one_sample_is_enough_and_too_many_are_refused(tiny_bundle: Bundle) -> None:
    runner = TableRunner(tiny_bundle.manifest, table(1))
    assert runner.run(0, first(tiny_bundle.manifest, runner, 0)).output.shape == (3,)
    manifest = tiny_bundle.manifest
    small = msgspec.structs.replace(
        manifest.boundaries[2], tensors=(TensorSpec(name="tokens", shape=(1, 4)),)
    )
    manifest = msgspec.structs.replace(manifest, boundaries=(*manifest.boundaries[:2], small))
    with pytest.raises(DataError, match="elements"):
        TableRunner(manifest, table(17))
