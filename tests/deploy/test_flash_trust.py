"""A board is changed only by bundles that it trusts, that are not older, and only where they differ."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from edgeexit.bundle import Bundle, open_bundle, sign_bundle, write_bundle
from edgeexit.bundle.manifest import Stage
from edgeexit.bundle.secret_key import SecretKey, generate_key
from edgeexit.bundle.sign import SIGNATURE_FILE
from edgeexit.deploy import layout
from edgeexit.deploy.board import BoardFile, FolderBoard, Sent
from edgeexit.deploy.flash import flash
from edgeexit.errors import BundleError, ConfigError, DeployError, NotSigned, OlderSerial, SignatureError

TINY = Path(__file__).parent.parent / "data" / "tiny_bundle"


class CountingBoard(FolderBoard):
    """A folder that counts the bytes which cross over to it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.crossed_bytes = 0

    def send(self, source: Path, path: str, sent: Sent) -> None:
        self.crossed_bytes += source.stat().st_size
        super().send(source, path, sent)

    def write(self, content: bytes, path: str, mode: int) -> None:
        self.crossed_bytes += len(content)
        super().write(content, path, mode)


@pytest.fixture(scope="module")
def key() -> SecretKey:
    return generate_key()


def trusting(key: SecretKey) -> BoardFile:
    return BoardFile(layout.CONFIG, f'[trust]\nkeys = ["{key.public.line}"]\n'.encode())


def copied(folder: Path) -> Bundle:
    return open_bundle(Path(shutil.copytree(TINY, folder)))


def remade(folder: Path, *, serial: int, change: Callable[[Stage], Stage] = lambda stage: stage) -> Bundle:
    """The tiny bundle with another serial, and with its last stage changed."""
    tiny = open_bundle(TINY)
    files = {blob.file: tiny.blob_path(blob).read_bytes() for blob in tiny.manifest.blobs()}
    stages = (*tiny.manifest.stages[:-1], change(tiny.manifest.stages[-1]))
    return write_bundle(folder, msgspec.structs.replace(tiny.manifest, serial=serial, stages=stages), files)


def swapped(stage: Stage) -> Stage:
    """The stage without its f32 file, its int8 file in both places: files fewer, none new."""
    small = stage.variants[1].blob
    return msgspec.structs.replace(
        stage, variants=tuple(msgspec.structs.replace(each, blob=small) for each in stage.variants)
    )


def tree(root: Path) -> dict[str, int]:
    return {str(path.relative_to(root)): path.lstat().st_mtime_ns for path in root.rglob("*")}


def test_a_signed_bundle_comes_with_its_signature(tmp_path: Path, key: SecretKey) -> None:
    bundle = sign_bundle(copied(tmp_path / "bundle"), key, unix_s=0)
    flash(bundle, FolderBoard(tmp_path / "board"), files=[trusting(key)])
    there = tmp_path / "board" / layout.bundle_directory(bundle.short_digest).lstrip("/")
    assert (there / SIGNATURE_FILE).read_bytes() == (bundle.path / SIGNATURE_FILE).read_bytes()


@pytest.mark.parametrize(("signer", "kind"), [(None, NotSigned), (generate_key(), SignatureError)])
def test_a_board_that_trusts_a_key_is_not_changed_by_anything_else(
    tmp_path: Path, key: SecretKey, signer: SecretKey | None, kind: type[BundleError]
) -> None:
    board = FolderBoard(tmp_path / "board")
    first = sign_bundle(copied(tmp_path / "first"), key, unix_s=0)
    flash(first, board, files=[trusting(key)])
    later = remade(tmp_path / "later", serial=2)
    if signer is not None:
        later = sign_bundle(later, signer, unix_s=0)
    before = tree(tmp_path / "board")
    # Its own configuration stays, as where no other is given, or a default one is.
    for files in ([], [BoardFile(layout.CONFIG, b"", keep=True)], [trusting(key)]):
        with pytest.raises(kind):
            flash(later, board, files=files)
    assert tree(tmp_path / "board") == before
    flash(sign_bundle(later, key, unix_s=0), board)


def test_trust_in_a_drop_in_counts(tmp_path: Path, key: SecretKey) -> None:
    board = FolderBoard(tmp_path)
    board.write(b"[source]\nkind = 'directory'\npath = 'x'\n", layout.CONFIG, 0o644)
    board.write(trusting(key).content, f"{layout.CONFIG_EXTRAS}/10-trust.toml", 0o644)
    with pytest.raises(NotSigned):
        flash(open_bundle(TINY), board)
    assert board.link(layout.CURRENT) is None


@pytest.mark.parametrize("content", [b"not toml", b"trust = 3\n", b"[trust]\nkeys = ['RW']\n"])
def test_a_configuration_that_cannot_be_understood_is_no_leave_to_flash(
    tmp_path: Path, content: bytes
) -> None:
    board = FolderBoard(tmp_path)
    board.write(content, layout.CONFIG, 0o644)
    with pytest.raises(ConfigError):
        flash(open_bundle(TINY), board)
    assert board.link(layout.CURRENT) is None


def test_a_bundle_that_was_signed_later_brings_its_signature_alone(tmp_path: Path, key: SecretKey) -> None:
    bundle, board = copied(tmp_path / "bundle"), CountingBoard(tmp_path / "board")
    flash(bundle, board)
    board.crossed_bytes = 0
    signed = sign_bundle(bundle, key, unix_s=0)
    report = flash(signed, board)
    assert not report.already_current
    assert board.crossed_bytes == (signed.path / SIGNATURE_FILE).stat().st_size
    assert flash(signed, board, files=[trusting(key)]).digest == bundle.digest


def test_an_older_serial_needs_to_be_allowed(tmp_path: Path) -> None:
    board = FolderBoard(tmp_path / "board")
    flash(remade(tmp_path / "new", serial=5), board)
    before = tree(tmp_path / "board")
    with pytest.raises(OlderSerial) as caught:
        flash(open_bundle(TINY), board)
    assert (caught.value.serial, caught.value.least_serial) == (1, 5)
    assert tree(tmp_path / "board") == before
    flash(open_bundle(TINY), board, allow_older=True)


def test_another_bundle_is_not_older(tmp_path: Path) -> None:
    board = FolderBoard(tmp_path / "board")
    flash(remade(tmp_path / "new", serial=5), board)
    tiny = open_bundle(TINY)
    files = {blob.file: tiny.blob_path(blob).read_bytes() for blob in tiny.manifest.blobs()}
    renamed = msgspec.structs.replace(tiny.manifest, name="another")
    flash(write_bundle(tmp_path / "another", renamed, files), board)


def test_only_what_is_new_crosses_over(tmp_path: Path) -> None:
    board = CountingBoard(tmp_path / "board")
    old = open_bundle(TINY)
    flash(old, board)
    assert board.crossed_bytes == sum(path.stat().st_size for path in TINY.rglob("*") if path.is_file())
    board.crossed_bytes = 0
    new = remade(tmp_path / "new", serial=2, change=swapped)
    report = flash(new, board)
    described = sum((new.path / name).stat().st_size for name in ("manifest.json", "manifest.json.sha256"))
    assert board.crossed_bytes == report.sent_bytes == described


def test_a_stage_of_any_bundle_on_the_board_is_not_sent_again(tmp_path: Path) -> None:
    """Not that of the current bundle alone: also of the one before, and of one that came halfway."""
    board = CountingBoard(tmp_path / "board")
    tiny = open_bundle(TINY)
    flash(tiny, board)
    flash(remade(tmp_path / "second", serial=2, change=swapped), board)
    # The first bundle's last f32 stage is in `previous` only.
    board.crossed_bytes = 0
    third = remade(tmp_path / "third", serial=3)
    flash(third, board)
    described = sum((third.path / name).stat().st_size for name in ("manifest.json", "manifest.json.sha256"))
    assert board.crossed_bytes == described


def test_a_blob_under_a_false_name_is_sent_anew(tmp_path: Path) -> None:
    board = CountingBoard(tmp_path / "board")
    tiny = open_bundle(TINY)
    flash(tiny, board)
    blob = tiny.manifest.stages[0].variants[0].blob
    place = tmp_path / "board" / layout.bundle_directory(tiny.short_digest).lstrip("/") / blob.file
    place.write_bytes(b"worn out card")
    board.crossed_bytes = 0
    new = remade(tmp_path / "new", serial=2)
    flash(new, board)
    assert board.crossed_bytes >= blob.size_bytes
    open_bundle(tmp_path / "board" / layout.CURRENT.lstrip("/"))


def test_small_files_are_read_and_large_ones_refused(tmp_path: Path) -> None:
    board = FolderBoard(tmp_path)
    board.write(b"12345", "/file", 0o644)
    assert board.read("/file", 5) == b"12345"
    assert board.read("/nowhere", 5) is None
    with pytest.raises(DeployError, match="larger than 4"):
        board.read("/file", 4)
