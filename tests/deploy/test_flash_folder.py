"""Flashing onto a folder: whole, in one step, and harmless wherever it is interrupted."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeexit.bundle.encoding import MANIFEST_FILE
from edgeexit.bundle.store import DIGEST_FILE, Bundle, digest_line, open_bundle
from edgeexit.deploy import layout
from edgeexit.deploy.board import BoardFile, FolderBoard
from edgeexit.deploy.flash import flash

TINY = Path(__file__).parent.parent / "data" / "tiny_bundle"
CONFIG = BoardFile(layout.CONFIG, b"device_id = 'kitchen'\n")


class PowerCut(Exception):
    """The moment at which the flash stops."""


class InterruptedBoard(FolderBoard):
    """A folder whose power is cut before its n-th change."""

    def __init__(self, root: Path, changes: int) -> None:
        super().__init__(root)
        self._left = changes

    def _change(self) -> None:
        if self._left == 0:
            raise PowerCut
        self._left -= 1

    def make_directory(self, path: str) -> None:
        self._change()
        super().make_directory(path)

    def send(self, source: Path, path: str, sent: object) -> None:
        self._change()
        content = source.read_bytes()
        part = self._part(path)
        part.write_bytes(content[: len(content) // 2])
        self._change()
        super().send(source, path, lambda _count: None)

    def write(self, content: bytes, path: str, mode: int) -> None:
        self._change()
        super().write(content, path, mode)

    def copy(self, source: str, path: str) -> None:
        self._change()
        super().copy(source, path)

    def rename(self, source: str, path: str) -> None:
        self._change()
        super().rename(source, path)

    def switch_link(self, target: str, path: str) -> None:
        self._change()
        super().switch_link(target, path)

    def remove_tree(self, path: str) -> None:
        self._change()
        super().remove_tree(path)


def next_version(folder: Path) -> Bundle:
    """The tiny bundle with another version number: other digest, same stages."""
    shutil.copytree(TINY, folder)
    manifest = msgspec.structs.replace(open_bundle(TINY).manifest, version="9.9.9", serial=9)
    data = msgspec.json.encode(manifest, order="sorted")
    (folder / MANIFEST_FILE).write_bytes(data)
    import hashlib

    (folder / DIGEST_FILE).write_bytes(digest_line(hashlib.sha256(data).hexdigest()))
    return open_bundle(folder)


def current(root: Path) -> Bundle:
    return open_bundle(root / layout.CURRENT.lstrip("/"))


def test_a_flashed_board_serves_the_bundle(tmp_path: Path) -> None:
    report = flash(open_bundle(TINY), FolderBoard(tmp_path), files=[CONFIG])
    assert current(tmp_path).digest == open_bundle(TINY).digest == report.digest
    assert (tmp_path / "etc/edgeexit/config.toml").read_bytes() == CONFIG.content
    assert not report.already_current
    assert report.sent_bytes == sum(path.stat().st_size for path in TINY.rglob("*") if path.is_file())


def test_a_second_flash_says_already_current_and_changes_nothing(tmp_path: Path) -> None:
    bundle, board = open_bundle(TINY), FolderBoard(tmp_path)
    flash(bundle, board, files=[CONFIG])
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    report = flash(bundle, board, files=[CONFIG])
    assert report.already_current
    assert report.sent_bytes == 0
    assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_new_version_sends_only_what_changed_and_keeps_the_old_one(tmp_path: Path) -> None:
    old, new, board = open_bundle(TINY), next_version(tmp_path / "new"), FolderBoard(tmp_path / "board")
    flash(old, board)
    report = flash(new, board)
    assert current(tmp_path / "board").digest == new.digest
    assert open_bundle(tmp_path / "board" / layout.PREVIOUS.lstrip("/")).digest == old.digest
    assert report.kept_bytes == sum(blob.size_bytes for blob in new.manifest.blobs())


def test_a_third_version_removes_the_first(tmp_path: Path) -> None:
    board = FolderBoard(tmp_path / "board")
    board.make_directory(layout.staging_directory("0" * 12))
    flash(open_bundle(TINY), board)
    assert board.names(layout.BUNDLES) == (open_bundle(TINY).short_digest,)


def test_a_configuration_of_the_board_is_kept_where_asked(tmp_path: Path) -> None:
    board = FolderBoard(tmp_path)
    board.write(b"device = 'mine'\n", layout.CONFIG, 0o600)
    flash(open_bundle(TINY), board, files=[BoardFile(layout.CONFIG, b"default\n", keep=True)])
    assert (tmp_path / "etc/edgeexit/config.toml").read_bytes() == b"device = 'mine'\n"


@settings(max_examples=40, deadline=None)
@given(changes=st.integers(min_value=0, max_value=40))
def test_a_power_cut_anywhere_leaves_a_whole_bundle(
    tmp_path_factory: pytest.TempPathFactory, changes: int
) -> None:
    root = tmp_path_factory.mktemp("cut")
    old, new = open_bundle(TINY), next_version(root / "new")
    flash(old, FolderBoard(root / "board"))
    # Without the old blobs in reach everything must be sent, so that the cut can fall into a file.
    for blob in old.manifest.blobs():
        assert (root / "board" / layout.CURRENT.lstrip("/") / blob.file).exists()
    try:
        flash(new, InterruptedBoard(root / "board", changes), files=[CONFIG])
    except PowerCut:
        assert current(root / "board").digest in {old.digest, new.digest}
    flash(new, FolderBoard(root / "board"), files=[CONFIG])
    assert current(root / "board").digest == new.digest


@settings(max_examples=25, deadline=None)
@given(changes=st.integers(min_value=0, max_value=40))
def test_a_power_cut_during_the_first_flash_leaves_nothing_half_made(
    tmp_path_factory: pytest.TempPathFactory, changes: int
) -> None:
    root = tmp_path_factory.mktemp("first")
    bundle = open_bundle(TINY)
    try:
        flash(bundle, InterruptedBoard(root, changes), files=[CONFIG])
    except PowerCut:
        link = root / layout.CURRENT.lstrip("/")
        assert not link.is_symlink() or current(root).digest == bundle.digest
    flash(bundle, FolderBoard(root), files=[CONFIG])
    assert current(root).digest == bundle.digest
