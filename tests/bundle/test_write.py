"""A bundle is written whole or not at all, and never over somebody's files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from edgeexit.bundle import Bundle, digest_of, golden_blob, model_blob, open_bundle, write_bundle
from edgeexit.bundle.manifest import Manifest
from edgeexit.errors import BundleError, ManifestError, ShapeError, UnsafePath


@pytest.fixture(scope="module")
def files(tiny_bundle: Bundle) -> Mapping[str, bytes]:
    blobs = tiny_bundle.manifest.blobs()
    return {blob.file: tiny_bundle.blob_path(blob).read_bytes() for blob in blobs}


def renamed(manifest: Manifest) -> Manifest:
    return msgspec.structs.replace(manifest, name="another")


def test_what_is_written_opens_as_the_same_bundle(
    tiny_bundle: Bundle, files: Mapping[str, bytes], tmp_path: Path
) -> None:
    written = write_bundle(tmp_path / "deep" / "out", tiny_bundle.manifest, files)
    assert written.digest == digest_of(tiny_bundle.manifest) == tiny_bundle.digest
    assert open_bundle(tmp_path / "deep" / "out") == written
    assert sorted(place.name for place in (tmp_path / "deep").iterdir()) == ["out"]


def test_the_written_directory_may_be_read_by_other_users(
    tiny_bundle: Bundle, files: Mapping[str, bytes], tmp_path: Path
) -> None:
    write_bundle(tmp_path / "out", tiny_bundle.manifest, files)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755


def test_the_same_bundle_again_is_left_alone(
    tiny_bundle: Bundle, files: Mapping[str, bytes], tmp_path: Path
) -> None:
    write_bundle(tmp_path / "out", tiny_bundle.manifest, files)
    before = (tmp_path / "out" / "manifest.json").stat()
    write_bundle(tmp_path / "out", tiny_bundle.manifest, files)
    after = (tmp_path / "out" / "manifest.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_another_bundle_is_replaced_only_when_asked(
    tiny_bundle: Bundle, files: Mapping[str, bytes], tmp_path: Path
) -> None:
    write_bundle(tmp_path / "out", tiny_bundle.manifest, files)
    other = renamed(tiny_bundle.manifest)
    with pytest.raises(BundleError, match="in the way"):
        write_bundle(tmp_path / "out", other, files)
    assert open_bundle(tmp_path / "out").digest == tiny_bundle.digest
    write_bundle(tmp_path / "out", other, files, replace=True)
    assert open_bundle(tmp_path / "out").manifest.name == "another"
    assert [place.name for place in tmp_path.iterdir()] == ["out"]


def test_a_damaged_bundle_can_be_replaced(
    tiny_bundle: Bundle, files: Mapping[str, bytes], tmp_path: Path
) -> None:
    write_bundle(tmp_path / "out", tiny_bundle.manifest, files)
    (tmp_path / "out" / "golden" / "golden.safetensors").unlink()
    with pytest.raises(BundleError, match="in the way"):
        write_bundle(tmp_path / "out", tiny_bundle.manifest, files)
    assert write_bundle(tmp_path / "out", tiny_bundle.manifest, files, replace=True) == open_bundle(
        tmp_path / "out"
    )


@pytest.mark.parametrize("replace", [False, True])
def test_what_is_no_bundle_is_never_replaced(
    tiny_bundle: Bundle, files: Mapping[str, bytes], tmp_path: Path, *, replace: bool
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("four years of work")
    (tmp_path / "file").write_text("a file")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    for place in ("out", "file", "link"):
        with pytest.raises(BundleError, match="in the way"):
            write_bundle(tmp_path / place, tiny_bundle.manifest, files, replace=replace)
    assert (tmp_path / "out" / "thesis.txt").read_text() == "four years of work"


def test_an_empty_directory_is_filled(
    tiny_bundle: Bundle, files: Mapping[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    write_bundle(tmp_path / "out", tiny_bundle.manifest, files)
    assert [place.name for place in tmp_path.iterdir()] == ["out"]


def refused(tmp_path: Path, manifest: Manifest, files: Mapping[str, bytes], kind: type[BundleError]) -> None:
    with pytest.raises(kind):
        write_bundle(tmp_path / "out", manifest, files)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_behind_by_a_refusal(
    tiny_bundle: Bundle, files: Mapping[str, bytes], tmp_path: Path
) -> None:
    manifest = tiny_bundle.manifest
    replace = msgspec.structs.replace
    refused(tmp_path, manifest, {}, BundleError)
    refused(tmp_path, manifest, dict.fromkeys(files, b"other bytes"), BundleError)
    refused(tmp_path, replace(manifest, exits=manifest.exits[:2]), files, ManifestError)
    refused(tmp_path, replace(manifest, schema=2), files, ManifestError)
    climbing = replace(manifest, golden=replace(manifest.golden, file="../golden.safetensors"))
    refused(tmp_path, climbing, {**files, "../golden.safetensors": b""}, UnsafePath)
    calibration = replace(manifest.exits[0].calibrations[0], temperature=float("nan"))
    exits = (replace(manifest.exits[0], calibrations=(calibration,)), *manifest.exits[1:])
    refused(tmp_path, replace(manifest, exits=exits), files, ManifestError)


def test_golden_vectors_that_do_not_fit_are_refused(
    tiny_bundle: Bundle, files: Mapping[str, bytes], tmp_path: Path
) -> None:
    from edgeexit.bundle import encode_golden

    golden = tiny_bundle.golden()
    short = encode_golden(golden.inputs, golden.outputs[:2])
    manifest = msgspec.structs.replace(tiny_bundle.manifest, golden=golden_blob(short))
    refused(tmp_path, manifest, {**files, manifest.golden.file: short}, ShapeError)


def test_a_place_that_cannot_be_written_is_a_bundle_error(
    tiny_bundle: Bundle, files: Mapping[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way of the parent")
    with pytest.raises(BundleError, match="cannot be written"):
        write_bundle(tmp_path / "file" / "out", tiny_bundle.manifest, files)


def test_blobs_are_addressed_by_their_content() -> None:
    blob = model_blob(b"model")
    assert blob.file == f"blobs/sha256/{blob.sha256}"
    assert blob.size_bytes == 5
