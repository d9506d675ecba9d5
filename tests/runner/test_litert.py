"""Real TFLite stages behind the Runner port."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgeexit.bundle import Bundle, encode_golden, golden_blob, model_blob, write_bundle
from edgeexit.bundle.manifest import Manifest, Stage, TensorSpec
from edgeexit.errors import MissingFile, RunnerError, ShapeError
from edgeexit.runner.litert import LiteRTRunner, find_variant
from edgeexit.runner.protocol import Runner, Tensors
from edgeexit.runner.runtime import Interpreter, Runtime, find_runtime

pytestmark = pytest.mark.litert

FLOAT = {0: "f32", 1: "f32", 2: "f32"}
replace = msgspec.structs.replace


def walk(runner: Runner, tensors: Tensors, stages: range) -> list[np.ndarray]:
    outputs = []
    for stage in stages:
        given = runner.run(stage, tensors)
        outputs.append(given.output)
        tensors = given.boundary
    return outputs


def rewritten(tiny_bundle: Bundle, manifest: Manifest, out: Path, extra: Mapping[str, bytes]) -> Bundle:
    files = {blob.file: tiny_bundle.blob_path(blob).read_bytes() for blob in tiny_bundle.manifest.blobs()}
    return write_bundle(out, manifest, {**files, **extra})


def test_every_exit_says_what_the_float_network_said(tiny_bundle: Bundle) -> None:
    golden = tiny_bundle.golden()
    with LiteRTRunner(tiny_bundle, FLOAT) as runner:
        for i in range(golden.count):
            outputs = walk(runner, golden.sample(i), range(3))
            for k, output in enumerate(outputs):
                np.testing.assert_allclose(output, golden.outputs[k][i], atol=1e-4)


def test_outputs_and_boundaries_have_the_shapes_of_the_manifest(tiny_bundle: Bundle) -> None:
    manifest = tiny_bundle.manifest
    with LiteRTRunner(tiny_bundle, FLOAT) as runner:
        given = runner.run(0, tiny_bundle.golden().sample(0))
        assert given.output.shape == (3,)
        assert given.output.dtype == np.float32
        assert {name: tensor.shape for name, tensor in given.boundary.items()} == {
            spec.name: spec.shape for spec in manifest.boundaries[1].tensors
        }
        last = runner.run(2, runner.run(1, given.boundary).boundary)
        assert last.boundary == {}


def test_what_a_stage_gave_survives_its_next_run(tiny_bundle: Bundle) -> None:
    golden = tiny_bundle.golden()
    with LiteRTRunner(tiny_bundle, FLOAT) as runner:
        first = runner.run(0, golden.sample(0))
        kept = first.output.copy(), first.boundary["tokens"].copy()
        runner.run(0, golden.sample(1))
        np.testing.assert_array_equal(first.output, kept[0])
        np.testing.assert_array_equal(first.boundary["tokens"], kept[1])
    np.testing.assert_array_equal(first.boundary["tokens"], kept[1])  # also after the runner is closed


def test_what_is_given_to_a_stage_is_not_changed(tiny_bundle: Bundle) -> None:
    sample = tiny_bundle.golden().sample(0)
    before = sample["image"].copy()
    with LiteRTRunner(tiny_bundle, FLOAT) as runner:
        runner.run(0, sample)
    np.testing.assert_array_equal(sample["image"], before)


def test_a_device_with_a_prefix_and_a_gateway_with_the_rest_make_one_network(tiny_bundle: Bundle) -> None:
    sample = tiny_bundle.golden().sample(3)
    with LiteRTRunner(tiny_bundle, FLOAT) as whole:
        expected = walk(whole, sample, range(3))
    with (
        LiteRTRunner(tiny_bundle, {0: "f32"}) as device,
        LiteRTRunner(tiny_bundle, {1: "f32", 2: "f32"}) as gateway,
    ):
        assert device.stages == (0,)
        assert gateway.stages == (1, 2)
        assert device.stage_count == gateway.stage_count == 3
        given = device.run(0, sample)
        outputs = [given.output, *walk(gateway, given.boundary, range(1, 3))]
        with pytest.raises(RunnerError, match="not loaded here") as caught:
            device.run(1, given.boundary)
        assert caught.value.stage == 1
    for ours, theirs in zip(outputs, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_variants_may_be_mixed(tiny_bundle: Bundle) -> None:
    golden = tiny_bundle.golden()
    with LiteRTRunner(tiny_bundle, {0: "int8", 1: "f32", 2: "int8"}) as runner:
        assert [runner.variant(k) for k in range(3)] == ["int8", "f32", "int8"]
        outputs = walk(runner, golden.sample(0), range(3))
    assert outputs[-1].argmax() == golden.outputs[-1][0].argmax()


def test_the_variant_of_a_stage_elsewhere_is_the_first_one(tiny_bundle: Bundle) -> None:
    assert LiteRTRunner(tiny_bundle, {0: "int8"}).variant(2) == "f32"


def test_nothing_runs_before_opening_or_after_closing(tiny_bundle: Bundle) -> None:
    sample = tiny_bundle.golden().sample(0)
    runner = LiteRTRunner(tiny_bundle, FLOAT)
    with pytest.raises(RunnerError):
        runner.run(0, sample)
    runner.open()
    runner.run(0, sample)
    runner.close()
    runner.close()
    with pytest.raises(RunnerError):
        runner.run(0, sample)


def test_a_stage_that_is_given_the_wrong_tensors_says_so_and_goes_on(tiny_bundle: Bundle) -> None:
    sample = tiny_bundle.golden().sample(0)
    with LiteRTRunner(tiny_bundle, FLOAT) as runner:
        for tensors in (
            {},
            {"picture": sample["image"]},
            {"image": sample["image"].astype(np.float64)},
            {"image": sample["image"][:, :, :4]},
            {"image": sample["image"].reshape(-1)},
        ):
            with pytest.raises(RunnerError) as caught:
                runner.run(0, tensors)
            assert caught.value.stage == 0
        assert runner.run(0, sample).output.shape == (3,)


def test_arrays_in_any_layout_mean_their_values(tiny_bundle: Bundle) -> None:
    image = tiny_bundle.golden().sample(0)["image"]
    turned = np.asfortranarray(image.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2)
    wide = np.repeat(image, 2, axis=3)[:, :, :, ::2]
    shifted = np.frombuffer(b"\0" + image.tobytes(), np.float32, offset=1).reshape(image.shape)
    with LiteRTRunner(tiny_bundle, FLOAT) as runner:
        expected = runner.run(0, {"image": image}).output
        for same in (turned, wide, shifted, image.astype(">f4")):
            np.testing.assert_array_equal(runner.run(0, {"image": same}).output, expected)


def test_an_unknown_variant_or_stage_is_named(tiny_bundle: Bundle) -> None:
    with pytest.raises(RunnerError, match="no variant 'f64'"), LiteRTRunner(tiny_bundle, {0: "f64"}):
        pass
    with pytest.raises(RunnerError, match="no such stage"):
        find_variant(tiny_bundle.manifest, 3, "f32")


def with_model(manifest: Manifest, stage: int, data: bytes) -> Manifest:
    variant = replace(manifest.stages[stage].variants[0], blob=model_blob(data))
    stages = [*manifest.stages]
    stages[stage] = Stage(parameters=1, macs=1, variants=(variant, manifest.stages[stage].variants[1]))
    return replace(manifest, stages=tuple(stages))


@pytest.mark.parametrize("data", [b"not a model", b"\x1c\x00\x00\x00TFL3" + b"\0" * 64])
def test_a_file_that_became_no_model_is_a_runner_error(
    tiny_bundle: Bundle, tmp_path: Path, data: bytes
) -> None:
    bundle = rewritten(tiny_bundle, tiny_bundle.manifest, tmp_path / "out", {})
    bundle.blob_path(bundle.manifest.stages[1].variants[0].blob).write_bytes(data)
    with pytest.raises(RunnerError) as caught, LiteRTRunner(bundle, FLOAT):
        pass
    assert caught.value.stage == 1


def test_a_model_of_another_stage_is_a_shape_error(tiny_bundle: Bundle, tmp_path: Path) -> None:
    last = tiny_bundle.manifest.stages[2].variants[0].blob
    data = tiny_bundle.blob_path(last).read_bytes()
    bundle = rewritten(tiny_bundle, with_model(tiny_bundle.manifest, 1, data), tmp_path / "out", {})
    with pytest.raises(ShapeError) as caught, LiteRTRunner(bundle, FLOAT):
        pass
    assert caught.value.stage == 1
    assert caught.value.expected == "logits[1, 3] float32, tokens[1, 4, 8] float32"
    assert caught.value.got == "logits[1, 3] float32"


def test_a_boundary_of_another_shape_is_a_shape_error(tiny_bundle: Bundle, tmp_path: Path) -> None:
    manifest = tiny_bundle.manifest
    wider = replace(manifest.boundaries[1], tensors=(TensorSpec(name="tokens", shape=(1, 8, 4)),))
    manifest = replace(manifest, boundaries=(manifest.boundaries[0], wider, manifest.boundaries[2]))
    bundle = rewritten(tiny_bundle, manifest, tmp_path / "out", {})
    with pytest.raises(ShapeError) as caught, LiteRTRunner(bundle, {0: "f32"}):
        pass
    assert caught.value.expected == "logits[1, 3] float32, tokens[1, 8, 4] float32"
    assert caught.value.got == "logits[1, 3] float32, tokens[1, 4, 8] float32"


def test_a_model_file_that_vanished_is_a_missing_file(tiny_bundle: Bundle, tmp_path: Path) -> None:
    bundle = rewritten(tiny_bundle, tiny_bundle.manifest, tmp_path / "out", {})
    bundle.blob_path(bundle.manifest.stages[2].variants[0].blob).unlink()
    with pytest.raises(MissingFile), LiteRTRunner(bundle, FLOAT):
        pass


def renamed_runtime(name: str) -> Runtime:
    real = find_runtime()

    def make(model: Path, threads: int) -> Interpreter:
        return real.make(model, threads)

    return Runtime(name, "2.14.0", make)


def test_int8_on_tflite_runtime_needs_golden_vectors(tiny_bundle: Bundle, tmp_path: Path) -> None:
    runtime = renamed_runtime("tflite-runtime")
    with LiteRTRunner(tiny_bundle, FLOAT, runtime=runtime) as runner:
        assert runner.variant(0) == "f32"
    with (
        pytest.raises(RunnerError, match="garbage"),
        LiteRTRunner(tiny_bundle, {0: "int8"}, runtime=runtime),
    ):
        pass


def test_a_variant_for_another_runtime_is_not_loaded(tiny_bundle: Bundle) -> None:
    runtime = renamed_runtime("other-runtime")
    with (
        pytest.raises(RunnerError, match="other-runtime"),
        LiteRTRunner(tiny_bundle, {0: "f32"}, runtime=runtime),
    ):
        pass


def test_two_threads_say_the_same(tiny_bundle: Bundle) -> None:
    golden = tiny_bundle.golden()
    with LiteRTRunner(tiny_bundle, FLOAT, threads=2) as runner:
        outputs = walk(runner, golden.sample(0), range(3))
    np.testing.assert_allclose(outputs[-1], golden.outputs[-1][0], atol=1e-4)


def test_golden_vectors_may_be_rewritten(tiny_bundle: Bundle, tmp_path: Path) -> None:
    golden = tiny_bundle.golden()
    data = encode_golden({"image": golden.inputs["image"][:2]}, [rows[:2] for rows in golden.outputs])
    manifest = replace(tiny_bundle.manifest, golden=golden_blob(data))
    bundle = rewritten(tiny_bundle, manifest, tmp_path / "out", {manifest.golden.file: data})
    assert bundle.golden().count == 2


def test_importing_the_runner_loads_no_runtime() -> None:
    code = (
        "import sys, edgeexit.runner.selection, edgeexit.runner.preprocess, edgeexit.runner.table;"
        "print([name for name in ('ai_edge_litert', 'tflite_runtime', 'PIL', 'safetensors', 'torch')"
        " if name in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=280
    )
    assert ran.stdout.strip() == "[]"
