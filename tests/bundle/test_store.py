"""A bundle opens only when every byte is the one that was made; everything else is one typed error."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeexit.bundle import Bundle, open_bundle
from edgeexit.bundle.store import digest_line
from edgeexit.errors import (
    BundleError,
    IntegrityError,
    ManifestError,
    MissingFile,
    ShapeError,
    UnsafePath,
)

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None
Edit = Callable[[dict[str, Json]], None]


@pytest.fixture
def copy(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle.path, tmp_path / "bundle"))


def rewrite(root: Path, document: Json) -> None:
    """Write a manifest as its maker would: canonical, with its digest beside it."""
    data = msgspec.json.encode(document, order="sorted")
    (root / "manifest.json").write_bytes(data)
    (root / "manifest.json.sha256").write_bytes(digest_line(hashlib.sha256(data).hexdigest()))


def at(document: Json, path: str) -> tuple[Json, str | int]:
    """The place before the last step of a path such as `stages.0.macs`, and that step."""
    steps: list[str | int] = [int(step) if step.isdigit() else step for step in path.split(".")]
    place = document
    for step in steps[:-1]:
        place = place[step]  # type: ignore[index]
    return place, steps[-1]


def edited(root: Path, path: str, value: Json) -> None:
    document = json.loads((root / "manifest.json").read_bytes())
    place, last = at(document, path)
    place[last] = value  # type: ignore[index]
    rewrite(root, document)


def test_a_sound_bundle_opens_with_its_digest(tiny_bundle: Bundle) -> None:
    data = (tiny_bundle.path / "manifest.json").read_bytes()
    assert tiny_bundle.digest == hashlib.sha256(data).hexdigest()
    assert tiny_bundle.short_digest == tiny_bundle.digest[:12]
    assert tiny_bundle.manifest.stage_count == 3


def test_every_file_of_the_bundle_is_listed(tiny_bundle: Bundle) -> None:
    on_disk = {
        str(place.relative_to(tiny_bundle.path)) for place in tiny_bundle.path.rglob("*") if place.is_file()
    }
    assert set(tiny_bundle.files()) == on_disk


def test_the_digest_file_is_what_sha256sum_checks(tiny_bundle: Bundle) -> None:
    checked = subprocess.run(
        ["sha256sum", "-c", "manifest.json.sha256"],
        cwd=tiny_bundle.path,
        capture_output=True,
        check=False,
        timeout=280,
    )
    assert checked.returncode == 0, checked.stderr


def test_a_bundle_is_frozen(tiny_bundle: Bundle) -> None:
    with pytest.raises(FrozenInstanceError):
        tiny_bundle.digest = "0"  # type: ignore[misc]


def test_another_bundle_than_expected_is_refused(tiny_bundle: Bundle) -> None:
    open_bundle(tiny_bundle.path, expected_digest=tiny_bundle.digest)
    with pytest.raises(IntegrityError) as caught:
        open_bundle(tiny_bundle.path, expected_digest="0" * 64)
    assert caught.value.actual_sha256 == tiny_bundle.digest


def test_a_bundle_opened_by_a_link_stays_when_the_link_moves(copy: Path, tiny_bundle: Bundle) -> None:
    link = copy.parent / "current"
    link.symlink_to(copy)
    assert open_bundle(link).path == copy.resolve()


@pytest.mark.parametrize("place", ["nowhere", "file"])
def test_no_bundle_there(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(BundleError, match="no bundle at"):
        open_bundle(tmp_path / place)


def test_an_empty_directory_has_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(MissingFile) as caught:
        open_bundle(tmp_path)
    assert caught.value.file == "manifest.json"


def test_any_missing_file_is_named(copy: Path, tiny_bundle: Bundle) -> None:
    for file in tiny_bundle.files():
        data = (copy / file).read_bytes()
        (copy / file).unlink()
        with pytest.raises(MissingFile) as caught:
            open_bundle(copy)
        assert caught.value.file == file
        (copy / file).write_bytes(data)
    open_bundle(copy)


def test_any_truncated_file_is_refused(copy: Path, tiny_bundle: Bundle) -> None:
    for file in tiny_bundle.files():
        data = (copy / file).read_bytes()
        for length in (0, 1, len(data) // 2, len(data) - 1):
            (copy / file).write_bytes(data[:length])
            with pytest.raises(BundleError):
                open_bundle(copy)
        (copy / file).write_bytes(data)


def test_a_grown_file_is_refused(copy: Path, tiny_bundle: Bundle) -> None:
    for file in tiny_bundle.files():
        data = (copy / file).read_bytes()
        (copy / file).write_bytes(data + b"\0")
        with pytest.raises(BundleError):
            open_bundle(copy)
        (copy / file).write_bytes(data)


def test_a_changed_model_says_which_file(copy: Path, tiny_bundle: Bundle) -> None:
    blob = tiny_bundle.manifest.stages[1].variants[0].blob
    data = bytearray((copy / blob.file).read_bytes())
    data[100] ^= 1
    (copy / blob.file).write_bytes(data)
    with pytest.raises(IntegrityError) as caught:
        open_bundle(copy)
    assert caught.value.file == blob.file
    assert caught.value.expected_sha256 == blob.sha256


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_flipped_bit_anywhere_is_refused(copy: Path, tiny_bundle: Bundle, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(tiny_bundle.files()))
    sound = (copy / file).read_bytes()
    index = data.draw(st.integers(0, len(sound) - 1))
    mask = data.draw(st.integers(1, 255))
    (copy / file).write_bytes(sound[:index] + bytes([sound[index] ^ mask]) + sound[index + 1 :])
    try:
        with pytest.raises(BundleError):
            open_bundle(copy)
    finally:
        (copy / file).write_bytes(sound)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400))
def test_bytes_that_are_no_manifest_are_refused(copy: Path, data: bytes) -> None:
    (copy / "manifest.json").write_bytes(data)
    with pytest.raises(BundleError):
        open_bundle(copy)


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'{"schema":1,"a":' + b"[" * 100_000,
        b'{"schema":1e999}',
        b'{"schema":' + b"9" * 5000 + b"}",
        b'{"schema":"\\ud800"}',
        b'{"schema":1,"schema":2}',
        b"\xff\xfe",
        b"null",
    ],
)
def test_hostile_json_is_a_manifest_error(copy: Path, data: bytes) -> None:
    (copy / "manifest.json").write_bytes(data)
    with pytest.raises(ManifestError):
        open_bundle(copy)


def leaves(document: Json, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths of every value in a document, containers included."""
    found = [path] if path else []
    if isinstance(document, dict):
        for key, value in document.items():
            found += leaves(value, (*path, key))
    if isinstance(document, list):
        for i, value in enumerate(document):
            found += leaves(value, (*path, str(i)))
    return found


SOME_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_manifest_with_any_value_replaced_is_refused_or_is_another_bundle(
    copy: Path, tiny_bundle: Bundle, data: st.DataObject
) -> None:
    document = json.loads((tiny_bundle.path / "manifest.json").read_bytes())
    path = data.draw(st.sampled_from(leaves(document)))
    value = data.draw(SOME_JSON)
    place, last = at(document, ".".join(path))
    place[last] = value  # type: ignore[index]
    rewrite(copy, document)
    try:
        opened = open_bundle(copy)
    except BundleError:
        return
    same = opened.manifest == tiny_bundle.manifest
    assert same == (opened.digest == tiny_bundle.digest)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_manifest_without_any_one_field_is_refused(
    copy: Path, tiny_bundle: Bundle, data: st.DataObject
) -> None:
    document = json.loads((tiny_bundle.path / "manifest.json").read_bytes())
    # A date is the one thing in this manifest that may as well not be there.
    named = [path for path in leaves(document) if not path[-1].isdigit() and path != ("created",)]
    path = data.draw(st.sampled_from(named))
    place, last = at(document, ".".join(path))
    del place[last]  # type: ignore[union-attr,arg-type]
    rewrite(copy, document)
    with pytest.raises(ManifestError) as caught:
        open_bundle(copy)
    assert caught.value.field


@pytest.mark.parametrize("schema", [0, 2, 99, -1])
def test_another_schema_is_named_as_such(copy: Path, schema: int) -> None:
    edited(copy, "schema", schema)
    with pytest.raises(ManifestError, match=f"schema {schema}") as caught:
        open_bundle(copy)
    assert caught.value.field == "schema"


def test_a_later_schema_with_other_fields_is_still_named(copy: Path) -> None:
    rewrite(copy, {"schema": 2, "graph": {"nodes": []}})
    with pytest.raises(ManifestError) as caught:
        open_bundle(copy)
    assert caught.value.field == "schema"


def test_an_unknown_field_is_named_with_its_place(copy: Path) -> None:
    edited(copy, "stages.1.extra", 1)
    with pytest.raises(ManifestError) as caught:
        open_bundle(copy)
    assert caught.value.field == "stages[1].extra"


def test_a_wrong_type_is_named_with_its_place(copy: Path) -> None:
    edited(copy, "stages.1.macs", "many")
    with pytest.raises(ManifestError) as caught:
        open_bundle(copy)
    assert caught.value.field == "stages[1].macs"


def test_white_space_in_the_manifest_is_an_edit(copy: Path) -> None:
    data = (copy / "manifest.json").read_bytes().replace(b'{"boundaries"', b'{ "boundaries"', 1)
    (copy / "manifest.json").write_bytes(data)
    (copy / "manifest.json.sha256").write_bytes(digest_line(hashlib.sha256(data).hexdigest()))
    with pytest.raises(ManifestError, match="canonical"):
        open_bundle(copy)


def test_a_manifest_over_the_cap_is_not_read_to_its_end(copy: Path) -> None:
    os.truncate(copy / "manifest.json", 2**33)  # sparse: it takes no room
    with pytest.raises(BundleError, match="larger than"):
        open_bundle(copy)


@pytest.mark.parametrize(
    "file",
    [
        "/etc/passwd",
        "../outside",
        "blobs/../../outside",
        "blobs\\sha256\\x",
        "C:/windows",
        "./manifest.json",
        "blobs//x",
        "blobs/",
        "",
        "golden/\0.safetensors",
        "golden/" + "x" * 300 + ".safetensors",
    ],
)
def test_a_path_that_is_not_plain_is_unsafe(copy: Path, file: str) -> None:
    (copy.parent / "outside").write_bytes(b"secret")
    for field in ("golden.file", "stages.0.variants.0.blob.file"):
        shutil.copy(Path(copy / "manifest.json"), copy / "kept")
        edited(copy, field, file)
        with pytest.raises(UnsafePath):
            open_bundle(copy)
        shutil.copy(copy / "kept", copy / "manifest.json")


def test_a_link_that_leaves_the_bundle_is_unsafe(copy: Path, tiny_bundle: Bundle) -> None:
    file = tiny_bundle.manifest.stages[0].variants[0].blob.file
    (copy / file).rename(copy.parent / "outside")
    (copy / file).symlink_to(copy.parent / "outside")
    with pytest.raises(UnsafePath):
        open_bundle(copy)


def test_a_linked_directory_that_leaves_the_bundle_is_unsafe(copy: Path) -> None:
    (copy / "blobs").rename(copy.parent / "elsewhere")
    (copy / "blobs").symlink_to(copy.parent / "elsewhere")
    with pytest.raises(UnsafePath):
        open_bundle(copy)


def test_a_loop_of_links_is_refused(copy: Path, tiny_bundle: Bundle) -> None:
    file = tiny_bundle.manifest.stages[0].variants[0].blob.file
    (copy / file).unlink()
    (copy / file).symlink_to(copy / file)
    with pytest.raises(BundleError):
        open_bundle(copy)


def test_hard_links_into_a_store_are_fine(copy: Path, tiny_bundle: Bundle) -> None:
    file = tiny_bundle.manifest.stages[0].variants[0].blob.file
    os.link(copy / file, copy.parent / "stored")
    assert open_bundle(copy).digest == tiny_bundle.digest


def test_a_pipe_instead_of_a_file_does_not_hang(copy: Path, tiny_bundle: Bundle) -> None:
    for file in tiny_bundle.files():
        data = (copy / file).read_bytes()
        (copy / file).unlink()
        os.mkfifo(copy / file)
        with pytest.raises(BundleError, match="ordinary file"):
            open_bundle(copy)
        (copy / file).unlink()
        (copy / file).write_bytes(data)


def test_a_directory_instead_of_a_file_is_refused(copy: Path) -> None:
    (copy / "golden" / "golden.safetensors").unlink()
    (copy / "golden" / "golden.safetensors").mkdir()
    with pytest.raises(BundleError):
        open_bundle(copy)


CONTRADICTIONS: list[tuple[str, Json, str]] = [
    ("name", "../x", "name"),
    ("name", "", "name"),
    ("version", "one", "version"),
    ("created", "yesterday", "created"),
    ("provenance.recipe_sha256", "0" * 63, "provenance.recipe_sha256"),
    ("provenance.weights_sha256", "", "provenance.weights_sha256"),
    ("provenance.data_sha256", None, "provenance.data_sha256"),
    ("serial", -1, "serial"),
    ("labels", ["only"], "labels"),
    ("labels.0", "", "labels[0]"),
    ("labels.0", "line\nbreak", "labels[0]"),
    ("boundaries.1.tensors", [], "boundaries[1].tensors"),
    ("boundaries.1.tensors.0.name", "", "boundaries[1].tensors[0].name"),
    ("boundaries.1.tensors.0.shape", [], "boundaries[1].tensors[0].shape"),
    ("boundaries.1.tensors.0.shape", [1, 0, 8], "boundaries[1].tensors[0].shape"),
    ("boundaries.1.tensors.0.shape", [1, -4, 8], "boundaries[1].tensors[0].shape"),
    ("boundaries.1.tensors.0.shape", [2, 4, 8], "boundaries[1].tensors[0].shape"),
    ("boundaries.1.tensors.0.shape", [1, 65536, 65536], "boundaries[1].tensors[0].shape"),
    ("boundaries.1.tensors.0.shape", [1] * 9, "boundaries[1].tensors[0].shape"),
    ("boundaries.1.tensors.0.dtype", "float128", "boundaries[1].tensors[0].dtype"),
    ("boundaries.1.codecs.0.codec", "zip", "boundaries[1].codecs[0].codec"),
    ("boundaries.1.codecs.0.payload_bytes", 0, "boundaries[1].codecs[0].payload_bytes"),
    ("boundaries.1.codecs.0.payload_bytes", 10**9, "boundaries[1].codecs[0].payload_bytes"),
    ("boundaries.1.codecs.0.quality_cost", 1.5, "boundaries[1].codecs[0].quality_cost"),
    ("boundaries.1.codecs.1.codec", "raw", "boundaries[1].codecs"),
    ("preprocessing.height", 0, "preprocessing.height"),
    ("stages.0.variants", [], "stages[0].variants"),
    ("stages.0.macs", -1, "stages[0].macs"),
    ("stages.0.variants.1.name", "f32", "stages[0].variants"),
    ("stages.0.variants.0.format", "pickle", "stages[0].variants[0].format"),
    ("stages.0.variants.0.precision", "f8", "stages[0].variants[0].precision"),
    ("stages.0.variants.0.runtimes", [], "stages[0].variants[0].runtimes"),
    ("stages.0.variants.0.parity_max_abs", -0.5, "stages[0].variants[0].parity_max_abs"),
    ("stages.0.variants.0.blob.sha256", "XYZ", "stages[0].variants[0].blob.sha256"),
    ("stages.0.variants.0.blob.sha256", "0" * 64, "stages[0].variants[0].blob.file"),
    ("stages.0.variants.0.blob.size_bytes", 0, "stages[0].variants[0].blob.size_bytes"),
    ("stages.0.variants.0.blob.size_bytes", 2**40, "stages[0].variants[0].blob.size_bytes"),
    ("exits.1.accuracy_float", 1.1, "exits[1].accuracy_float"),
    ("exits.1.output.name", "tokens", "exits[1].output.name"),
    ("exits.1.calibrations", [], "exits[1].calibrations"),
    ("exits.1.calibrations.0.variant", "f64", "exits[1].calibrations[0].variant"),
    ("exits.1.calibrations.0.variant", "int8", "exits[1].calibrations"),
    ("exits.1.calibrations.0.temperature", 0.0, "exits[1].calibrations[0].temperature"),
    ("exits.1.calibrations.0.accuracy", -0.1, "exits[1].calibrations[0].accuracy"),
    ("exits.1.calibrations.0.samples", 0, "exits[1].calibrations[0].samples"),
    ("exits.1.calibrations.0.upper_scores", [], "exits[1].calibrations[0].upper_scores"),
    ("exits.1.calibrations.0.upper_scores", [0.5, 0.4, 1.0], "exits[1].calibrations[0].upper_scores"),
    ("exits.1.calibrations.0.upper_scores", [0.5, 0.5, 1.0], "exits[1].calibrations[0].upper_scores"),
    ("exits.1.calibrations.0.upper_scores", [0.5, 0.9], "exits[1].calibrations[0].upper_scores"),
    ("exits.1.calibrations.0.upper_scores", [0.5, 1.0], "exits[1].calibrations[0].quality"),
    ("exits.1.calibrations.0.quality", [], "exits[1].calibrations[0].quality"),
    ("exits.1.calibrations.0.quality.0.0", 1.5, "exits[1].calibrations[0].quality"),
    ("golden.file", "golden.safetensors", "golden.file"),
    ("golden.file", "golden/vectors.npy", "golden.file"),
    ("provenance.licence", "", "provenance.licence"),
    ("provenance.checkpoint_sha256", "abc", "provenance.checkpoint_sha256"),
]


@pytest.mark.parametrize(("path", "value", "field"), CONTRADICTIONS)
def test_a_manifest_that_contradicts_itself_names_the_field(
    copy: Path, path: str, value: Json, field: str
) -> None:
    edited(copy, path, value)
    with pytest.raises(ManifestError) as caught:
        open_bundle(copy)
    assert caught.value.field == field


@pytest.mark.parametrize("part", ["boundaries", "stages", "exits"])
def test_counts_must_agree(copy: Path, part: str) -> None:
    document = json.loads((copy / "manifest.json").read_bytes())
    document[part].pop()
    rewrite(copy, document)
    with pytest.raises(ManifestError):
        open_bundle(copy)


def test_a_bundle_without_stages_is_refused(copy: Path) -> None:
    document = json.loads((copy / "manifest.json").read_bytes())
    document["boundaries"] = document["stages"] = document["exits"] = []
    rewrite(copy, document)
    with pytest.raises(ManifestError) as caught:
        open_bundle(copy)
    assert caught.value.field == "stages"


def test_a_tensor_name_may_occur_once(copy: Path) -> None:
    document = json.loads((copy / "manifest.json").read_bytes())
    tensors = document["boundaries"][1]["tensors"]
    tensors.append(tensors[0])
    rewrite(copy, document)
    with pytest.raises(ManifestError) as caught:
        open_bundle(copy)
    assert caught.value.field == "boundaries[1].tensors"


@pytest.mark.parametrize(
    ("path", "value", "stage"),
    [
        ("boundaries.0.tensors.0.shape", [1, 8, 8, 1], 0),
        ("boundaries.0.tensors.0.dtype", "uint8", 0),
        ("preprocessing.layout", "NHWC", 0),
        ("preprocessing.color", "rgb", 0),
        ("preprocessing.width", 9, 0),
        ("exits.1.output.shape", [1, 4], 1),
        ("exits.2.output.shape", [3], 2),
        ("labels", ["a", "b"], 0),
    ],
)
def test_shapes_that_do_not_chain_name_the_stage(copy: Path, path: str, value: Json, stage: int) -> None:
    edited(copy, path, value)
    with pytest.raises((ShapeError, ManifestError)) as caught:
        open_bundle(copy)
    if isinstance(caught.value, ShapeError):
        assert caught.value.stage == stage


def test_a_risk_control_must_fit(copy: Path) -> None:
    control: dict[str, Json] = {
        "variant": "f32",
        "method": "learn-then-test",
        "risk": "accuracy-drop",
        "epsilon": 0.01,
        "delta": 0.1,
        "samples": 100,
        "thresholds": [0.9, 0.9, 0.0],
        "empirical_risk": 0.005,
        "data": "held out",
    }
    edited(copy, "risk_controls", [control])
    assert open_bundle(copy).manifest.risk_controls[0].thresholds == (0.9, 0.9, 0.0)
    assert b"tolerance" not in (copy / "manifest.json").read_bytes(), "older readers know no such field"
    edited(copy, "risk_controls.0.tolerance", 0.5)
    with pytest.raises(ManifestError) as caught:
        open_bundle(copy)
    assert caught.value.field == "risk_controls[0].tolerance", "classes have none"
    edited(copy, "risk_controls", [{**control, "risk": "inconsistency", "thresholds": [0.9]}])
    with pytest.raises(ManifestError) as caught:
        open_bundle(copy)
    assert caught.value.field == "risk_controls[0].thresholds"


def test_a_file_that_may_not_be_read_is_a_bundle_error(copy: Path) -> None:
    (copy / "manifest.json").chmod(0)
    script = (
        "import os, sys; from pathlib import Path; from edgeexit.bundle import open_bundle\n"
        "from edgeexit.errors import BundleError\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "try: open_bundle(Path(sys.argv[1]))\n"
        "except BundleError as error: print(type(error).__name__)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(copy)], capture_output=True, text=True, check=False, timeout=280
    )
    assert ran.stdout.strip() == "BundleError", ran.stderr
