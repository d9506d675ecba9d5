"""Bundles made to do harm: each is refused in its own words, before anything of it is loaded or changed."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeexit.bundle import Bundle, Trust, model_blob, open_bundle, sign_bundle
from edgeexit.bundle.check import blob_path
from edgeexit.bundle.ed25519 import sign
from edgeexit.bundle.encoding import MANIFEST_CAP_BYTES
from edgeexit.bundle.minisign import Signature
from edgeexit.bundle.secret_key import SecretKey, generate_key
from edgeexit.bundle.sign import SIGNATURE_FILE, sign_manifest, write_signature
from edgeexit.bundle.store import DIGEST_FILE, digest_line
from edgeexit.deploy.board import BoardFile, FolderBoard
from edgeexit.deploy.flash import flash
from edgeexit.deploy.layout import CONFIG
from edgeexit.errors import (
    BundleError,
    IntegrityError,
    ManifestError,
    MissingFile,
    NotSigned,
    OlderSerial,
    ShapeError,
    SignatureError,
    UnsafeModel,
    UnsafePath,
)
from edgeexit.gateway.store import BundleStore
from edgeexit.runner.selection import open_verified

pytestmark = pytest.mark.litert

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None
Spoil = Callable[[Path], None]

MANIFEST = "manifest.json"
# What opening a bundle of 42 kB may take, whatever it claims to be: a manifest of 4 MiB, decoded, and room.
MOST_MEMORY_BYTES = 64 * 2**20


def remade(root: Path, document: Json) -> None:
    """Write the manifest with its digest beside it: somebody who does harm knows how."""
    data = msgspec.json.encode(document, order="sorted")
    (root / MANIFEST).write_bytes(data)
    (root / DIGEST_FILE).write_bytes(digest_line(hashlib.sha256(data).hexdigest()))


def with_value(path: str, value: Json) -> Spoil:
    """Sets one value of the manifest."""

    def spoil(root: Path) -> None:
        document = json.loads((root / MANIFEST).read_bytes())
        place = document
        *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
        for step in steps:
            place = place[step]
        place[last] = value
        remade(root, document)

    return spoil


def with_model(content: Callable[[bytes], bytes]) -> Spoil:
    """Puts another first model, and names it rightly in the manifest."""

    def spoil(root: Path) -> None:
        document = json.loads((root / MANIFEST).read_bytes())
        entry = document["stages"][0]["variants"][0]
        data = content((root / entry["blob"]["file"]).read_bytes())
        blob = model_blob(data)
        (root / blob.file).write_bytes(data)
        entry["blob"] = msgspec.to_builtins(blob)
        remade(root, document)

    return spoil


def rewritten(change: Callable[[schema.ModelT], None]) -> Spoil:
    """A model that the schema's own code wrote, with something changed."""

    def content(model: bytes) -> bytes:
        tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
        change(tree)
        builder = schema.flatbuffers.Builder(len(model))
        builder.Finish(tree.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    return with_model(content)


def nan_weights(tree: schema.ModelT) -> None:
    for tensor in tree.subgraphs[0].tensors:
        buffer = tree.buffers[tensor.buffer]
        if tensor.type == 0 and buffer.data is not None and len(buffer.data):
            numbers = np.full(len(buffer.data) // 4, np.nan, "<f4")
            buffer.data = np.frombuffer(numbers.tobytes(), np.uint8)


def flex_operator(tree: schema.ModelT) -> None:
    kind = tree.operatorCodes[0]
    kind.customCode, kind.builtinCode, kind.deprecatedBuiltinCode = b"FlexConv2D", 32, 32


def called_onnx(content: Callable[[bytes], bytes]) -> Spoil:
    """A first model that is called an ONNX one, and named rightly."""

    def spoil(root: Path) -> None:
        with_model(content)(root)
        with_value("stages.0.variants.0.format", "onnx")(root)

    return spoil


@cache
def foreign_onnx() -> bytes:
    """An operator of somebody's own library."""
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Steal", ["x"], ["y"], domain="com.evil")], "g", [], []
    )
    opsets = [onnx.helper.make_opsetid("com.evil", 1)]
    return bytes(onnx.helper.make_model(graph, opset_imports=opsets).SerializeToString())


def absurd_tensor(tree: schema.ModelT) -> None:
    tree.subgraphs[0].tensors[0].shape = np.array([1, 2**30, 2**30], np.int32)


@cache
def zip_bomb() -> bytes:
    """100 MB of zeros in 100 kB."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(100_000_000))
    return made.getvalue()


def model_of(root: Path) -> Path:
    document = json.loads((root / MANIFEST).read_bytes())
    return root / str(document["stages"][0]["variants"][0]["blob"]["file"])


def truncated(file: Callable[[Path], Path]) -> Spoil:
    def spoil(root: Path) -> None:
        place = file(root)
        place.write_bytes(place.read_bytes()[:-7])

    return spoil


def flipped(root: Path) -> None:
    place = model_of(root)
    data = bytearray(place.read_bytes())
    data[len(data) // 2] ^= 4
    place.write_bytes(data)


def wrong_digest(root: Path) -> None:
    (root / DIGEST_FILE).write_bytes(digest_line("ab" * 32))


def renamed_model(root: Path) -> None:
    """Another file under the digest of the right one, of the right size."""
    place = model_of(root)
    place.write_bytes(bytes(place.stat().st_size))


def model_of_another_name(root: Path) -> None:
    with_value("stages.0.variants.0.blob.file", blob_path("0" * 64))(root)


def absent_model(root: Path) -> None:
    document = json.loads((root / MANIFEST).read_bytes())
    document["stages"][0]["variants"][0]["blob"].update(file=blob_path("0" * 64), sha256="0" * 64)
    remade(root, document)


def link_outside(root: Path) -> None:
    place = model_of(root)
    place.rename(root.parent / "outside")
    place.symlink_to(root.parent / "outside")


def folder_outside(root: Path) -> None:
    (root / "golden").rename(root.parent / "elsewhere")
    (root / "golden").symlink_to(root.parent / "elsewhere")


def pipe(root: Path) -> None:
    place = model_of(root)
    place.unlink()
    os.mkfifo(place)


def endless_manifest(root: Path) -> None:
    os.truncate(root / MANIFEST, 2**36)  # sparse: it takes no room


def deep_manifest(root: Path) -> None:
    (root / MANIFEST).write_bytes(b'{"schema":1,"labels":' + b"[" * 2_000_000)


def many_stages(root: Path) -> None:
    document = json.loads((root / MANIFEST).read_bytes())
    for part in ("stages", "exits", "boundaries"):
        document[part] = document[part][:2] * 500
    remade(root, document)


def archive_for_a_bundle(root: Path) -> None:
    shutil.rmtree(root)
    root.write_bytes(zip_bomb())


@dataclass(frozen=True, slots=True)
class Case:
    """One harmful bundle: how it is made, and how it must be refused."""

    name: str
    spoil: Spoil
    kind: type[BundleError]
    words: str


CASES = [
    Case("truncated manifest", truncated(lambda root: root / MANIFEST), ManifestError, "malformed"),
    Case("truncated model", truncated(model_of), BundleError, "another size"),
    Case(
        "truncated golden vectors",
        truncated(lambda root: root / "golden" / "golden.safetensors"),
        BundleError,
        "another size",
    ),
    Case("flipped bit", flipped, IntegrityError, "changed after the bundle was made"),
    Case("wrong digest of the manifest", wrong_digest, IntegrityError, "sha256"),
    Case("another file of the same size", renamed_model, IntegrityError, "sha256"),
    Case("model under another digest", model_of_another_name, ManifestError, "its own digest"),
    Case("model that is not there", absent_model, MissingFile, "missing"),
    Case("path that climbs", with_value("golden.file", "golden/../../x.safetensors"), UnsafePath, "'..'"),
    Case("path from the root", with_value("golden.file", "/etc/shadow"), UnsafePath, "absolute"),
    Case("path with a drive", with_value("golden.file", "C:golden"), UnsafePath, "colon"),
    Case("link that leaves", link_outside, UnsafePath, "link"),
    Case("folder that leaves", folder_outside, UnsafePath, "link"),
    Case("pipe for a model", pipe, BundleError, "ordinary file"),
    Case("manifest of 64 GB", endless_manifest, BundleError, "larger than"),
    Case("manifest nested without end", deep_manifest, ManifestError, "malformed"),
    Case("a thousand stages", many_stages, ManifestError, "stages"),
    Case(
        "boundary of 4e18 elements",
        with_value("boundaries.1.tensors.0.shape", [1, 2**31, 2**31]),
        ManifestError,
        "boundaries[1].tensors[0].shape",
    ),
    Case(
        "boundary of no elements",
        with_value("boundaries.1.tensors.0.shape", [1, 0]),
        ManifestError,
        "boundaries[1].tensors[0].shape",
    ),
    Case("image of 65,536 pixels a side", with_value("preprocessing.height", 65_536), ShapeError, "fit"),
    Case(
        "temperature that is none", with_value("exits.0.calibrations.0.temperature", 0.0), ManifestError, "0"
    ),
    Case("not a model", with_model(lambda _: b"#!/bin/sh\nrm -rf /\n"), UnsafeModel, "no TFLite file"),
    Case("zip bomb for a model", with_model(lambda _: zip_bomb()), UnsafeModel, "no TFLite file"),
    Case("half a model", with_model(lambda model: model[: len(model) // 2]), UnsafeModel, "leave"),
    Case("NaN weights", rewritten(nan_weights), UnsafeModel, "NaN"),
    Case("Flex operator", rewritten(flex_operator), UnsafeModel, "FlexConv2D"),
    Case("tensor of 1e18 elements", rewritten(absurd_tensor), UnsafeModel, "shape"),
    Case("no ONNX file", called_onnx(lambda model: model), UnsafeModel, ""),
    Case("foreign operator in an ONNX file", called_onnx(lambda _: foreign_onnx()), UnsafeModel, "com.evil"),
    Case("archive for a bundle", archive_for_a_bundle, BundleError, "a bundle is a directory"),
]
each_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


@pytest.fixture(scope="module")
def key() -> SecretKey:
    return generate_key()


@pytest.fixture
def copied(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle.path, tmp_path / "store" / "bundle"))


def signed_as_it_is(root: Path, key: SecretKey) -> None:
    """Sign the manifest's bytes, whatever they are."""
    signature = sign(key.seed, hashlib.blake2b((root / MANIFEST).read_bytes()).digest())
    overall = sign(key.seed, signature + b"stolen")
    write_signature(root, Signature(True, key.key_id, signature, "stolen", overall))


@each_case
def test_it_is_refused_in_its_own_words_and_in_little_memory(case: Case, copied: Path) -> None:
    case.spoil(copied)
    tracemalloc.start()
    try:
        with pytest.raises(case.kind) as caught:
            open_bundle(copied)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert type(caught.value) is case.kind
    assert case.words in str(caught.value)
    assert peak_bytes < MOST_MEMORY_BYTES


@each_case
def test_it_is_refused_whoever_signed_it(case: Case, copied: Path, key: SecretKey) -> None:
    """A signature says whose bundle it is, not that it is sound: a stolen key opens no other door."""
    case.spoil(copied)
    if copied.is_dir() and (copied / MANIFEST).stat().st_size <= MANIFEST_CAP_BYTES:
        signed_as_it_is(copied, key)
    with pytest.raises(case.kind) as caught:
        open_bundle(copied, trust=Trust((key.public,)))
    assert type(caught.value) is case.kind


@each_case
def test_a_gateway_serves_the_others(case: Case, copied: Path, tiny_bundle: Bundle) -> None:
    case.spoil(copied)
    shutil.copytree(tiny_bundle.path, copied.parent / "sound")
    change = BundleStore(copied.parent, bundle_limit=4).scan()
    assert [bundle.path.name for bundle in change.added] == ["sound"]
    assert (copied in [rejected.path for rejected in change.rejected]) == copied.is_dir()


def unsigned(root: Path, key: SecretKey) -> None:
    (root / SIGNATURE_FILE).unlink()


def by_a_stranger(root: Path, key: SecretKey) -> None:
    sign_bundle(open_bundle(root), generate_key(), unix_s=0)


def of_an_older_manifest(root: Path, key: SecretKey) -> None:
    with_value("version", "6.6.6")(root)


def with_a_truncated_signature(root: Path, key: SecretKey) -> None:
    place = root / SIGNATURE_FILE
    place.write_bytes(place.read_bytes()[:-20])


def with_a_flipped_signature(root: Path, key: SecretKey) -> None:
    place = root / SIGNATURE_FILE
    lines = place.read_bytes().split(b"\n")
    middle = len(lines[1]) // 2
    lines[1] = (
        lines[1][:middle] + (b"A" if lines[1][middle : middle + 1] != b"A" else b"B") + lines[1][middle + 1 :]
    )
    place.write_bytes(b"\n".join(lines))


def with_a_raised_serial(root: Path, key: SecretKey) -> None:
    """An old manifest, signed by the right key, its comment claiming to be new."""
    manifest = open_bundle(root).manifest
    newer = msgspec.structs.replace(manifest, serial=99)
    write_signature(root, sign_manifest((root / MANIFEST).read_bytes(), newer, key, unix_s=0))


SIGNATURES: list[tuple[Callable[[Path, SecretKey], None], type[BundleError], str]] = [
    (unsigned, NotSigned, "not signed"),
    (by_a_stranger, SignatureError, "not trusted here"),
    (of_an_older_manifest, SignatureError, "did not sign these bytes"),
    (with_a_truncated_signature, SignatureError, "no signature"),
    (with_a_flipped_signature, SignatureError, "key"),
    (with_a_raised_serial, SignatureError, "another bundle"),
]


@pytest.mark.parametrize(("spoil", "kind", "words"), SIGNATURES, ids=[row[0].__name__ for row in SIGNATURES])
def test_a_signature_that_is_wrong_opens_nothing(
    copied: Path,
    key: SecretKey,
    spoil: Callable[[Path, SecretKey], None],
    kind: type[BundleError],
    words: str,
) -> None:
    sign_bundle(open_bundle(copied), key, unix_s=0)
    spoil(copied, key)
    with pytest.raises(kind) as caught:
        open_bundle(copied, trust=Trust((key.public,)))
    assert type(caught.value) is kind
    assert words in str(caught.value)


def test_an_older_serial_is_refused_though_rightly_signed(copied: Path, key: SecretKey) -> None:
    sign_bundle(open_bundle(copied), key, unix_s=0)
    with pytest.raises(OlderSerial):
        open_bundle(copied, trust=Trust((key.public,), {"tiny-stripes": 2}))


def test_nothing_is_loaded_of_what_became_harmful_after_it_was_opened(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Golden vectors are read anew when a bundle is loaded, and first of all."""
    from edgeexit.runner import loading

    def load(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    bundle = open_bundle(copied)
    place = copied / bundle.manifest.golden.file
    place.write_bytes(place.read_bytes()[:-1] + b"\1")
    monkeypatch.setattr(loading, "load_stage", load)
    with pytest.raises(IntegrityError):
        open_verified(bundle)


def test_a_flash_of_what_is_refused_changes_nothing(copied: Path, key: SecretKey, tmp_path: Path) -> None:
    board = FolderBoard(tmp_path / "board")
    config = BoardFile(CONFIG, f'[trust]\nkeys = ["{key.public.line}"]\n'.encode())
    with pytest.raises(NotSigned):
        flash(open_bundle(copied), board, files=[config])
    assert not (tmp_path / "board").exists()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_done_to_a_file_of_a_signed_bundle_is_noticed(
    copied: Path, tiny_bundle: Bundle, key: SecretKey, data: st.DataObject
) -> None:
    if not (copied / SIGNATURE_FILE).exists():
        sign_bundle(open_bundle(copied), key, unix_s=0)
    name = data.draw(st.sampled_from([*tiny_bundle.files(), SIGNATURE_FILE]))
    place = copied / name
    sound = place.read_bytes()
    cut = data.draw(st.integers(0, len(sound) - 2))
    patch = data.draw(st.binary(min_size=1, max_size=16))
    how = data.draw(st.sampled_from(["cut", "patch", "insert", "replace"]))
    damaged = {
        "cut": sound[:cut],
        "patch": sound[:cut] + patch + sound[cut + len(patch) :],
        "insert": sound[:cut] + patch + sound[cut:],
        "replace": patch * 40,
    }[how]
    # The comment above a signature is covered by nothing, and may say anything.
    first_line = sound.index(b"\n") if name == SIGNATURE_FILE else 0
    place.write_bytes(damaged)
    try:
        opened = open_bundle(copied, trust=Trust((key.public,)))
    except BundleError:
        return
    finally:
        place.write_bytes(sound)
    assert opened.digest == tiny_bundle.digest
    assert damaged == sound or damaged[-60:] == sound[-60:] or cut <= first_line


def test_no_room_that_reads_bundles_opens_archives_or_pickles() -> None:
    """There is no archive to put a bomb into: a bundle is a directory, and its files are not compressed."""
    package = Path(__file__).parents[2] / "edgeexit"
    refused = {"zipfile", "tarfile", "gzip", "bz2", "lzma", "pickle", "marshal", "shelve", "dill"}
    for room in ("bundle", "runner", "deploy", "gateway", "device"):
        for path in (package / room).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            named = {
                alias.name.split(".")[0]
                for node in ast.walk(tree)
                if isinstance(node, ast.Import)
                for alias in node.names
            }
            named |= {
                (node.module or "").split(".")[0]
                for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom)
            }
            called = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
            assert not named & refused, path
            assert "unpack_archive" not in called, path
