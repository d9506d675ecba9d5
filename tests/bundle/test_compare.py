"""Two bundles held against each other: every difference by its place, every shared file counted once."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeexit.bundle import Bundle, digest_of, model_blob, sign_bundle, write_bundle
from edgeexit.bundle.compare import BundleDiff, compare
from edgeexit.bundle.manifest import Manifest
from edgeexit.bundle.secret_key import generate_key


@pytest.fixture
def another(tiny_bundle: Bundle, tmp_path: Path) -> Bundle:
    """A later version: one stage's f32 file is another, one exit is calibrated anew, one codec is gone."""
    replace, manifest = msgspec.structs.replace, tiny_bundle.manifest
    files = {blob.file: tiny_bundle.blob_path(blob).read_bytes() for blob in manifest.blobs()}
    old = manifest.stages[1].variants[0].blob
    data = files[old.file] + b"\0" * 100  # bytes behind a model change nothing in it
    blob = model_blob(data)
    variants = (replace(manifest.stages[1].variants[0], blob=blob), manifest.stages[1].variants[1])
    stages = (manifest.stages[0], replace(manifest.stages[1], variants=variants), manifest.stages[2])
    calibration = replace(manifest.exits[0].calibrations[1], accuracy=0.5, temperature=2.0)
    first = replace(manifest.exits[0], calibrations=(manifest.exits[0].calibrations[0], calibration))
    boundary = replace(manifest.boundaries[2], codecs=manifest.boundaries[2].codecs[:1])
    changed = replace(
        manifest,
        version="1.1.0",
        serial=2,
        stages=stages,
        exits=(first, *manifest.exits[1:]),
        boundaries=(*manifest.boundaries[:2], boundary),
    )
    return write_bundle(tmp_path / "another", changed, {**files, blob.file: data})


def by_place(found: BundleDiff) -> dict[str, tuple[str | None, str | None]]:
    return {each.place: (each.before, each.after) for each in found.differences}


def test_a_bundle_is_itself(tiny_bundle: Bundle) -> None:
    found = compare(tiny_bundle, tiny_bundle)
    assert found.differences == ()
    assert (found.added_files, found.dropped_files, found.added_bytes) == (0, 0, 0)
    assert found.shared_files == len({blob.sha256 for blob in tiny_bundle.manifest.blobs()})


def test_every_difference_has_its_place(tiny_bundle: Bundle, another: Bundle) -> None:
    found = compare(tiny_bundle, another)
    places = by_place(found)
    assert places["version"] == ("1.0.0", "1.1.0")
    assert places["serial"] == ("1", "2")
    assert places["exits[0].calibrations.int8.accuracy"] == ("0.693", "0.5")
    assert places["exits[0].calibrations.int8.temperature"][1] == "2"
    assert places["boundaries[2].codecs.f16"] == ("present", None)
    before, after = places["stages[1].variants.f32.blob"]
    assert before is not None
    assert before.startswith("7,812 bytes, a6ea0aff4153")
    assert after is not None
    assert after.startswith("7,912 bytes")
    assert len(places) == 6


def test_files_are_counted_once(tiny_bundle: Bundle, another: Bundle) -> None:
    found, back = compare(tiny_bundle, another), compare(another, tiny_bundle)
    assert (found.added_files, found.added_bytes) == (1, 7912)
    assert (found.dropped_files, found.dropped_bytes) == (1, 7812)
    assert found.shared_bytes == back.shared_bytes
    assert (back.added_bytes, back.dropped_bytes) == (7812, 7912)


def test_a_signature_is_a_difference(another: Bundle, tiny_bundle: Bundle) -> None:
    key = generate_key()
    signed = sign_bundle(another, key, unix_s=0)
    assert by_place(compare(tiny_bundle, signed))["signature"] == (None, key.public.name)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_difference_is_missed(tiny_bundle: Bundle, data: st.DataObject) -> None:
    document = msgspec.to_builtins(tiny_bundle.manifest)
    part = data.draw(st.sampled_from(["stages", "exits", "boundaries"]))
    place = data.draw(st.sampled_from(document[part]))
    while True:
        keys = [key for key, value in place.items() if isinstance(value, int | float | dict)]
        key = data.draw(st.sampled_from(keys or [None]))
        if key is None or not isinstance(place[key], dict):
            break
        place = place[key]
    if key is None:
        return
    place[key] += 1
    changed = msgspec.convert(document, Manifest)
    other = Bundle(path=tiny_bundle.path, manifest=changed, digest=digest_of(changed))
    found = compare(tiny_bundle, other).differences
    assert len(found) == 1
    assert found[0].place.startswith(part)
