"""Packers: both halves are proved before they are used, and what they make comes back as the boundary."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from edgeexit.bundle import Bundle, open_bundle, write_bundle
from edgeexit.bundle.check import check_manifest
from edgeexit.bundle.manifest import Blob, Manifest, Packer
from edgeexit.bundle.packer_golden import decode_packer_golden, encode_packer_golden
from edgeexit.errors import BundleError, ManifestError, RunnerError, ShapeError
from edgeexit.runner.packing import open_packing, open_unpacking
from edgeexit.runner.selection import open_verified
from edgeexit.transport.codecs import codec_name, decode_tensors, encode_tensors

pytestmark = pytest.mark.litert


def changed(bundle: Bundle, out: Path, boundary: int, packer: Packer) -> Bundle:
    """The bundle with another packer in the place of the one of its name."""
    manifest = with_packer(bundle.manifest, boundary, packer)
    files = {blob.file: bundle.blob_path(blob).read_bytes() for blob in bundle.manifest.blobs()}
    return write_bundle(out, manifest, files)


def with_packer(manifest: Manifest, boundary: int, packer: Packer) -> Manifest:
    boundaries = list(manifest.boundaries)
    old = boundaries[boundary]
    packers = tuple(packer if each.name == packer.name else each for each in old.packers or ())
    boundaries[boundary] = structs.replace(old, packers=packers)
    return structs.replace(manifest, boundaries=tuple(boundaries))


def packer_of(bundle: Bundle, boundary: int, codec: str) -> Packer:
    packer = bundle.manifest.boundaries[boundary].packer(codec)
    assert packer is not None
    return packer


def test_both_halves_prove_themselves_and_bring_the_answer_back(packed_bundle: Bundle) -> None:
    runner, _ = open_verified(packed_bundle)
    packing, unpacking = open_packing(packed_bundle, runner), open_unpacking(packed_bundle, runner)
    assert packing.rejected == unpacking.rejected == ()
    assert packing.codecs == unpacking.codecs
    assert {(1, "bottleneck8"), (2, "bottleneck4"), (1, "pool4-int8")} <= packing.codecs
    golden = packed_bundle.golden()
    for boundary, codec in ((1, "bottleneck8"), (2, "bottleneck2")):
        packer, kept = packer_of(packed_bundle, boundary, codec), 0
        for row in range(golden.count):
            state = golden.sample(row)
            for stage in range(boundary):
                state = dict(runner.run(stage, state).boundary)  # type: ignore[arg-type]
            sent = encode_tensors(packing.run(boundary, packer, state), codec_name(codec))
            assert unpacking.of_tensors(boundary, frozenset(each.name for each in sent)) == packer
            back = unpacking.run(boundary, packer, decode_tensors(sent, packer.tensors))
            assert {name: value.shape for name, value in back.items()} == {"tokens": (1, 4, 8)}
            for stage in range(boundary, 3):
                given = runner.run(stage, back)
                back = given.boundary
            kept += int(given.output.argmax() == golden.outputs[-1][row].argmax())
        assert kept >= 15


def test_a_half_that_is_another_ones_is_not_used(packed_bundle: Bundle, tmp_path: Path) -> None:
    good, other = packer_of(packed_bundle, 1, "bottleneck8"), packer_of(packed_bundle, 2, "bottleneck8")
    runner, _ = open_verified(packed_bundle)
    for half in ("pack", "unpack"):
        blob: Blob = getattr(other, half)
        wrong = changed(packed_bundle, tmp_path / half, 1, structs.replace(good, **{half: blob}))
        opened = (open_packing if half == "pack" else open_unpacking)(wrong, runner)
        assert [(each.boundary, each.packer) for each in opened.rejected] == [(1, "bottleneck8")]
        assert "is allowed" in opened.rejected[0].why or "keep their label" in opened.rejected[0].why
        assert (1, "bottleneck8") not in opened.codecs
        assert (1, "bottleneck4") in opened.codecs
        with pytest.raises(RunnerError):
            opened.run(1, good, {})


def test_a_file_with_other_tensors_is_not_used(packed_bundle: Bundle, tmp_path: Path) -> None:
    good, narrow = packer_of(packed_bundle, 1, "bottleneck8"), packer_of(packed_bundle, 1, "bottleneck4")
    wrong = changed(packed_bundle, tmp_path / "wrong", 1, structs.replace(good, pack=narrow.pack))
    runner, _ = open_verified(packed_bundle)
    assert [each.packer for each in open_packing(wrong, runner).rejected] == ["bottleneck8"]


def test_a_bundle_without_packers_needs_none(tiny_bundle: Bundle) -> None:
    runner, _ = open_verified(tiny_bundle)
    assert open_packing(tiny_bundle, runner).codecs == frozenset()
    # Nothing of packers is in the file of a bundle without: its digest is what it was.
    assert b"packers" not in (tiny_bundle.path / "manifest.json").read_bytes()


def test_manifests_whose_packers_make_no_sense_are_refused(packed_bundle: Bundle) -> None:
    good = packer_of(packed_bundle, 1, "bottleneck8")
    spec = good.tensors[0]
    for bad in (
        structs.replace(good, codecs=("f16", "int8")),
        structs.replace(good, codecs=()),
        structs.replace(good, codecs=("bottleneck4",)),
        structs.replace(good, tensors=(structs.replace(spec, name="tokens"),)),
        structs.replace(good, tensors=(structs.replace(spec, shape=(2, 4, 8)),)),
        structs.replace(good, runtimes=()),
        structs.replace(good, golden=structs.replace(good.golden, file="golden/other.safetensors")),
    ):
        manifest = with_packer(packed_bundle.manifest, 1, bad)
        with pytest.raises(ManifestError):
            check_manifest(manifest, file="manifest.json")


def test_golden_vectors_of_packers_are_held_against_the_manifest(packed_bundle: Bundle) -> None:
    packer = packer_of(packed_bundle, 1, "bottleneck8")
    golden = packed_bundle.packer_golden(packer)
    data = encode_packer_golden(golden)
    read = decode_packer_golden(data, packer, classes=3)
    assert np.array_equal(read.answers, golden.answers)
    with pytest.raises(ShapeError):
        decode_packer_golden(data, packer, classes=4)
    with pytest.raises(ShapeError):
        decode_packer_golden(data, packer_of(packed_bundle, 1, "bottleneck4"), classes=3)
    with pytest.raises(BundleError):
        decode_packer_golden(data[:-8], packer, classes=3)
    nan = encode_packer_golden(
        type(golden)(golden.packed, golden.arrived, golden.answers * np.float32("nan"))
    )
    with pytest.raises(BundleError, match="finite"):
        decode_packer_golden(nan, packer, classes=3)


def test_the_packed_bundle_is_whole(packed_bundle: Bundle) -> None:
    assert open_bundle(packed_bundle.path, expected_digest=packed_bundle.digest) == packed_bundle
