"""Flashing: a bundle, its configuration and its unit onto a booted board, switched in one step.

Whatever goes wrong, and wherever it is interrupted, the bundle that served before still serves: the
new one is sent beside it, verified there, and only then does `current` point to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

import msgspec

from edgeexit.bundle.store import Bundle
from edgeexit.deploy import layout
from edgeexit.deploy.board import Board
from edgeexit.errors import DeployError


@dataclass(frozen=True, slots=True)
class BoardFile:
    """A small file that goes along with a bundle. `keep` leaves a file that is there already alone."""

    path: str
    content: bytes
    mode: int = 0o644
    keep: bool = False


class FlashReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a flash did. Units: sent_bytes, kept_bytes (there already)."""

    board: str
    digest: str
    already_current: bool
    sent_bytes: int
    kept_bytes: int
    files_written: tuple[str, ...]
    removed: tuple[str, ...]
    service: str


def flash(
    bundle: Bundle,
    board: Board,
    *,
    files: Sequence[BoardFile] = (),
    unit: str | None = None,
    progress: Callable[[int, int], None] = lambda done_bytes, total_bytes: None,
) -> FlashReport:
    """Put a verified bundle onto a board and make it current.

    A second flash of the same bundle and files changes nothing.
    Raises: DeployError; the board then serves what it served before.
    """
    short = bundle.short_digest
    current, target = board.link(layout.CURRENT), layout.link_target(short)
    complete = board.is_directory(layout.bundle_directory(short))
    sent_bytes = kept_bytes = 0
    if not complete:
        sent_bytes, kept_bytes = _transfer(bundle, board, current, progress)
        _verify(bundle, board)
        board.rename(layout.staging_directory(short), layout.bundle_directory(short))
    written = tuple(file.path for file in files if _write(board, file))
    if current != target:
        if current is not None:
            board.switch_link(current, layout.PREVIOUS)
        board.switch_link(target, layout.CURRENT)
    changed = current != target or bool(written)
    return FlashReport(
        board=board.name,
        digest=bundle.digest,
        already_current=not changed,
        sent_bytes=sent_bytes,
        kept_bytes=kept_bytes,
        files_written=written,
        removed=_remove_old(board),
        service=board.restart(unit) if unit is not None and changed else "left alone",
    )


def _write(board: Board, file: BoardFile) -> bool:
    """Write a file unless the board has just that; whether it was written."""
    there = board.sha256(file.path)
    if there is not None and (file.keep or there == sha256(file.content).hexdigest()):
        return False
    board.write(file.content, file.path, file.mode)
    return True


def _transfer(
    bundle: Bundle, board: Board, current: str | None, progress: Callable[[int, int], None]
) -> tuple[int, int]:
    """Send what the board lacks into the staging directory; bytes sent, bytes that were there."""
    staging = layout.staging_directory(bundle.short_digest)
    digests = {blob.file: blob.sha256 for blob in bundle.manifest.blobs()}
    sizes = {name: (bundle.path / name).stat().st_size for name in bundle.files()}
    total_bytes, sent_bytes, kept_bytes = sum(sizes.values()), 0, 0
    board.make_directory(staging)
    for name, size_bytes in sizes.items():
        target = f"{staging}/{name}"
        board.make_directory(target.rpartition("/")[0])
        if name in digests and _there_already(board, name, digests[name], target, current):
            kept_bytes += size_bytes
        else:
            board.send(bundle.path / name, target, _counted(progress, sent_bytes + kept_bytes, total_bytes))
            sent_bytes += size_bytes
        progress(sent_bytes + kept_bytes, total_bytes)
    return sent_bytes, kept_bytes


def _counted(
    progress: Callable[[int, int], None], before_bytes: int, total_bytes: int
) -> Callable[[int], None]:
    done_bytes = before_bytes

    def sent(count: int) -> None:
        nonlocal done_bytes
        done_bytes += count
        progress(done_bytes, total_bytes)

    return sent


def _there_already(board: Board, name: str, digest: str, target: str, current: str | None) -> bool:
    """Whether a blob is on the board: from an interrupted try, or in the bundle that serves now."""
    if board.sha256(target) == digest:
        return True
    if current is None:
        return False
    served = f"{layout.STATE}/{current}/{name}"
    if board.sha256(served) != digest:
        return False
    board.copy(served, target)
    return True


def _verify(bundle: Bundle, board: Board) -> None:
    """Every file as the board reads it, not as it was sent."""
    staging = layout.staging_directory(bundle.short_digest)
    expected = {blob.file: blob.sha256 for blob in bundle.manifest.blobs()} | {"manifest.json": bundle.digest}
    for name, digest in expected.items():
        actual = board.sha256(f"{staging}/{name}")
        if actual != digest:
            board.remove_tree(staging)
            raise DeployError(
                f"{name} did not arrive whole",
                host=board.name,
                why=f"sha256 on the board is {'absent' if actual is None else actual[:12] + '…'}",
                fix="flash again; if it stays, check the card",
            )


def _remove_old(board: Board) -> tuple[str, ...]:
    """Remove bundles that neither `current` nor `previous` names, and tries that were left behind."""
    kept = {
        link.rpartition("/")[2]
        for link in (board.link(layout.CURRENT), board.link(layout.PREVIOUS))
        if link is not None
    }
    old = tuple(name for name in board.names(layout.BUNDLES) if name not in kept)
    for name in old:
        board.remove_tree(f"{layout.BUNDLES}/{name}")
    return old
