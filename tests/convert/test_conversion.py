"""One whole conversion of a small network: what it leaves behind, and what it does not do twice."""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgeexit.bundle import open_bundle
from edgeexit.convert.codecs import COMPRESSED_BELOW, codec_choices
from edgeexit.convert.conversion import convert
from edgeexit.convert.key import conversion_key, data_digest, report_path, weights_digest
from edgeexit.convert.plan import ConversionPlan, VariantName, evenly
from edgeexit.convert.report import ConversionReport, decode_report, render
from edgeexit.convert.slicing import SlicedStage
from edgeexit.errors import ConfigError
from edgeexit.runner.litert import LiteRTRunner
from edgeexit.runner.selection import open_verified
from edgeexit.transport.codecs import encode_tensors, sent_bytes, size_varies, uncompressed
from edgeexit.transport.frames import request

if TYPE_CHECKING:
    from tests.convert.conftest import Converted

pytestmark = [pytest.mark.convert, pytest.mark.litert]


class NoLowering:
    """A back end that must not be asked."""

    def __init__(self, tools: tuple[str, ...]) -> None:
        self.tools = tools

    def lower(self, stage: SlicedStage, tensors: Mapping[str, NDArray[np.generic]]) -> bytes:
        raise AssertionError(f"stage {stage.index} was lowered again")


def again(converted: Converted, out: Path) -> ConversionReport:
    """The same conversion once more, by a back end that does nothing."""
    return convert(
        converted.network,
        converted.plan,
        calibration=converted.calibration,
        test=converted.test,
        out=out,
        lowering=NoLowering(converted.lowering.tools),
    )


def float_answers(converted: Converted, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    with torch.no_grad():
        return [logits.numpy() for logits in converted.network(torch.from_numpy(images / np.float32(255)))]


def test_the_bundle_answers_as_the_network_does(converted: Converted) -> None:
    bundle = open_bundle(converted.out)
    images = converted.test.images[:5]
    expected = float_answers(converted, images)
    with LiteRTRunner(bundle, {0: "f32", 1: "f32", 2: "f32"}) as runner:
        for i, image in enumerate(images):
            tensors: Mapping[str, NDArray[np.generic]] = {"image": image[None] / np.float32(255)}
            for k in range(3):
                given = runner.run(k, tensors)
                np.testing.assert_allclose(given.output, expected[k][i], atol=1e-4)
                tensors = given.boundary


def test_golden_vectors_pass_on_this_machine(converted: Converted) -> None:
    bundle = open_bundle(converted.out)
    golden = bundle.golden()
    assert golden.count >= 8
    pixels = golden.inputs["image"][:, 0] * 255  # n 1 C H W -> n C H W
    assert np.abs(pixels - np.rint(pixels)).max() < 1e-3
    for ours, theirs in zip(
        golden.outputs, float_answers(converted, pixels.round().astype(np.uint8)), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    runner, selection = open_verified(bundle)
    runner.close()
    float_variants = [each for each in selection.variants if each.variant == "f32"]
    assert len(float_variants) == 3
    assert all(each.passed for each in float_variants)


def test_the_manifest_says_where_it_comes_from(converted: Converted) -> None:
    manifest = open_bundle(converted.out).manifest
    assert manifest.provenance.licence == "MIT"
    assert manifest.provenance.dataset == "brighter halves"
    tools = " ".join(manifest.provenance.tools)
    for tool in ("torch 2", "litert-torch 0", "ai-edge-quantizer 0", "ai-edge-litert", "edgeexit"):
        assert tool in tools
    for tool in ("python 3.", "numpy "):
        assert tool in tools
    assert manifest.provenance.weights_sha256 == weights_digest(converted.network)
    assert manifest.provenance.data_sha256 == data_digest(converted.calibration)
    assert [len(boundary.tensors) for boundary in manifest.boundaries] == [1, 1, 1]
    assert manifest.preprocessing.color == "gray"
    assert (manifest.preprocessing.height, manifest.preprocessing.width) == (8, 8)


def test_every_exit_is_calibrated_with_every_variant(converted: Converted) -> None:
    manifest = open_bundle(converted.out).manifest
    answers = float_answers(converted, converted.calibration.images)
    for k, each in enumerate(manifest.exits):
        right = answers[k].argmax(axis=1) == converted.calibration.targets
        assert each.accuracy_float == pytest.approx(right.mean(), abs=1 / 256)
        assert [calibration.variant for calibration in each.calibrations] == ["f32", "int8"]
        assert all(calibration.samples == 256 for calibration in each.calibrations)
    controlled = [(each.variant, each.risk, each.epsilon) for each in manifest.risk_controls]
    assert controlled == [
        (variant, risk, epsilon)
        for variant in ("f32", "int8")
        for risk, epsilons in (
            ("accuracy-drop", (0.01, 0.02, 0.05)),
            ("inconsistency", (0.01, 0.02, 0.05, 0.1)),
        )
        for epsilon in epsilons
    ]


def test_int8_is_kept_from_the_runtime_that_garbles_it(converted: Converted) -> None:
    for stage in open_bundle(converted.out).manifest.stages:
        by_name = {variant.name: variant for variant in stage.variants}
        assert by_name["f32"].runtimes == ("ai-edge-litert", "tflite-runtime")
        assert by_name["int8"].runtimes == ("ai-edge-litert",)
        assert by_name["f32"].parity_max_abs < 1e-4 < by_name["int8"].parity_max_abs


def test_boundaries_weigh_what_they_weigh_on_the_wire(converted: Converted) -> None:
    bundle = open_bundle(converted.out)
    assert [[c.codec for c in b.codecs] for b in bundle.manifest.boundaries] == [
        ["raw", "u8"],
        ["raw", "f16", "int8"],
        ["raw", "f16", "int8"],
    ]
    for b, boundary in enumerate(bundle.manifest.boundaries):
        tensors = {spec.name: np.zeros(spec.shape, np.float32) for spec in boundary.tensors}
        for codec in boundary.codecs:
            frame = request(
                bytes(16),
                bundle_digest=bundle.digest,
                boundary=b,
                last_stage=2,
                frame=7,
                budget_left_ms=100.0,
                tensors=encode_tensors(tensors, codec.codec),
            )
            assert 0 <= codec.payload_bytes - len(frame) <= 16


def test_packed_codecs_state_the_sizes_that_real_images_have(converted: Converted, tmp_path: Path) -> None:
    wanted = codec_choices()
    plan = replace(converted.plan, variants=("f32",), codec_samples=24, codecs=wanted)
    convert(
        converted.network,
        plan,
        calibration=converted.calibration,
        test=None,
        out=tmp_path / "packed",
        lowering=converted.lowering,
    )
    bundle = open_bundle(tmp_path / "packed")
    offered = [{each.codec: each for each in b.codecs} for b in bundle.manifest.boundaries]
    assert {"raw", "u8", "jpeg95", "jpeg70"} <= offered[0].keys()
    assert {"raw", "f16", "int8", "int8-token", "int4", "int4-channel"} <= offered[1].keys()
    for b, codecs in enumerate(offered):
        for codec in codecs.values():
            assert isinstance(codec.p95_bytes, int) == size_varies(codec.codec)
            assert 0.0 <= codec.quality_cost <= 1.0
            if uncompressed(codec.codec) != codec.codec:
                plain = codecs[uncompressed(codec.codec)]
                assert codec.quality_cost == plain.quality_cost
                assert codec.payload_bytes <= COMPRESSED_BELOW * plain.payload_bytes
        assert b == 0 or codecs["int4"].payload_bytes < codecs["int8"].payload_bytes
    images = converted.calibration.images[evenly(256, 24)]
    sizes = [
        sent_bytes(encode_tensors({"image": image[None] / np.float32(255)}, "jpeg85")) for image in images
    ]
    told = offered[0]["jpeg85"]
    assert told.payload_bytes == math.ceil(np.mean(sizes))
    assert told.p95_bytes == math.ceil(np.quantile(sizes, 0.95))


def test_every_variant_of_a_plan_is_made_and_says_where_it_may_run(
    converted: Converted, tmp_path: Path
) -> None:
    names: tuple[VariantName, ...] = ("f32", "f16", "int8", "int8-tensor", "int8-static")
    convert(
        converted.network,
        replace(converted.plan, variants=names, codec_samples=8),
        calibration=converted.calibration,
        test=None,
        out=tmp_path / "all",
        lowering=converted.lowering,
    )
    bundle = open_bundle(tmp_path / "all")
    both = ("ai-edge-litert", "tflite-runtime")
    for stage in bundle.manifest.stages:
        assert [(each.name, each.precision, each.runtimes) for each in stage.variants] == [
            ("f32", "f32", both),
            ("f16", "f16", both),
            ("int8", "int8", ("ai-edge-litert",)),
            ("int8-tensor", "int8", both),
            ("int8-static", "int8", both),
        ]
        assert len({each.blob.sha256 for each in stage.variants}) == len(names)
    for exit_ in bundle.manifest.exits:
        assert tuple(each.variant for each in exit_.calibrations) == names
    runner, report = open_verified(bundle)
    runner.close()
    assert report.rejected() == ()
    assert {each.variant for each in report.variants} == set(names)


def test_codecs_of_a_plan_include_raw() -> None:
    with pytest.raises(ConfigError, match="raw is one of them"):
        ConversionPlan("n", "1.0.0", "x", "x", "MIT", ("a", "b"), codecs=("int8",))


def test_pixels_lose_nothing_as_bytes_and_raw_loses_nothing_anywhere(converted: Converted) -> None:
    for b, boundary in enumerate(open_bundle(converted.out).manifest.boundaries):
        costs = {codec.codec: codec.quality_cost for codec in boundary.codecs}
        assert costs["raw"] == 0.0
        assert b > 0 or costs["u8"] == 0.0
        assert all(0.0 <= cost <= 0.2 for cost in costs.values())


def test_the_report_tells_what_was_measured(converted: Converted) -> None:
    report = converted.report
    tested = float_answers(converted, converted.test.images)
    for k, row in enumerate(report.stages):
        f32, int8 = row.variants
        right = tested[k].argmax(axis=1) == converted.test.targets
        assert f32.accuracy_test == pytest.approx(right.mean(), abs=1 / 96)
        assert f32.tensor_max_abs < 1e-4
        assert f32.agreement == 1.0
        assert 0.85 <= int8.agreement <= 1.0
        assert int8.size_bytes < f32.size_bytes
        assert row.macs > 0
    assert report.stages[1].boundary_bytes == 17 * 16 * 4
    text = render(report)
    for word in ("parameters", "MACs", "boundary", "variant", "difference", "accuracy", "lost", "int8"):
        assert word in text
    assert f"{report.stages[0].parameters:,}" in text


def test_progress_is_told_at_every_step(converted: Converted) -> None:
    ended = [step.name for step in converted.told if step.done == step.total and step.detail]
    assert ended == [
        *("slice", "lower", "parity f32", "calibration f32", "test f32"),
        *("quantise int8", "calibration int8", "test int8", "codecs", "write"),
    ]
    assert [time.step for time in converted.report.times] == ended


def test_a_finished_conversion_is_not_done_again(converted: Converted) -> None:
    found = again(converted, converted.out)
    assert found.already_converted
    assert replace(found, already_converted=False) == converted.report
    assert "already converted" in render(found)
    assert found == decode_report(report_path(converted.out).read_bytes()).found_again()  # type: ignore[union-attr]


@pytest.mark.parametrize("damage", ["model", "report", "other report", "bundle"])
def test_what_is_damaged_is_converted_again(converted: Converted, tmp_path: Path, damage: str) -> None:
    out = tmp_path / "tiny"
    shutil.copytree(converted.out, out)
    place = report_path(out)
    shutil.copy(report_path(converted.out), place)
    if damage == "model":
        blob = next((out / "blobs" / "sha256").iterdir())
        blob.write_bytes(b"\0" + blob.read_bytes()[1:])
    elif damage == "report":
        place.write_bytes(place.read_bytes()[:-20])
    elif damage == "other report":
        place.write_bytes(place.read_bytes().replace(converted.report.key.encode(), b"0" * 64))
    else:
        shutil.rmtree(out)
    with pytest.raises(AssertionError, match="lowered again"):
        again(converted, out)


def test_the_key_knows_weights_plan_tools_and_data(converted: Converted) -> None:
    plan, tools = converted.plan, converted.lowering.tools
    calibration, test = converted.calibration, converted.test

    def key(**changed: object) -> str:
        given = {"plan": plan, "tools": tools, "calibration": calibration, "test": test} | changed
        return conversion_key(converted.network, **given)  # type: ignore[arg-type]

    first = key()
    assert key(plan=replace(plan, workers=2)) == first
    others = [
        key(plan=replace(plan, version="0.2.0")),
        key(tools=(*tools, "x 1")),
        key(test=None),
        key(calibration=replace(calibration, targets=calibration.targets[::-1])),
    ]
    weight = next(converted.network.parameters())
    with torch.no_grad():
        kept = weight.flatten()[0].item()
        weight.flatten()[0] += 1e-3
        others.append(key())
        weight.flatten()[0] = kept
    assert key() == first
    assert len({first, *others}) == 1 + len(others)


def test_another_network_replaces_the_bundle(converted: Converted, tmp_path: Path) -> None:
    out = tmp_path / "tiny"
    shutil.copytree(converted.out, out)
    plan = replace(converted.plan, version="0.2.0", variants=("f32",), codec_samples=8)
    report = convert(
        converted.network,
        plan,
        calibration=converted.calibration,
        test=None,
        out=out,
        lowering=converted.lowering,
    )
    bundle = open_bundle(out, expected_digest=report.digest)
    assert bundle.manifest.version == "0.2.0"
    assert report.test_samples == 0
    assert "calibration, 256 samples" in render(report)
    files = [path for path in out.rglob("*") if path.is_file() and "sha256" in path.parts]
    assert len(files) == 3
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == path.name for path in files)
