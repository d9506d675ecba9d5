"""Flashing: a bundle, its configuration and its unit onto a booted board, switched in one step.

Whatever goes wrong, and wherever it is interrupted, the bundle that served before still serves: the
new one is sent beside it, verified there, and only then does `current` point to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256

import msgspec

from edgeexit.bundle.encoding import MANIFEST_FILE
from edgeexit.bundle.minisign import Signature, encode_signature
from edgeexit.bundle.sign import SIGNATURE_FILE
from edgeexit.bundle.store import Bundle
from edgeexit.deploy import layout
from edgeexit.deploy.board import Board, BoardFile
from edgeexit.deploy.welcome import check_welcome
from edgeexit.errors import DeployError


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
    allow_older: bool = False,
    progress: Callable[[int, int], None] = lambda done_bytes, total_bytes: None,
) -> FlashReport:
    """Put a verified bundle onto a board and make it current.

    A second flash of the same bundle and files changes nothing. What the board's configuration does not
    trust is refused, and so is an older serial of the bundle that it has now, unless that is allowed.
    Raises: NotSigned, SignatureError, OlderSerial, ConfigError: nothing was changed on the board;
    DeployError: the board then serves what it served before.
    """
    short = bundle.short_digest
    current, target = board.link(layout.CURRENT), layout.link_target(short)
    check_welcome(bundle, board, files, allow_older=allow_older)
    complete = board.is_directory(layout.bundle_directory(short))
    sent_bytes = kept_bytes = 0
    if not complete:
        sent_bytes, kept_bytes = _transfer(bundle, board, progress)
        _verify(bundle, board)
        board.rename(layout.staging_directory(short), layout.bundle_directory(short))
    elif bundle.signature is not None:
        files = (*files, _signature_file(bundle, bundle.signature))
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


def _signature_file(bundle: Bundle, signature: Signature) -> BoardFile:
    """A bundle may be signed, or signed anew, after it came to the board."""
    directory = layout.bundle_directory(bundle.short_digest)
    return BoardFile(f"{directory}/{SIGNATURE_FILE}", encode_signature(signature))


def _transfer(bundle: Bundle, board: Board, progress: Callable[[int, int], None]) -> tuple[int, int]:
    """Send what the board lacks into the staging directory; bytes sent, bytes that were there."""
    staging = layout.staging_directory(bundle.short_digest)
    held = _blobs_on(board)
    digests = {blob.file: blob.sha256 for blob in bundle.manifest.blobs()}
    sizes = {name: (bundle.path / name).stat().st_size for name in bundle.files()}
    total_bytes, sent_bytes, kept_bytes = sum(sizes.values()), 0, 0
    # Each question to a board costs a round trip or several.
    for folder in dict.fromkeys(f"{staging}/{name}".rpartition("/")[0] for name in ("", *sizes)):
        board.make_directory(folder)
    for name, size_bytes in sizes.items():
        target = f"{staging}/{name}"
        if name in digests and _there_already(board, digests[name], target, held):
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


def _blobs_on(board: Board) -> dict[str, list[str]]:
    """Where blobs lie on the board, by the digest that they are named by; what they hold is not known yet.

    Every bundle counts, also one that was sent halfway: a stage that any of them has is not sent again.
    """
    held: dict[str, list[str]] = {}
    for bundle in board.names(layout.BUNDLES):
        for folder in ("blobs/sha256", "golden"):
            place = f"{layout.BUNDLES}/{bundle}/{folder}"
            for name in board.names(place):
                held.setdefault(name, []).append(f"{place}/{name}")
    return held


def _there_already(board: Board, digest: str, target: str, held: Mapping[str, Sequence[str]]) -> bool:
    """Whether a file is on the board, in its place or in another bundle, from which it is copied."""
    # Models are named by their digest, golden vectors by their file's name.
    places = (*held.get(digest, ()), *held.get(target.rpartition("/")[2], ()))
    if target in places and board.sha256(target) == digest:
        return True
    for place in dict.fromkeys(places):
        if place != target and board.sha256(place) == digest:
            board.copy(place, target)
            return True
    return False


def _verify(bundle: Bundle, board: Board) -> None:
    """Every file as the board reads it, not as it was sent."""
    staging = layout.staging_directory(bundle.short_digest)
    expected = {blob.file: blob.sha256 for blob in bundle.manifest.blobs()} | {MANIFEST_FILE: bundle.digest}
    if bundle.signature is not None:
        expected[SIGNATURE_FILE] = sha256((bundle.path / SIGNATURE_FILE).read_bytes()).hexdigest()
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
