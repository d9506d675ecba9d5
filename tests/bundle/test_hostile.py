"""Bundles made to do harm: each is refused in its own words, before anything of it is loaded or changed."""

from __future__ import annotations

import ast
import hashlib
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeexit.bundle import Bundle, Trust, open_bundle, sign_bundle
from edgeexit.bundle.ed25519 import sign
from edgeexit.bundle.encoding import MANIFEST_CAP_BYTES
from edgeexit.bundle.minisign import Signature
from edgeexit.bundle.secret_key import SecretKey, generate_key
from edgeexit.bundle.sign import SIGNATURE_FILE, sign_manifest, write_signature
from edgeexit.deploy.board import BoardFile, FolderBoard
from edgeexit.deploy.flash import flash
from edgeexit.deploy.layout import CONFIG
from edgeexit.errors import (
    BundleError,
    IntegrityError,
    NotSigned,
    OlderSerial,
    SignatureError,
)
from edgeexit.gateway.store import BundleStore
from edgeexit.runner.selection import open_verified
from tests.bundle.hostile_bundles import MANIFEST, MOST_MEMORY_BYTES, Case, each_case, with_value

pytestmark = pytest.mark.litert


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
