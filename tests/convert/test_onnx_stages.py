"""ONNX stages: exported, proved like all others, and run by ONNX Runtime wherever a bundle is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import onnx
import pytest

from edgeexit.bundle import Bundle, open_bundle, write_bundle
from edgeexit.bundle.onnx import check_onnx_bytes
from edgeexit.convert.conversion import convert
from edgeexit.convert.lowering import lowering
from edgeexit.convert.onnx_export import OPSET, Onnx
from edgeexit.convert.plan import VariantName
from edgeexit.convert.quantise import quantise
from edgeexit.errors import LoweringError, MissingExtra, RunnerError
from edgeexit.gateway.core import verified_runners
from edgeexit.runner import loading
from edgeexit.runner.onnx import find_onnx_runtime
from edgeexit.runner.protocol import Tensors
from edgeexit.runner.runtime import find_runtime
from edgeexit.runner.selection import examine_all, open_verified

if TYPE_CHECKING:
    from tests.convert.conftest import Converted

pytestmark = [pytest.mark.convert, pytest.mark.litert]

NAMES: tuple[VariantName, ...] = ("f32", "onnx", "onnx-int8", "int8-full")


@pytest.fixture(scope="module")
def mixed(converted: Converted, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny network as TFLite and as ONNX, in one bundle."""
    out = tmp_path_factory.mktemp("mixed") / "tiny"
    report = convert(
        converted.network,
        replace(converted.plan, variants=NAMES),
        calibration=converted.calibration,
        test=None,
        out=out,
        lowering=converted.lowering,
    )
    assert any(tool.startswith("onnxscript ") for tool in report.tools)
    return open_bundle(out, expected_digest=report.digest)


def only(bundle: Bundle, tmp_path: Path, *names: str) -> Bundle:
    """A bundle of some of the variants."""
    manifest = bundle.manifest
    stages = tuple(
        msgspec.structs.replace(stage, variants=tuple(v for v in stage.variants if v.name in names))
        for stage in manifest.stages
    )
    exits = tuple(
        msgspec.structs.replace(each, calibrations=tuple(c for c in each.calibrations if c.variant in names))
        for each in manifest.exits
    )
    made = msgspec.structs.replace(manifest, stages=stages, exits=exits, risk_controls=())
    files = {blob.file: bundle.blob_path(blob).read_bytes() for blob in manifest.blobs()}
    return write_bundle(tmp_path / "some", made, files)


def test_a_bundle_says_what_may_load_each_variant(mixed: Bundle) -> None:
    for stage in mixed.manifest.stages:
        assert [(variant.name, variant.format, variant.precision) for variant in stage.variants] == [
            ("f32", "tflite", "f32"),
            ("onnx", "onnx", "f32"),
            ("onnx-int8", "onnx", "int8"),
            ("int8-full", "tflite", "int8"),
        ]
        for variant in stage.variants:
            assert (variant.runtimes == ("onnxruntime",)) == (variant.format == "onnx")
        exact = stage.variants[1]
        assert exact.parity_max_abs < 1e-4


def test_golden_vectors_prove_onnx_stages_beside_tflite_ones(mixed: Bundle) -> None:
    found = examine_all(mixed)
    assert found.failure is None
    assert found.runtime == "ai-edge-litert"
    assert found.beside is not None
    assert found.beside.startswith("onnxruntime ")
    assert {report.variant for report in found.variants if report.passed} >= {"f32", "onnx"}


def test_onnx_stages_serve_where_they_are_asked_for_and_answer_as_the_network_does(mixed: Bundle) -> None:
    runner, report = open_verified(mixed, prefer="onnx")
    assert report.chosen == ("onnx", "onnx", "onnx")
    golden = mixed.golden()
    for row in range(golden.count):
        tensors: Tensors = golden.sample(row)
        for k in range(3):
            given = runner.run(k, tensors)
            np.testing.assert_allclose(given.output, golden.outputs[k][row], atol=1e-4)
            tensors = given.boundary
    runner.close()


def test_a_machine_with_onnx_runtime_alone_runs_the_onnx_variants(
    mixed: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing() -> None:
        raise MissingExtra("ai-edge-litert", extra="device", needed_for="running stages")

    monkeypatch.setattr(loading, "find_runtime", nothing)
    runner, report = open_verified(mixed, cache=tmp_path / "selection.json")
    assert report.key.runtime == "onnxruntime"
    assert set(report.chosen) <= {"onnx", "onnx-int8"}
    assert {each.variant for each in report.rejected()} >= {"f32", "int8-full"}
    again, known = open_verified(mixed, cache=tmp_path / "selection.json")
    assert known == report
    runner.close()
    again.close()
    loading.require_runtime()


def test_a_machine_without_onnx_runtime_runs_the_others(
    mixed: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "find_onnx_runtime", lambda wanted="cpu": None)
    runner, report = open_verified(mixed)
    assert set(report.chosen) <= {"f32", "int8-full"}
    assert report.key.beside is None
    runner.close()
    with pytest.raises(MissingExtra, match="onnxruntime"):
        open_verified(only(mixed, tmp_path, "onnx"))


def test_a_bundle_of_onnx_alone_needs_no_other_runtime(
    mixed: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing() -> None:
        raise AssertionError("nobody asked for it")

    monkeypatch.setattr(loading, "find_runtime", nothing)
    opened = verified_runners(1, "cpu")(only(mixed, tmp_path, "onnx", "onnx-int8"), 2)
    tensors = mixed.golden().sample(0)
    first, second = (runner.run(0, tensors) for runner in opened)
    np.testing.assert_array_equal(first.output, second.output)
    for runner in opened:
        runner.close()


def test_a_provider_that_is_not_here_is_refused(mixed: Bundle) -> None:
    with pytest.raises(RunnerError, match="cannot compute with cuda") as caught:
        open_verified(mixed, provider="cuda")
    assert caught.value.fix is not None
    assert "onnxruntime-gpu" in caught.value.fix


def test_onnx_as_the_back_end_makes_a_bundle_of_onnx(converted: Converted, tmp_path: Path) -> None:
    back_end = lowering("onnx")
    assert isinstance(back_end, Onnx)
    report = convert(
        converted.network,
        replace(converted.plan, variants=("f32", "int8")),
        calibration=converted.calibration,
        test=None,
        out=tmp_path / "tiny",
        lowering=back_end,
    )
    bundle = open_bundle(tmp_path / "tiny", expected_digest=report.digest)
    formats = {variant.format for stage in bundle.manifest.stages for variant in stage.variants}
    assert formats == {"onnx"}
    runner, _ = open_verified(bundle)
    runner.close()


def test_an_exported_stage_is_plain_and_the_same_every_time(mixed: Bundle) -> None:
    blob = mixed.manifest.stages[1].variants[1].blob
    model = mixed.blob_path(blob).read_bytes()
    check_onnx_bytes(model, file="stage 1")
    tree = onnx.load_from_string(model)
    onnx.checker.check_model(tree, full_check=True)
    assert [(each.domain, each.version) for each in tree.opset_import] == [("", OPSET)]
    assert [node.name for node in tree.graph.input] == ["tokens"]
    assert [node.name for node in tree.graph.output] == ["tokens.out", "logits.out"]
    assert b".py" not in model  # nothing of the machine that made it


def test_an_onnx_file_has_no_variant_of_half_precision(mixed: Bundle) -> None:
    model = mixed.blob_path(mixed.manifest.stages[0].variants[1].blob).read_bytes()
    with pytest.raises(LoweringError, match="no variant f16"):
        quantise(model, "f16", stage=0)


def test_a_runtime_is_given_only_what_it_can_load(mixed: Bundle) -> None:
    onnx_only = loading.Runtimes(None, find_onnx_runtime())
    with pytest.raises(RunnerError, match="not installed here"):
        onnx_only.load(mixed, 0, mixed.manifest.stages[0].variants[0], threads=1)
    tflite_only = loading.Runtimes(find_runtime(), None)
    with pytest.raises(RunnerError, match="not installed here"):
        tflite_only.load(mixed, 0, mixed.manifest.stages[0].variants[1], threads=1)
